"""The lake's tables: names, columns, fences, and how they are made."""

from collections.abc import Mapping

import polars as pl
from deltalake import DeltaTable, Transaction
from deltalake.schema import Field, PrimitiveType, Schema

_MOMENT = pl.Datetime("us", "UTC")
EVENTS = "events"
ITEMS = "items"
DEAD_LETTERS = "dead_letters"
TABLES: Mapping[str, Mapping[str, pl.DataType]] = {
    EVENTS: {
        "event_id": pl.String(),
        "type": pl.String(),
        "user_id": pl.String(),
        "item_id": pl.String(),
        "recommendation_id": pl.String(),
        "occurred_at": _MOMENT,
        "accepted_at": _MOMENT,
        "receipt": pl.Int64(),
        "partition": pl.Int32(),
        "offset": pl.Int64(),
        "day": pl.Date(),
    },
    ITEMS: {
        "item_id": pl.String(),
        "attributes": pl.String(),
        "hidden": pl.Boolean(),
        "partition": pl.Int32(),
        "offset": pl.Int64(),
    },
    DEAD_LETTERS: {
        "partition": pl.Int32(),
        "offset": pl.Int64(),
        "reason": pl.String(),
        "key": pl.Binary(),
        "value": pl.Binary(),
        "at": _MOMENT,
    },
}
"""table → column → type. `day` is the UTC date of `accepted_at`; `attributes` is JSON."""

NO_HISTORY = {
    "delta.logRetentionDuration": "interval 0 seconds",
    "delta.deletedFileRetentionDuration": "interval 0 seconds",
}
"""Properties under which a table keeps nothing of its old versions once it is purged."""

TALLIES = ("events", "items", "marks", "steps", "dead_letters", "dropped", "gone")
"""What can become of a record of the log (`gone`: it was no longer there when it was due). Of each partition the table
`events` keeps how many, in the commits that move its fence: so every record below the fence is counted once."""

Tally = Mapping[str, int]
"""One of TALLIES → records."""

_PARTITIONS = "land-partitions"
_OPTIONAL = {"recommendation_id"}
_PARTITIONED_BY = {EVENTS: ["day"]}
_TYPES = {
    pl.String(): "string",
    pl.Binary(): "binary",
    pl.Boolean(): "boolean",
    pl.Int32(): "integer",
    pl.Int64(): "long",
    pl.Date(): "date",
    _MOMENT: "timestamp",
}


def create(address: str, table: str) -> DeltaTable:
    """Make the table, unless somebody has made it by now."""
    fields = [Field(name, PrimitiveType(_TYPES[t]), nullable=name in _OPTIONAL) for name, t in TABLES[table].items()]
    return DeltaTable.create(
        address, Schema(fields), mode="ignore", partition_by=_PARTITIONED_BY.get(table), configuration=NO_HISTORY
    )


def drift(delta: DeltaTable, table: str) -> tuple[str, ...]:
    """How the columns of a table differ from TABLES, one phrase each."""
    wanted = {name: _TYPES[kind] for name, kind in TABLES[table].items()}
    found = {field.name: getattr(field.type, "type", "nested") for field in delta.schema().fields}
    return (
        *(f"{table} has no column {name}" for name in wanted.keys() - found.keys()),
        *(f"{table} has a column {name} that nobody here writes" for name in found.keys() - wanted.keys()),
        *(
            f"{table}.{name} is of type {found[name]}, not {wanted[name]}"
            for name in wanted.keys() & found.keys()
            if wanted[name] != found[name]
        ),
    )


def fences(delta: DeltaTable) -> dict[int, int]:
    """partition → offset up to which the table holds the log; without the partitions never landed."""
    partitions = delta.transaction_version(_PARTITIONS) or 0
    found = ((partition, delta.transaction_version(f"land-{partition}")) for partition in range(partitions))
    return {partition: offset for partition, offset in found if offset is not None}


def fence_transactions(moved: Mapping[int, int], known: int) -> list[Transaction]:
    """What moves fences in a commit.

    Args:
        moved: partition → its new fence.
        known: how many partitions the table knows of.
    """
    ends = [Transaction(f"land-{partition}", end) for partition, end in moved.items()]
    needed = max(moved, default=-1) + 1
    return [*ends, Transaction(_PARTITIONS, needed)] if needed > known else ends


def tally(delta: DeltaTable, partition: int) -> dict[str, int]:
    """What became of the records of a partition, as far as it was counted."""
    return {name: delta.transaction_version(f"tally-{partition}-{name}") or 0 for name in TALLIES}


def tally_transactions(delta: DeltaTable, more: Mapping[int, Tally]) -> list[Transaction]:
    """What raises tallies in a commit, by partition."""
    return [
        Transaction(f"tally-{partition}-{name}", known + more[partition].get(name, 0))
        for partition in more
        for name, known in tally(delta, partition).items()
        if more[partition].get(name)
    ]
