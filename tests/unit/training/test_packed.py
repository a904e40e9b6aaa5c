"""Histories are the same packed and unpacked, whole or a few at a time."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from training import packed
from training.packed import PackedHistories, Times, divided, merged, parts
from training.recency import Histories

YEAR_1_MS, YEAR_6429_MS = -62_135_596_800_000, 140_737_488_355_327
moments = st.integers(YEAR_1_MS, YEAR_6429_MS)


def histories(dense: list[list[float]], first_ms: int = 7) -> Histories:
    """NaN: not there; 0: seen."""
    table = np.array(dense, np.float32)
    there = ~np.isnan(table)
    indptr = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int32)
    values = (table[there], np.nonzero(there)[1].astype(np.int32), indptr)
    return Histories(sparse.csr_matrix(values, shape=table.shape), np.arange(there.sum()) * 10**10 + first_ms)


def same(one: Histories, other: Histories) -> bool:
    matrices = one.user_items, other.user_items
    columns: list[list[npt.NDArray[np.generic]]] = [[m.data, m.indices, m.indptr] for m in matrices]
    columns[0].append(one.at_ms)
    columns[1].append(other.at_ms)
    return matrices[0].shape == matrices[1].shape and all(map(np.array_equal, *columns))


@given(at_ms=st.lists(moments, max_size=20))
def test_times_come_back_as_they_were(at_ms: list[int]) -> None:
    times = Times.of(np.array(at_ms, np.int64))
    assert times[:].tolist() == at_ms
    assert times[np.arange(len(at_ms))[::-1]].tolist() == at_ms[::-1]
    assert times[1:3].tolist() == at_ms[1:3]
    assert times.newest() == max(at_ms, default=0)
    assert len(times) == len(at_ms)


def test_times_take_six_bytes_each() -> None:
    times = Times.of(np.arange(1000))
    assert times.low.nbytes + times.high.nbytes == 6000


def test_times_are_written_to_any_places() -> None:
    times = Times.of(np.zeros(4, np.int64))
    times.put(np.array([3, 1]), np.array([YEAR_1_MS, YEAR_6429_MS]))
    assert times[:].tolist() == [0, YEAR_6429_MS, 0, YEAR_1_MS]
    times.shrink(2)
    assert times[:].tolist() == [0, YEAR_6429_MS]
    assert times.low.nbytes + times.high.nbytes == 12


table = st.lists(
    st.lists(st.sampled_from([float("nan"), 0.0, 1.0, 2.5]), min_size=4, max_size=4), min_size=1, max_size=6
)


@given(dense=table)
def test_what_is_divided_into_liked_and_seen_comes_together_again(dense: list[list[float]]) -> None:
    whole = histories(dense)
    liked, seen = divided(whole)
    assert (liked.user_items.data > 0).all()
    assert (seen.user_items.data == 0).all()
    assert same(merged(liked[:], seen[:]), whole)
    for rows in (slice(1, 3), slice(2, 2), slice(0, 99), np.array([len(dense) - 1, 0]), np.array([], np.int64)):
        assert same(merged(liked[rows], seen[rows]), whole[rows])


def test_some_of_many_are_taken_without_a_copy() -> None:
    liked, _ = divided(histories([[1, 2], [3, 4]]))
    assert np.shares_memory(liked[0:1].user_items.data, liked.user_items.data)
    assert isinstance(liked, PackedHistories)


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_parts_are_all_of_it(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [number for part in parts(5, at_once) for number in range(5)[part]] == [0, 1, 2, 3, 4]
    monkeypatch.setattr(packed, "AT_ONCE", at_once)
    assert [part.stop - part.start for part in parts(5)] == [part.stop - part.start for part in parts(5, at_once)]
    times = Times.of(np.array([3, 1, 4, 1, 5], np.int64))
    assert (times[:].tolist(), times.newest()) == ([3, 1, 4, 1, 5], 5)
