"""What most people have."""

import numpy as np
import pytest
from scipy import sparse

from training.algorithms.popularity import Popularity

NOTHING_HELD = sparse.csr_matrix(np.zeros((1, 4), np.float32))
TWO_PEOPLE = sparse.csr_matrix(np.array([[0, 1, 1, 0], [0, 0, 2, 0]], np.float32))
AGES = np.array([0, 14, 7], np.float32)
"""Days: of person 0 items 1 and 2, of person 1 item 2."""


def test_items_are_ranked_by_the_number_of_people_and_then_by_index() -> None:
    popularity = Popularity()
    popularity.fit(TWO_PEOPLE)
    indices, scores = popularity.recommend(NOTHING_HELD, 4)
    assert indices.tolist() == [[2, 1, 0, 3]]
    assert scores.tolist() == [[2, 1, 0, 0]]
    assert not popularity.looks_at_ages


def test_an_interaction_counts_half_after_each_half_life() -> None:
    popularity = Popularity(half_life_days=7)
    popularity.fit(TWO_PEOPLE, AGES)
    indices, scores = popularity.recommend(NOTHING_HELD, 4)
    assert indices.tolist() == [[1, 2, 0, 3]]
    assert scores.tolist() == [[1, 0.25 + 0.5, 0, 0]]
    assert popularity.looks_at_ages


@pytest.mark.parametrize(("half_life", "ages"), [(None, AGES), (7, None)])
def test_without_a_half_life_or_without_ages_everything_counts_the_same(
    half_life: float | None, ages: np.ndarray | None
) -> None:
    popularity = Popularity(half_life)
    popularity.fit(TWO_PEOPLE, ages)
    assert popularity.arrays()["popularity"].tolist() == [0, 1, 2, 0]


def test_popularity_knows_nothing_alike_and_explains_nothing() -> None:
    popularity = Popularity()
    popularity.fit(TWO_PEOPLE)
    assert popularity.similar_items(0, 10)[0].shape == (0,)
    assert popularity.contributions(TWO_PEOPLE[0], 2).tolist() == [0, 0]
