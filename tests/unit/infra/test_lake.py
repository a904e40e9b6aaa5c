"""The lake lands each record once, whoever else writes, and what it forgot is in no file of it."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import obstore
import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from obstore.store import S3Store

from infra.lake import (
    DEAD_LETTERS,
    EVENTS,
    ITEMS,
    TABLES,
    Lake,
    LakeConflict,
    LakeEmpty,
    LakeError,
    LakeUnavailable,
    Span,
)
from infra.lake_files import BucketFiles

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def events(offsets: Sequence[int], user: str = "u1", partition: int = 0, receipt: int = 1) -> pl.DataFrame:
    rows = [
        {
            "event_id": f"{partition}-{offset}",
            "type": "play",
            "user_id": user,
            "item_id": "m1",
            "recommendation_id": None,
            "occurred_at": AT,
            "accepted_at": AT,
            "receipt": receipt,
            "partition": partition,
            "offset": offset,
            "day": AT.date(),
        }
        for offset in offsets
    ]
    return pl.DataFrame(rows, schema=dict(TABLES[EVENTS]))


def dead_letter(key: bytes, offset: int, partition: int = 0) -> pl.DataFrame:
    row = {"partition": partition, "offset": offset, "reason": "why", "key": key, "value": b"what", "at": AT}
    return pl.DataFrame([row], schema=dict(TABLES[DEAD_LETTERS]))


class Folder:
    """A place for a lake, seen from outside."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self._path = path

    def names(self) -> list[str]:
        """Of all files."""
        return [path.relative_to(self._path).as_posix() for path in self._path.rglob("*") if path.is_file()]

    def read(self, name: str) -> bytes:
        return (self._path / name).read_bytes()

    def put(self, name: str, content: bytes, at: float) -> None:
        """Write a file that is as old as this moment."""
        (self._path / name).write_bytes(content)
        os.utime(self._path / name, (at, at))

    def remove(self, name: str) -> None:
        (self._path / name).unlink()

    def with_bytes(self, needle: bytes) -> list[str]:
        """Files that hold these bytes, or are called so."""
        return [name for name in self.names() if needle in self.read(name) or needle.decode() in name]


class Bucket(Folder):
    """The same in a bucket, where nobody says how old a file is."""

    def __init__(self, url: str) -> None:
        self.address = f"{url}/some/lake"
        self._store = S3Store(url.removeprefix("s3://"), prefix="some/lake")

    def names(self) -> list[str]:
        return [str(found["path"]) for found in obstore.list(self._store).collect()]

    def read(self, name: str) -> bytes:
        return bytes(obstore.get(self._store, name).bytes())

    def put(self, name: str, content: bytes, at: float) -> None:
        obstore.put(self._store, name, content)

    def remove(self, name: str) -> None:
        obstore.delete(self._store, name)


def careless(files: Any) -> Any:
    """As a store without conditional writes: what is created is written, whatever was there."""

    class Careless(BucketFiles):
        def _create(self, key: str, value: bytes) -> None:
            obstore.put(self._store, key, value)

    return Careless(files.address("").rstrip("/"))


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder(tmp_path) if request.param == "folder" else Bucket(str(request.getfixturevalue("bucket")))


@pytest.fixture
def lake(place: Folder) -> Lake:
    return Lake(place.address)


def test_rows_come_back_as_they_were_appended(lake: Lake) -> None:
    rows = events([0, 1])
    lake.append(EVENTS, rows, {0: Span(0, 2)})
    snapshot = lake.snapshot(EVENTS)
    assert snapshot.rows.select(rows.columns).sort("offset").equals(rows)
    assert snapshot.watermark == {0: 2}
    assert snapshot.version == 1


def test_a_snapshot_reads_the_columns_asked_for(lake: Lake) -> None:
    lake.append(EVENTS, events([0]), {0: Span(0, 1)})
    assert lake.snapshot(EVENTS, ["item_id", "day"]).rows.to_dicts() == [{"item_id": "m1", "day": AT.date()}]


