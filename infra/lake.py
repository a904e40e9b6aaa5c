"""The lake: Delta tables of what was collected, written exactly once and able to forget.

Each append carries its fences in the same commit: the application transaction `land-<partition>` says up to which
offset of the log a table holds. An append that begins below a fence, or that meets another writer's commit of the same
partition, is refused: so a crash, a second lander or one that was thought dead can neither lose nor repeat a record.
One to `events` that begins above a fence is refused too: a lake that was put back to an older state lacks what lies
between.

To forget is two steps. `forget` takes rows out of the tables; `purge` then takes the bytes out of the files, Delta's
own log included (its statistics and predicates name people). That ends time travel: nothing may rest on old versions.

A killed process loses nothing; a power cut may take the last seconds, since nothing is synced to the disk.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeVar

import polars as pl
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from infra.lake_files import UnsafeStore, files_at
from infra.lake_reading import LakeSnapshot, LakeTable
from infra.lake_tables import (
    DEAD_LETTERS,
    EVENTS,
    ITEMS,
    NO_HISTORY,
    TABLES,
    Tally,
    create,
    drift,
    fence_transactions,
    fences,
    tally,
    tally_transactions,
)

__all__ = [
    "DEAD_LETTERS",
    "EVENTS",
    "ITEMS",
    "TABLES",
    "Lake",
    "LakeConflict",
    "LakeEmpty",
    "LakeError",
    "LakeSnapshot",
    "LakeTable",
    "LakeUnavailable",
    "Span",
    "Tally",
]

ATTEMPTS = 5
PEOPLE_A_DELETE = 50
"""A longer condition costs more than a second delete: planning it grows with the square of its length."""

LOG = "_delta_log"
_LOG_FILE = re.compile(r"_last_checkpoint|\d{20}\.(json|checkpoint(\..+)?\.parquet)")

T = TypeVar("T")


class LakeError(Exception):
    """Root of what the lake raises."""


class LakeConflict(LakeError):
    """Another writer moved on. Nothing was written: ask `landed` and continue from there."""


class LakeEmpty(LakeError):
    """The table does not exist yet, because nothing was ever landed in it."""


class LakeUnavailable(LakeError):
    """The lake cannot be read or written now. Whether a write happened is unknown: ask `landed`, then try again."""


class Span(NamedTuple):
    """A run of one partition's records: from `start` up to, not including, `end`."""

    start: int
    end: int


