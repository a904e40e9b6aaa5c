"""A table of the lake at one version, to be read column by column and a piece at a time."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl
from deltalake import DeltaTable

from infra.ahead import ahead

FEWEST_ROWS_AT_ONCE = 1 << 16
SHARE_AT_ONCE = 1 / 64
"""Of a large table: so what is held while it is read grows with it, and no faster."""
READERS = 2
"""One batch is decoded by one core, by and large."""


class Piece(NamedTuple):
    """Neighbouring rows: of several files, or a part of one.

    Attributes:
        files: where they are.
        start: row of the first file that they begin with.
        rows: how many they are.
    """

    files: tuple[str, ...]
    start: int
    rows: int


class LakeSnapshot(NamedTuple):
    """A table at one moment.

    Attributes:
        version: of the Delta table.
        watermark: partition → offset up to which the log is in it.
        rows: the columns asked for.
    """

    version: int
    watermark: dict[int, int]
    rows: pl.DataFrame


@dataclass(frozen=True)
class LakeTable:
    """A table at one moment. Rows have the same order in every reading of it.

    Attributes:
        version: of the Delta table.
        watermark: partition → offset up to which the log is in it.
        pieces: what it is made of.
    """

    version: int
    watermark: Mapping[int, int]
    pieces: tuple[Piece, ...]

    @classmethod
    def of(cls, delta: DeltaTable, watermark: Mapping[int, int]) -> "LakeTable":
        """The table as it is."""
        files = sorted((file, _rows_in(file)) for file in delta.file_uris())
        at_once = max(FEWEST_ROWS_AT_ONCE, int(SHARE_AT_ONCE * sum(rows for _, rows in files)))
        return cls(delta.version(), watermark, tuple(pieces_of(files, at_once)))

    def __len__(self) -> int:
        return sum(piece.rows for piece in self.pieces)

    @property
    def files(self) -> list[str]:
        """Paths or URLs of the Parquet files that hold its rows."""
        return sorted({file for piece in self.pieces for file in piece.files})

    def batches(self, columns: Sequence[pl.Expr]) -> Iterator[pl.DataFrame]:
        """All rows, some at a time. While one batch is worked on, the next ones are read.

        Args:
            columns: what to make of the rows; of no column that the table is partitioned by.
        """
        with ThreadPoolExecutor(READERS, "lake-reader") as readers:
            for reading in ahead((readers.submit(_read, piece, columns) for piece in self.pieces), READERS):
                yield reading.result()


def pieces_of(files: Sequence[tuple[str, int]], rows_at_once: int) -> Iterator[Piece]:
    """Small files together and large ones in parts.

    Args:
        files: path and number of rows of each.
        rows_at_once: rows of a piece, at most.
    """
    together: list[str] = []
    rows = 0
    for file, there in files:
        if rows and rows + there > rows_at_once:
            yield Piece(tuple(together), 0, rows)
            together, rows = [], 0
        if there > rows_at_once:
            yield from (Piece((file,), at, min(rows_at_once, there - at)) for at in range(0, there, rows_at_once))
        elif there:
            together, rows = [*together, file], rows + there
    if rows:
        yield Piece(tuple(together), 0, rows)


def _rows_in(file: str) -> int:
    return int(pl.scan_parquet(file).select(pl.len()).collect().item())


def _read(piece: Piece, columns: Sequence[pl.Expr]) -> pl.DataFrame:
    return pl.scan_parquet(list(piece.files), glob=False).slice(piece.start, piece.rows).select(columns).collect()
