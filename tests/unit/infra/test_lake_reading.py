"""A table is read whole, in the same order each time, however it lies in files and whoever tidies them up meanwhile."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import lake_reading
from infra.lake import EVENTS, TABLES, Lake, LakeEmpty, LakeTable, LakeUnavailable, Span
from infra.lake_reading import Piece, pieces_of

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def events(offsets: Sequence[int]) -> pl.DataFrame:
    rows = [
        {
            "event_id": f"e{offset}",
            "type": "play",
            "user_id": f"u{offset % 3}",
            "item_id": "m1",
            "recommendation_id": None,
            "occurred_at": AT,
            "accepted_at": AT + timedelta(days=offset % 2),
            "receipt": 1,
            "partition": 0,
            "offset": offset,
            "day": (AT + timedelta(days=offset % 2)).date(),
        }
        for offset in offsets
    ]
    return pl.DataFrame(rows, schema=dict(TABLES[EVENTS]))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Thirty rows in four commits of two days each."""
    filled = Lake(str(tmp_path))
    for start, end in ((0, 2), (2, 4), (4, 28), (28, 30)):
        filled.append(EVENTS, events(range(start, end)), {0: Span(start, end)})
    return filled


def offsets(table: LakeTable) -> list[int]:
    return [offset for batch in table.batches([pl.col("offset")]) for offset in batch["offset"]]


@pytest.mark.parametrize("rows_at_once", [1, 5, 7, 1000])
def test_all_rows_are_read_once_in_the_same_order_each_time(
    lake: Lake, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake_reading, "FEWEST_ROWS_AT_ONCE", rows_at_once)

    def read(table: LakeTable) -> tuple[list[int], list[int], list[int]]:
        heights = [batch.height for batch in table.batches([pl.col("user_id")])]
        return offsets(table), offsets(table), heights

    once, again, heights = lake.read(EVENTS, read)
    assert sorted(once) == list(range(30))
    assert once == again
    assert sum(heights) == 30
    assert max(heights) <= rows_at_once


def test_columns_may_be_made_of_what_is_there(lake: Lake) -> None:
    def read(table: LakeTable) -> int:
        return sum(batch["twice"].sum() for batch in table.batches([(pl.col("offset") * 2).alias("twice")]))

    assert lake.read(EVENTS, read) == 30 * 29


def test_a_table_knows_its_size_its_version_and_how_far_the_log_is_in_it(lake: Lake) -> None:
    size, version, watermark = lake.read(EVENTS, lambda table: (len(table), table.version, table.watermark))
    assert (size, version, watermark) == (30, lake.snapshot(EVENTS).version, {0: 30})


@given(sizes=st.lists(st.integers(0, 20), max_size=12), rows_at_once=st.integers(1, 12))
def test_small_files_are_read_together_and_large_ones_in_parts(sizes: list[int], rows_at_once: int) -> None:
    files = [(f"f{number}", size) for number, size in enumerate(sizes)]
    pieces = list(pieces_of(files, rows_at_once))
    assert all(0 < piece.rows <= rows_at_once for piece in pieces)
    assert [row for piece in pieces for row in rows_of(piece, dict(files))] == [
        (file, row) for file, size in files for row in range(size)
    ]


def test_pieces_are_as_large_as_they_may_be() -> None:
    sizes = [("a", 2), ("b", 2), ("c", 3), ("d", 9), ("e", 1), ("f", 3)]
    assert list(pieces_of(sizes, 4)) == [
        Piece(("a", "b"), 0, 4),
        Piece(("c",), 0, 3),
        *(Piece(("d",), start, rows) for start, rows in ((0, 4), (4, 4), (8, 1))),
        Piece(("e", "f"), 0, 4),
    ]


def rows_of(piece: Piece, sizes: dict[str, int]) -> list[tuple[str, int]]:
    if len(piece.files) == 1:
        return [(piece.files[0], piece.start + row) for row in range(piece.rows)]
    return [(file, row) for file in piece.files for row in range(sizes[file])]


def test_a_table_whose_files_vanish_while_it_is_read_is_read_again(lake: Lake) -> None:
    """Half of it from one version and half from the next would be neither."""
    versions: list[int] = []

    def read(table: LakeTable) -> list[int]:
        versions.append(table.version)
        found = offsets(table)
        if len(versions) == 1:
            lake.forget(EVENTS, {"u1": 9})
            lake.compact()
            lake.purge()
        return found + offsets(table)

    found = lake.read(EVENTS, read)
    assert len(versions) == 2
    assert versions[0] < versions[1]
    assert sorted(found) == sorted(2 * [offset for offset in range(30) if offset % 3 != 1])


def test_a_table_that_can_never_be_read_says_so(lake: Lake) -> None:
    tries: list[int] = []

    def read(table: LakeTable) -> None:
        tries.append(table.version)
        raise OSError("by the test")

    with pytest.raises(LakeUnavailable):
        lake.read(EVENTS, read)
    assert len(tries) > 1


def test_what_is_not_the_lakes_fault_is_not_tried_again(lake: Lake) -> None:
    tries: list[int] = []

    def read(table: LakeTable) -> None:
        tries.append(table.version)
        raise KeyError("by the test")

    with pytest.raises(KeyError):
        lake.read(EVENTS, read)
    assert len(tries) == 1


def test_a_table_without_rows_has_no_batches_and_one_that_is_not_there_is_empty(lake: Lake, tmp_path: Path) -> None:
    lake.forget(EVENTS, {f"u{number}": 9 for number in range(3)})
    assert lake.read(EVENTS, lambda table: (len(table), offsets(table))) == (0, [])
    with pytest.raises(LakeEmpty):
        Lake(str(tmp_path / "other")).read(EVENTS, len)
