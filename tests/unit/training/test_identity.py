"""Of a person's events with the same id the one at the lowest (partition, offset) stands, wherever the copies are."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training import packed
from training.columns import Column
from training.identity import FrameRows, identify

Rows = Callable[..., pl.DataFrame]


@dataclass(frozen=True)
class Batches:
    """A frame, some rows at a time."""

    frame: pl.DataFrame
    at_once: int

    def __len__(self) -> int:
        return self.frame.height

    def batches(self, columns: Sequence[pl.Expr]) -> Iterator[pl.DataFrame]:
        for start in range(0, self.frame.height, self.at_once):
            yield self.frame[start : start + self.at_once].select(columns)


@dataclass(frozen=True)
class Hashed:
    """Rows whose people's numbers and events' hashes are given, at rising offsets."""

    people: list[int]
    hashes: list[int]

    def __len__(self) -> int:
        return len(self.people)

    def batches(self, columns: Sequence[pl.Expr]) -> Iterator[pl.DataFrame]:
        if "event_id" in str(columns[-1]):
            yield pl.DataFrame([pl.Series(self.people, dtype=pl.UInt32), pl.Series(self.hashes, dtype=pl.UInt64)])
        else:
            numbers = pl.Series(range(len(self)), dtype=pl.UInt64)
            yield pl.DataFrame([numbers * 0, numbers.alias("offset")])


def frame(rows: Sequence[tuple[str, str, int, int]]) -> pl.DataFrame:
    columns = {Column.USER: pl.String, Column.EVENT: pl.String, Column.PARTITION: pl.Int32, Column.OFFSET: pl.Int64}
    return pl.DataFrame(rows, schema=columns, orient="row")


def test_the_copy_at_the_lowest_offset_stands_wherever_it_is_read() -> None:
    rows = frame([("u", "e", 0, 9), ("u", "other", 0, 1), ("u", "e", 0, 2), ("u", "e", 0, 5)])
    assert identify(FrameRows(rows)).repeated.tolist() == [0, 3]


def test_the_lower_partition_goes_first_when_a_person_was_moved_to_another_one() -> None:
    """The number of the log's partitions can grow, and events are sent again after it did."""
    rows = frame([("u", "e", 3, 1), ("u", "e", 1, 7)])
    assert identify(FrameRows(rows)).repeated.tolist() == [0]


def test_two_people_may_use_the_same_id() -> None:
    assert identify(FrameRows(frame([("u", "1", 0, 0), ("v", "1", 0, 1)]))).repeated.tolist() == []


def test_people_are_numbered_as_they_are_met() -> None:
    found = identify(Batches(frame([("b", "1", 0, 0), ("a", "2", 0, 1), ("b", "3", 0, 2)]), 1))
    assert found.people.to_list() == ["b", "a"]
    assert found.codes.tolist() == [0, 1, 0]


def test_rows_that_were_landed_twice_are_counted_and_stand_once() -> None:
    found = identify(FrameRows(frame([("u", "1", 0, 0), ("u", "2", 0, 1), ("u", "1", 0, 0)])))
    assert (found.repeated_positions, found.repeated.tolist()) == (1, [2])


def test_half_a_hash_alone_takes_no_two_events_for_one() -> None:
    """Either half: the one that is sorted by, and the one that is looked at afterwards."""
    one, two = 1 << 40, 1 << 41
    hashes = [one + 5, one + 6, two + 5, two + 7, one + 5]
    assert identify(Hashed([0, 0, 0, 0, 0], hashes)).repeated.tolist() == [4]


def test_the_hash_of_another_persons_event_takes_no_two_for_one() -> None:
    """Even where what is sorted by is the same, since the person is part of it."""
    mixed = [0, int((np.uint64(1) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) << 32]
    assert identify(Hashed([0, 1], mixed)).repeated.tolist() == []


rows = st.lists(
    st.tuples(st.sampled_from("uvw"), st.sampled_from("abcdef"), st.integers(0, 2), st.integers(0, 6)), max_size=30
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows, at_once=st.integers(1, 9))
def test_the_rows_that_stand_are_those_that_one_by_one_would_find(
    rows: list[tuple[str, str, int, int]], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "AT_ONCE", at_once)
    first: dict[tuple[str, str], int] = {}
    for number in sorted(range(len(rows)), key=lambda number: (rows[number][2:], number)):
        first.setdefault(rows[number][:2], number)
    found = identify(Batches(frame(rows), at_once))
    assert sorted(set(range(len(rows))) - set(found.repeated.tolist())) == sorted(first.values())
    assert found.repeated_positions == len(rows) - len({row[2:] for row in rows})
    assert [found.people[code] for code in found.codes.tolist()] == [row[0] for row in rows]