class Lake:
    """The Delta tables below one folder, or one prefix of a bucket.

    Args:
        uri: the folder, which is made when the first rows come; or s3://bucket/prefix.

    Raises:
        LakeError: the address is neither.
    """

    def __init__(self, uri: str) -> None:
        try:
            self._files = files_at(uri)
        except ValueError as error:
            raise LakeError(str(error)) from None
        self._safe = False

    def check(self) -> None:
        """See that commits are safe where the lake is, once; every write sees to it before.

        Raises:
            LakeError: they are not; see `lake_files.UnsafeStore`.
            LakeUnavailable: see there.
        """
        if not self._safe:
            with _translated():
                try:
                    self._files.check()
                except UnsafeStore as error:
                    raise LakeError(str(error)) from None
            self._safe = True

    def append(
        self, table: str, rows: pl.DataFrame, spans: Mapping[int, Span], tallies: Mapping[int, Tally] | None = None
    ) -> None:
        """Append rows and move the fences of their partitions, in one commit. No rows: only the fences move.

        Args:
            table: one of TABLES.
            rows: its columns.
            spans: partition → the records of the log that these rows stand for.
            tallies: partition → what became of these records, to be added to what became of those before.

        Raises:
            LakeConflict: a fence is above where its span starts (of `events`: or below), or another writer was faster.
            LakeUnavailable: see there.
        """
        self.check()
        with _translated():
            delta = self._open_or_create(table)
            known = fences(delta)
            late = [p for p, span in spans.items() if known.get(p, 0) > span.start]
            if late:
                raise LakeConflict(f"{table}: another lander has landed partitions {late}: continue from `landed`.")
            early = [p for p, span in spans.items() if table == EVENTS and known.get(p, 0) < span.start]
            if early:
                raise LakeConflict(f"{table}: the lake has less of partitions {early} than was landed: see `landed`.")
            moved = {p: span.end for p, span in spans.items() if span.end > known.get(p, -1)}
            fence = fence_transactions(moved, known=len(known) and max(known) + 1)
            commit = CommitProperties(app_transactions=[*fence, *tally_transactions(delta, tallies or {})])
            write_deltalake(delta, rows.select(TABLES[table].keys()), mode="append", commit_properties=commit)
        self._check_fences(table, moved)

    def landed(self, table: str) -> dict[int, int]:
        """partition → offset of the next record to land in the table; without the partitions never landed.

        Raises:
            LakeUnavailable: see there.
        """
        with _translated():
            try:
                return fences(self._open(table))
            except LakeEmpty:
                return {}

    def count(self, table: str) -> int:
        """Rows of a table, by what its log says of each file: none of them is read.

        Raises:
            LakeUnavailable: see there.
        """
        with _translated():
            try:
                return self._open(table).count()
            except LakeEmpty:
                return 0

    def tallies(self) -> dict[int, dict[str, int]]:
        """partition → what became of its records: see `TALLIES`.

        Raises:
            LakeUnavailable: see there.
        """
        with _translated():
            try:
                delta = self._open(EVENTS)
            except LakeEmpty:
                return {}
            return {partition: tally(delta, partition) for partition in fences(delta)}

    def forget(self, table: str, people: Mapping[str, int]) -> int:
        """Delete the rows of these people that were accepted under older receipts. The bytes stay until `purge`.

        Args:
            table: one with the columns user_id and receipt.
            people: user_id → receipt; rows below it go.

        Returns:
            Rows deleted.

        Raises:
            LakeConflict: other writers were faster, time and again.
            LakeUnavailable: see there.
        """
        return self._delete(table, [f"user_id = {_text(u)} AND receipt < {int(r)}" for u, r in sorted(people.items())])

    def forget_dead_letters(self, before: Mapping[bytes, tuple[int, int]]) -> int:
        """Delete the dead letters that were sent under these keys.

        Args:
            before: key → (partition, offset); those of the partition below the offset go.

        Returns:
            Rows deleted.

        Raises: as `forget`.
        """
        return self._delete(
            DEAD_LETTERS,
            [f"key = X'{k.hex()}' AND partition = {int(p)} AND offset < {int(o)}" for k, (p, o) in before.items()],
        )

    def remove_dead_letter(self, partition: int, offset: int) -> int:
        """Delete the dead letter of one record of the log; returns rows deleted. Raises as `forget`."""
        return self._delete(DEAD_LETTERS, [f"partition = {int(partition)} AND offset = {int(offset)}"])

    def purge(self) -> None:
        """Take the bytes of deleted rows out of every file below the lake. Readers of old versions lose them.

        Raises:
            LakeConflict: other writers were faster, time and again.
            LakeUnavailable: see there.
        """
        for table in TABLES:
            self._retried(table, partial(self._purge, table))

    def compact(self) -> None:
        """Write small files together, per table and day.

        Raises: as `purge`.
        """
        for table in TABLES:
            self._retried(table, lambda delta: delta.optimize.compact())

    def read(self, table: str, read: Callable[[LakeTable], T]) -> T:
        """What `read` makes of a table at its newest version.

        Args:
            table: one of TABLES.
            read: called again, with a newer version, where files vanish while it reads.

        Raises:
            LakeEmpty: see there.
            LakeUnavailable: see there.
        """
        return self._read(table, lambda delta: read(LakeTable.of(delta, fences(delta))))

    def snapshot(self, table: str, columns: Sequence[str] | None = None) -> LakeSnapshot:
        """Rows of a table at its newest version.

        Args:
            table: one of TABLES.
            columns: the ones to read; None: all.

        Raises: as `read`.
        """

        def rows(delta: DeltaTable) -> LakeSnapshot:
            found = pl.read_delta(delta, columns=list(columns) if columns else None)
            return LakeSnapshot(delta.version(), fences(delta), found)

        return self._read(table, rows)

    def events_of(self, user_id: str) -> pl.DataFrame:
        """A person's rows of `events`, without `day`, in the order in which they were logged. Raises as `read`."""
        return self._rows_where(EVENTS, pl.col("user_id") == user_id)

    def dead_letters_of(self, key: bytes) -> pl.DataFrame:
        """The dead letters that were sent under this key, in the same order. Raises as `read`."""
        return self._rows_where(DEAD_LETTERS, pl.col("key") == key)

    def _rows_where(self, table: str, wanted: pl.Expr) -> pl.DataFrame:
        columns = [name for name in TABLES[table] if name != "day"]

        def rows(delta: DeltaTable) -> pl.DataFrame:
            files = delta.file_uris()
            if not files:
                return pl.DataFrame(schema={name: TABLES[table][name] for name in columns})
            scan = pl.scan_parquet(files, glob=False, hive_partitioning=False).select(columns)
            return scan.filter(wanted).collect(engine="streaming").sort("partition", "offset")

        return self._read(table, rows)

    def drift(self) -> list[str]:
        """How the columns of the tables differ from TABLES, one phrase each.

        Raises:
            LakeUnavailable: see there.
        """
        with _translated():
            there = [table for table in TABLES if DeltaTable.is_deltatable(self._files.address(table))]
            return [phrase for table in there for phrase in sorted(drift(self._open(table), table))]

    def _read(self, table: str, read: Callable[[DeltaTable], T]) -> T:
        for left in reversed(range(ATTEMPTS)):
            with _translated():
                try:
                    return read(self._open(table))
                except (OSError, pl.exceptions.PolarsError, DeltaError):
                    # A purge may have removed what this version points to: the newest one has the same rows.
                    if not left:
                        raise
        raise AssertionError("unreachable")

    def _open(self, table: str) -> DeltaTable:
        try:
            return DeltaTable(self._files.address(table))
        except TableNotFoundError:
            raise LakeEmpty(f"The lake has no table {table} yet: nothing was landed in it.") from None

    def _open_or_create(self, table: str) -> DeltaTable:
        try:
            return self._open(table)
        except LakeEmpty:
            return create(self._files.address(table), table)

    def _check_fences(self, table: str, moved: Mapping[int, int]) -> None:
        """Another lander's purge can remove the place in Delta's log that our commit took, and the commit with it."""
        landed = self.landed(table)
        if any(landed.get(partition, 0) < end for partition, end in moved.items()):
            raise LakeConflict(f"{table}: the commit was lost to another writer: continue from `landed`.")

    def _delete(self, table: str, conditions: Sequence[str]) -> int:
        chunks = (conditions[i : i + PEOPLE_A_DELETE] for i in range(0, len(conditions), PEOPLE_A_DELETE))
        return sum(self._delete_where(table, " OR ".join(f"({one})" for one in chunk)) for chunk in chunks)

    def _delete_where(self, table: str, predicate: str) -> int:
        try:
            metrics = self._retried(table, lambda delta: delta.delete(predicate)) or {}
        except LakeUnavailable as error:
            # Without the library's own words: they may quote the condition, and so name people.
            raise LakeUnavailable(f"{table}: rows cannot be deleted: {type(error.__cause__).__name__}") from None
        return int(metrics.get("num_deleted_rows", 0))

    def _retried(self, table: str, change: Callable[[DeltaTable], T]) -> T | None:
        """Make a change on the newest version, again where another commit came between. No table: nothing to change."""
        self.check()
        for left in reversed(range(ATTEMPTS)):
            try:
                with _translated():
                    return change(self._open(table))
            except LakeEmpty:
                return None
            except LakeConflict:
                if not left:
                    raise
        raise AssertionError("unreachable")

    def _purge(self, table: str, delta: DeltaTable) -> None:
        # A change of metadata refuses every append that began before it. So a file older than this commit that the
        # table does not point to afterwards can never become part of it, and may go; a younger one may be an append on
        # its way.
        self._files.wait()
        delta.alter.set_table_properties(NO_HISTORY)
        barrier = self._files.made(table, f"{LOG}/{delta.version():020}.json")
        delta = DeltaTable(delta.table_uri)
        delta.create_checkpoint()
        delta.cleanup_metadata()
        live = set(_names(delta))
        for file in list(self._files.of(table)):
            of_the_log = file.name.startswith(f"{LOG}/") and _LOG_FILE.fullmatch(file.name.removeprefix(f"{LOG}/"))
            if file.name not in live and not of_the_log and file.made < barrier:
                self._files.remove(table, file.name)


def _names(delta: DeltaTable) -> Iterator[str]:
    """The table's files, by their names below its root."""
    root = delta.table_uri.removeprefix("file://").rstrip("/") + "/"
    return (uri.removeprefix("file://").removeprefix(root) for uri in delta.file_uris())


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except CommitFailedError as error:
        raise LakeConflict(f"another writer was faster: {error}") from error
    except (DeltaError, OSError, pl.exceptions.PolarsError) as error:
        raise LakeUnavailable(f"the lake does not answer: {type(error).__name__}: {error}") from error