def test_rows_are_counted_without_those_that_were_forgotten(lake: Lake) -> None:
    rows = events(list(range(6)))
    lake.append(EVENTS, rows[:4], {0: Span(0, 4)})
    lake.append(EVENTS, rows[4:], {0: Span(4, 6)})
    assert lake.count(EVENTS) == 6
    gone = lake.forget(EVENTS, {rows["user_id"][0]: 99})
    assert lake.count(EVENTS) == 6 - gone < 6
    lake.compact()
    assert lake.count(EVENTS) == 6 - gone


@pytest.mark.parametrize("table", [EVENTS, ITEMS, DEAD_LETTERS])
def test_a_table_nothing_was_landed_in_is_empty_and_has_no_fences(lake: Lake, table: str) -> None:
    with pytest.raises(LakeEmpty, match=table):
        lake.snapshot(table)
    assert lake.landed(table) == {}
    assert lake.count(table) == 0
    assert lake.forget(EVENTS, {"u1": 9}) == 0
    lake.purge()
    lake.compact()


def test_an_append_of_no_rows_moves_the_fences(lake: Lake) -> None:
    lake.append(EVENTS, events([]), {0: Span(0, 10), 3: Span(0, 4)})
    assert lake.landed(EVENTS) == {0: 10, 3: 4}
    lake.append(EVENTS, events([]), {5: Span(0, 8)})
    assert lake.landed(EVENTS) == {0: 10, 3: 4, 5: 8}


def test_events_that_begin_above_the_fence_are_refused_whole(lake: Lake) -> None:
    """A lake that was put back to an older state: what lies between would be missing without a word."""
    lake.append(EVENTS, events([0, 1]), {0: Span(0, 2)})
    with pytest.raises(LakeConflict):
        lake.append(EVENTS, events([3]), {0: Span(3, 4)})
    assert lake.landed(EVENTS) == {0: 2}


def test_dead_letters_may_begin_above_their_fence(lake: Lake) -> None:
    """That table's fence moves only with its rows."""
    lake.append(DEAD_LETTERS, dead_letter(b"u1", 3), {0: Span(3, 4)})
    assert lake.landed(DEAD_LETTERS) == {0: 4}


def test_an_append_that_begins_below_a_fence_is_refused_whole(lake: Lake) -> None:
    lake.append(EVENTS, events([0, 1]), {0: Span(0, 2)})
    with pytest.raises(LakeConflict):
        lake.append(EVENTS, events([1, 2]), {0: Span(1, 3), 1: Span(0, 1)})
    assert lake.landed(EVENTS) == {0: 2}
    assert lake.snapshot(EVENTS).rows["offset"].to_list() == [0, 1]


def test_an_append_that_meets_a_commit_of_the_same_partition_is_refused(lake: Lake, place: Folder) -> None:
    """The other writer commits after our fences were read and before our own commit."""

    class Slow(Lake):
        def _open_or_create(self, table: str) -> DeltaTable:
            before = super()._open_or_create(table)
            lake.append(EVENTS, events([0, 1]), {0: Span(0, 2)})
            return before

    with pytest.raises(LakeConflict):
        Slow(place.address).append(EVENTS, events([0, 1]), {0: Span(0, 2)})
    assert lake.snapshot(EVENTS).rows.height == 2


def test_writers_of_different_partitions_do_not_disturb_each_other(lake: Lake, place: Folder) -> None:
    other = Lake(place.address)
    for offset in range(3):
        lake.append(EVENTS, events([offset]), {0: Span(offset, offset + 1)})
        other.append(EVENTS, events([offset], partition=1), {1: Span(offset, offset + 1)})
    assert lake.landed(EVENTS) == {0: 3, 1: 3}
    assert lake.snapshot(EVENTS).rows.height == 6


def test_a_commit_that_another_lander_s_purge_swept_away_is_noticed(lake: Lake, place: Folder) -> None:
    """The purge removes Delta's log entries above our version: our commit takes a free number and is never read."""

    class Overtaken(Lake):
        def _check_fences(self, table: str, moved: dict[int, int]) -> None:  # type: ignore[override]
            place.remove(f"{table}/_delta_log/{2:020}.json")
            super()._check_fences(table, moved)

    lake.append(EVENTS, events([0]), {0: Span(0, 1)})
    with pytest.raises(LakeConflict, match="lost"):
        Overtaken(place.address).append(EVENTS, events([1]), {0: Span(1, 2)})


