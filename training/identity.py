"""Whose the rows of the lake are, and which of them repeat an event.

Clients send again when they hear no answer, so an event may stand in the log more than once. Of a person's events with
the same id the one at the lowest (partition, offset) stands, wherever the copies are and whatever they say.

Ids are not kept, their hashes are: rows of the same person with the same 64 bits are the same event. Among ten thousand
events of one person, two different ids would be taken for one in one of 10^11 readings.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from training.columns import Column
from training.ids import IdCodes
from training.packed import parts

ODD = np.uint64(0x9E3779B97F4A7C15)
HALF = np.uint64(32)
LOW = np.uint64(0xFFFFFFFF)
OFFSET_BITS = np.uint64(44)

Numbers = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint32]
Keys = npt.NDArray[np.uint64]


class Rows(Protocol):
    """A table that can be read more than once, in the same order each time."""

    def __len__(self) -> int: ...

    def batches(self, columns: Sequence[pl.Expr]) -> Iterator[pl.DataFrame]:
        """These columns of all rows, some rows at a time."""
        ...


@dataclass(frozen=True)
class FrameRows:
    """A frame as such a table."""

    frame: pl.DataFrame

    def __len__(self) -> int:
        return self.frame.height

    def batches(self, columns: Sequence[pl.Expr]) -> Iterator[pl.DataFrame]:
        """The columns, at once."""
        yield self.frame.select(columns)


class Identities(NamedTuple):
    """Who did what is in the rows, once.

    Attributes:
        people: ids, in the order in which they were met.
        codes: (rows,) whose each row is, as a place in `people`.
        repeated: numbers of the rows that repeat an event, ascending.
        repeated_positions: rows whose (partition, offset) another row has too.
    """

    people: pl.Series
    codes: Codes
    repeated: Numbers
    repeated_positions: int


class _Suspects(NamedTuple):
    """Rows of which half a hash is alike; (n,) each."""

    row: Numbers
    code: Codes
    key: Keys
    rest: Codes


def identify(rows: Rows) -> Identities:
    """Tell people and events apart.

    Args:
        rows: the lake's table of events.
    """
    people, codes, suspects = _meet(rows)
    positions = _positions(rows)
    repeated = _repeated(suspects, positions[suspects.row])
    positions.sort()
    twice = int(np.count_nonzero(positions[1:] == positions[:-1]))
    return Identities(people, codes, repeated, twice)


def numbered(rows: Rows, *columns: pl.Expr) -> Iterator[tuple[slice, list[npt.NDArray[Any]]]]:
    """Columns of numbers, some rows at a time, with the numbers of these rows."""
    start = 0
    for batch in rows.batches(columns):
        yield slice(start, start + batch.height), [column.to_numpy() for column in batch]
        start += batch.height


def _meet(rows: Rows) -> tuple[pl.Series, Codes, _Suspects]:
    people = IdCodes()
    codes, rest = np.empty(len(rows), np.uint32), np.empty(len(rows), np.uint32)
    keys = np.empty(len(rows), np.uint64)
    for part, (code, event) in numbered(rows, people.encode(Column.USER), pl.col(Column.EVENT).hash()):
        codes[part], rest[part] = code, event & LOW
        # Ids need to be unique for their person only: two people who both count from 1 are no suspects.
        keys[part] = (event ^ code * ODD) & ~LOW | np.arange(part.start, part.stop, dtype=np.uint64)
    alike = _alike(keys)
    row = (alike & LOW).astype(np.int64)
    return people.ids, codes, _Suspects(row, codes[row], alike >> HALF, rest[row])


def _alike(keys: Keys) -> Keys:
    """Those whose upper half another one has too, in order.

    Args:
        keys: (rows,) upper half: of a hash, lower half: number of the row. They are put in order.
    """
    keys.sort()
    found = [np.empty(0, np.uint64)]
    for part in parts(len(keys)):
        near = keys[max(0, part.start - 1) : part.stop + 1]
        same = np.zeros(len(near) + 1, np.bool_)
        same[1:-1] = (near[1:] ^ near[:-1]) <= LOW
        found.append(near[same[1:] | same[:-1]])
    return np.unique(np.concatenate(found))


def _positions(rows: Rows) -> Keys:
    """(rows,) partition and offset as one number that rises with both."""
    positions = np.empty(len(rows), np.uint64)
    both = (pl.col(column).cast(pl.UInt64) for column in (Column.PARTITION, Column.OFFSET))
    for part, (partition, offset) in numbered(rows, *both):
        positions[part] = partition << OFFSET_BITS | offset
    return positions


def _repeated(suspects: _Suspects, positions: Keys) -> Numbers:
    """All rows of an event but the one at the lowest position."""
    event = (suspects.rest, suspects.key, suspects.code)
    order = np.lexsort((suspects.row, positions, *event))
    same = np.ones(max(0, len(order) - 1), np.bool_)
    for part in event:
        ordered = part[order]
        same &= ordered[1:] == ordered[:-1]
    return np.sort(suspects.row[order[1:][same]])
