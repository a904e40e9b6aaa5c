"""Item to item beside its definition."""

import numpy as np
import pytest
from scipy import sparse

from training.algorithms.item_item import ItemItem

HISTORIES = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1], [0, 0, 1]], np.float32)


@pytest.mark.parametrize("activity", [0.0, 0.5])
def test_cosine_is_the_cosine_of_the_items_columns_people_with_long_histories_counting_less(activity: float) -> None:
    columns = HISTORIES * (HISTORIES.sum(axis=1, keepdims=True) ** -activity)
    directions = columns / np.linalg.norm(columns, axis=0)
    model = ItemItem(weighting="cosine", activity=activity)
    model.fit(sparse.csr_matrix(HISTORIES))
    assert np.allclose(model.scores(sparse.csr_matrix(np.eye(3, dtype=np.float32))), directions.T @ directions)


def test_a_person_who_has_nearly_everything_says_next_to_nothing_and_not_the_contrary() -> None:
    model = ItemItem(weighting="tfidf")
    model.fit(sparse.csr_matrix(np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]], np.float32)))
    scores = model.scores(sparse.csr_matrix(np.eye(4, dtype=np.float32)))
    assert (scores >= 0).all()
    assert scores[0, 1] > scores[0, 2]