def test_forget_deletes_what_was_accepted_under_older_receipts_only(lake: Lake) -> None:
    rows = pl.concat([events([0], receipt=3), events([1], receipt=5), events([2], user="u2", receipt=3)])
    lake.append(EVENTS, rows, {0: Span(0, 3)})
    assert lake.forget(EVENTS, {"u1": 5, "nobody": 9}) == 1
    assert sorted(lake.snapshot(EVENTS).rows["offset"]) == [1, 2]
    assert lake.forget(EVENTS, {"u1": 5}) == 0


def test_forget_takes_ids_as_they_are(lake: Lake) -> None:
    """Quotes, backslashes and wildcards in an id neither break the condition nor widen it."""
    ids = ["it's", "a\\b", "a\\' or 1=1 --", "%", "_", "ünï", '"q"', "x;y", "{}", "$1", "''"]
    lake.append(EVENTS, pl.concat([events([n], user) for n, user in enumerate(ids)]), {0: Span(0, len(ids))})
    for gone in range(1, len(ids) + 1):
        assert lake.forget(EVENTS, {ids[gone - 1]: 2}) == 1
    assert lake.snapshot(EVENTS).rows.is_empty()


def test_forget_takes_many_people_at_once(lake: Lake) -> None:
    people = [f"u{n}" for n in range(120)]
    lake.append(EVENTS, pl.concat([events([n], user) for n, user in enumerate(people)]), {0: Span(0, 120)})
    assert lake.forget(EVENTS, dict.fromkeys(people[:119], 2)) == 119
    assert lake.snapshot(EVENTS).rows["user_id"].to_list() == ["u119"]


def test_dead_letters_are_forgotten_by_key_up_to_the_mark(lake: Lake) -> None:
    letters = pl.concat([dead_letter(b"u'\xff", 0), dead_letter(b"u2", 1), dead_letter(b"u'\xff", 5)])
    lake.append(DEAD_LETTERS, letters, {0: Span(0, 6)})
    assert lake.forget_dead_letters({b"u'\xff": (0, 5)}) == 1
    assert sorted(lake.snapshot(DEAD_LETTERS).rows["offset"]) == [1, 5]


