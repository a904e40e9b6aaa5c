"""Histories with their times: newer items weigh more, and nothing else changes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from training.recency import UNWEIGHTED, Histories, Recency


@pytest.fixture
def histories() -> Histories:
    """Two rows; the first has its items in the order of time 3, 0, 2, and item 2 speaks for nothing."""
    user_items = sparse.csr_matrix(
        (np.array([1, 0, 2, 1], np.float32), np.array([0, 2, 3, 1]), np.array([0, 3, 4])), shape=(2, 5)
    )
    return Histories(user_items, np.array([20, 30, 10, 5], np.int64))


def test_the_boost_halves_with_every_half_life_from_the_newest_on(histories: Histories) -> None:
    weighted = histories.weighted(Recency(boost=4, half_life=1 / 3))
    assert weighted.data.tolist() == [1 * (1 + 2), 0, 2 * (1 + 1), 1 * (1 + 4)]
    assert weighted.indices.tolist() == histories.user_items.indices.tolist()


def test_the_half_life_is_a_share_of_the_history_at_hand() -> None:
    """In a row of two and in a row of four, the boost has halved where half of the row is newer."""
    user_items = sparse.csr_matrix(np.array([[1, 1, 0, 0], [1, 1, 1, 1]], np.float32))
    weighted = Histories(user_items, np.array([1, 2, 1, 2, 3, 4], np.int64)).weighted(Recency(boost=8, half_life=0.5))
    assert weighted[0, [0, 1]].toarray().tolist() == [[1 + 4, 1 + 8]]
    assert weighted[1, [1, 3]].toarray().tolist() == [[1 + 4, 1 + 8]]


def test_without_a_boost_histories_are_what_they_were(histories: Histories) -> None:
    assert histories.weighted(UNWEIGHTED).data.tolist() == [1, 0, 2, 1]


def test_items_of_the_same_moment_have_an_order_of_their_own() -> None:
    """By weight, then by index: the order of rows in a file must not matter."""
    row = sparse.csr_matrix(np.array([[1, 2, 1]], np.float32))
    weighted = Histories(row, np.array([7, 7, 7], np.int64)).weighted(Recency(boost=4, half_life=1 / 3))
    assert weighted.data.tolist() == [1 * (1 + 1), 2 * (1 + 4), 1 * (1 + 2)]


@pytest.mark.parametrize("rows", [slice(1, 2), np.array([1]), np.array([1, 0])])
def test_rows_are_taken_with_their_times(histories: Histories, rows: slice | np.ndarray) -> None:
    recency = Recency(boost=3, half_life=2)
    whole = histories.weighted(recency).toarray()[rows]
    assert histories[rows].weighted(recency).toarray().tolist() == whole.tolist()
    assert len(histories[rows]) == len(whole)


def test_ages_are_days_before_the_newest_of_all(histories: Histories) -> None:
    days = Histories(histories.user_items, np.array([0, 1, 2, 4], np.int64) * 86_400_000)
    assert days.ages().tolist() == [4, 3, 2, 0]


def test_no_histories_are_no_trouble() -> None:
    empty = Histories(sparse.csr_matrix((0, 5), dtype=np.float32), np.zeros(0, np.int64))
    assert empty.weighted(Recency(boost=1)).shape == (0, 5)
    assert empty.ages().tolist() == []


@given(
    rows=st.lists(
        st.lists(st.tuples(st.sampled_from([0, 1, 2, -(10**13), 2**46]), st.sampled_from([0.0, 1.0, 2.0])), max_size=6),
        min_size=1,
        max_size=5,
    ),
    empty=st.sampled_from([0, 2**15, 2**18]),
)
def test_ranks_are_the_places_in_time(rows: list[list[tuple[int, float]]], empty: int) -> None:
    """However far apart the times are, and however many rows there are."""
    lengths = [*map(len, rows), *([0] * empty)]
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    weights = np.array([weight for row in rows for _, weight in row], np.float32)
    indices = np.array([index for row in rows for index in range(len(row))], np.int32)
    user_items = sparse.csr_matrix((weights, indices, indptr), shape=(len(lengths), 6))
    at_ms = np.array([at for row in rows for at, _ in row], np.int64)
    recency = Recency(boost=1, half_life=1)
    expected: list[float] = []
    for row in rows:
        newest_first = sorted(range(len(row)), key=lambda place: (*row[place], place), reverse=True)
        ranks = np.array([newest_first.index(place) for place in range(len(row))], np.int64)
        factors = recency.factors(ranks, np.full(len(row), len(row)))
        expected += (np.array([weight for _, weight in row], np.float32) * factors).tolist()
    assert Histories(user_items, at_ms).weighted(recency).data.tolist() == expected
