"""Lists from scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from training.algorithms.base import Algorithm, best
from training.algorithms.popularity import Popularity


@given(
    st.lists(st.lists(st.integers(-2, 2), min_size=6, max_size=6), max_size=4),
    st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=4, max_size=4),
    st.integers(1, 8),
    st.sampled_from([-np.inf, -1.0, 0.0]),
)
def test_the_best_of_what_is_not_held_of_equals_the_lower_index_and_nothing_below_the_least(
    scores: list[list[int]], held: list[list[bool]], k: int, least: float
) -> None:
    given_scores = np.array(scores, np.float32).reshape(len(scores), 6)
    histories = sparse.csr_matrix(np.array(held[: len(scores)], np.float32).reshape(len(scores), 6))
    indices, listed = best(given_scores, histories, k, least)
    assert indices.shape == listed.shape == (len(scores), k)
    for row, values in enumerate(scores):
        free = [item for item in range(6) if not held[row][item] and values[item] > least]
        if not any(values[item] for item in free):
            free = []
        expected = sorted(free, key=lambda item: (-values[item], item))[:k]
        padding = k - len(expected)
        assert indices[row].tolist() == expected + [-1] * padding
        assert listed[row].tolist() == [values[item] for item in expected] + [-np.inf] * padding


def test_many_rows_are_scored_in_parts_that_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Watched(Popularity):
        recommend = Algorithm.recommend

        def scores(self, user_items: sparse.csr_matrix) -> np.ndarray:
            asked.append(user_items.shape[0])
            return super().scores(user_items)

    user_items = sparse.csr_matrix(np.eye(10, 4, dtype=np.float32))
    algorithm = Watched()
    algorithm.fit(user_items)
    monkeypatch.setattr("training.algorithms.base.CELLS", 12)
    lists, _ = algorithm.recommend(user_items, 2)
    assert asked == [3, 3, 3, 1]
    assert lists.tolist() == Popularity.recommend(algorithm, user_items, 2)[0].tolist()