def test_after_a_purge_the_forgotten_are_in_no_file(lake: Lake, place: Folder) -> None:
    """Checkpoints, the delete's own commit and compacted copies included; the others' rows stay."""
    commits = (
        24 if place.address.startswith("s3://") else 120
    )  # Beyond a checkpoint, which is every tenth or hundredth.
    for n in range(commits):
        lake.append(EVENTS, events([n], user="canary" if n % 2 else "bystander"), {0: Span(n, n + 1)})
    lake.append(DEAD_LETTERS, dead_letter(b"canary", 1), {0: Span(0, 2)})
    lake.compact()
    lake.forget(EVENTS, {"canary": 2})
    lake.forget_dead_letters({b"canary": (0, commits)})
    assert place.with_bytes(b"canary")
    lake.purge()
    assert place.with_bytes(b"canary") == []
    assert lake.snapshot(EVENTS).rows["user_id"].to_list() == ["bystander"] * (commits // 2)


def test_fences_survive_a_purge_and_hold_after_it(lake: Lake) -> None:
    lake.append(EVENTS, events([0, 1]), {0: Span(0, 2), 2: Span(0, 7)})
    lake.forget(EVENTS, {"u1": 2})
    lake.purge()
    lake.purge()
    assert lake.landed(EVENTS) == {0: 2, 2: 7}
    with pytest.raises(LakeConflict):
        lake.append(EVENTS, events([0]), {0: Span(0, 1)})
    lake.append(EVENTS, events([2]), {0: Span(2, 3)})
    assert lake.snapshot(EVENTS).rows["offset"].to_list() == [2]


def test_a_purge_removes_what_a_killed_writer_left_behind(lake: Lake, place: Folder) -> None:
    lake.append(EVENTS, events([0]), {0: Span(0, 1)})
    for orphan in ("events/day=2026-03-01/part-x.parquet", "events/_delta_log/x.json.tmp"):
        place.put(orphan, b"canary", AT.timestamp())
    lake.purge()
    assert place.with_bytes(b"canary") == []


def test_a_purge_leaves_the_file_of_an_append_on_its_way(lake: Lake, place: Folder) -> None:
    """Its rows were written after the purge began and are committed when it is over: none may be missing."""
    lake.append(EVENTS, events([0]), {0: Span(0, 1)})
    made = lake._files.made

    def and_then_a_file_is_written(table: str, name: str) -> float:
        barrier = made(table, name)
        place.put("events/on-its-way.parquet", b"", 2**33)
        return barrier

    lake._files.made = and_then_a_file_is_written  # type: ignore[method-assign]
    lake.purge()
    assert "events/on-its-way.parquet" in place.names()


def test_an_append_that_began_before_a_purge_is_refused(lake: Lake, place: Folder) -> None:
    """Its file may be gone: the commit has to fail, and the rows to be landed again."""

    class Slow(Lake):
        def _open_or_create(self, table: str) -> DeltaTable:
            before = super()._open_or_create(table)
            lake.purge()
            return before

    lake.append(EVENTS, events([0]), {0: Span(0, 1)})
    with pytest.raises((LakeConflict, LakeUnavailable)):
        Slow(place.address).append(EVENTS, events([1]), {0: Span(1, 2)})
    assert lake.landed(EVENTS) == {0: 1}


def test_a_snapshot_is_read_again_when_a_purge_takes_its_files(lake: Lake, place: Folder) -> None:
    for n in range(3):
        lake.append(EVENTS, events([n]), {0: Span(n, n + 1)})

    class Raced(Lake):
        raced = False

        def _open(self, table: str) -> DeltaTable:
            delta = super()._open(table)
            if not self.raced:
                self.raced = True
                lake.compact()
                lake.purge()
            return delta

    assert Raced(place.address).snapshot(EVENTS).rows.height == 3


def test_compaction_keeps_rows_and_fences(lake: Lake, place: Folder) -> None:
    for n in range(5):
        lake.append(EVENTS, events([n]), {0: Span(n, n + 1)})
    lake.compact()
    assert len(DeltaTable(f"{place.address}/{EVENTS}").file_uris()) == 1
    assert sorted(lake.snapshot(EVENTS).rows["offset"]) == [0, 1, 2, 3, 4]
    assert lake.landed(EVENTS) == {0: 5}


def test_a_lake_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("a file where the folder should be")
    with pytest.raises(LakeUnavailable):
        Lake(str(tmp_path / "lake")).append(EVENTS, events([0]), {0: Span(0, 1)})


def test_a_delete_that_fails_names_nobody(lake: Lake, place: Folder) -> None:
    lake.append(EVENTS, events([0], user="canary"), {0: Span(0, 1)})
    for name in place.names():
        if name.endswith(".parquet"):
            place.remove(name)
    with pytest.raises(LakeUnavailable) as raised:
        lake.forget(EVENTS, {"canary": 2})
    assert "canary" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_an_address_that_is_neither_folder_nor_bucket_is_refused() -> None:
    with pytest.raises(LakeError, match="neither"):
        Lake("gs://bucket/lake")


def test_a_bucket_that_takes_a_second_commit_of_the_same_name_is_refused(bucket: str) -> None:
    lake = Lake(bucket)
    lake._files = careless(lake._files)
    with pytest.raises(LakeError, match="conditional writes"):
        lake.check()
    with pytest.raises(LakeError, match="conditional writes"):
        lake.append(EVENTS, events([0]), {0: Span(0, 1)})


def test_a_bucket_that_does_not_answer_is_unavailable(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
    with pytest.raises(LakeUnavailable):
        Lake(f"{bucket}-that-is-not-there").check()


def test_columns_that_somebody_else_changed_are_told(lake: Lake, place: Folder) -> None:
    assert lake.drift() == []
    lake.append(EVENTS, events([0]), {0: Span(0, 1)})
    assert lake.drift() == []
    more = events([1]).with_columns(pl.lit("nl").alias("country"))
    write_deltalake(f"{place.address}/{EVENTS}", more, mode="append", schema_mode="merge")
    assert lake.drift() == ["events has a column country that nobody here writes"]
    other = events([1]).drop("receipt").with_columns(pl.col("partition").cast(pl.String))
    write_deltalake(f"{place.address}/{EVENTS}", other, mode="overwrite", schema_mode="overwrite")
    assert lake.drift() == ["events has no column receipt", "events.partition is of type string, not integer"]
