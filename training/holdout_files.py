"""Interactions in three files, train, valid and test, as others split them: to choose a model on, and to judge it on.

Every row counts as one positive interaction; a rating is not looked at. People's histories are not cut.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from training.bundle import Indices, Scores
from training.interaction_files import RATING, BadFile, Files, ids_as_text, read_file, times
from training.interactions import Catalogue, Column, IdMap
from training.split import ROW, Split, assemble, trained

PAIR = [Column.USER, Column.ITEM]


class HoldOutFiles(NamedTuple):
    """Where the three are."""

    train: Path
    valid: Path
    test: Path


@dataclass(frozen=True)
class HoldOut:
    """The interactions of three files, each user and item at most once.

    Attributes:
        train: user_id, item_id, at_ms, weight, receipt.
        valid: the same.
        test: the same.
        user_type: what user ids were in the files; here they are text.
        item_type: likewise.
        notes: what was left out, and how what is odd is counted, in sentences.
    """

    train: pl.DataFrame
    valid: pl.DataFrame
    test: pl.DataFrame
    user_type: pl.DataType
    item_type: pl.DataType
    notes: tuple[str, ...]

    def selection(self, refit: bool = True) -> Split:
        """To choose on, in the way that test will be asked about: fitted on train, asked for what is in valid.

        Args:
            refit: valid will be trained on before test: histories are those of train. False: it will not, it arrives.
                So of each person's rows in valid the older half has arrived, and the newer half is asked for.
        """
        if refit:
            return _split(self.train, self.valid.clear(), self.valid)
        older, newer = _halves(self.valid)
        return _split(self.train, older, newer)

    def refitted(self) -> Split:
        """To judge: fitted on train and valid, asked with the histories of both for what is in test."""
        return _split(pl.concat([self.train, self.valid]), self.valid.clear(), self.test)

    def arrived(self) -> Split:
        """To judge as production does between two retrainings: fitted on train; valid has arrived since.

        The fresh histories are those of train and valid, the stale ones those of train.
        """
        return _split(self.train, self.valid, self.test)

    def recommendations(self, split: Split, lists: Indices, scores: Scores) -> pl.DataFrame:
        """user_id, rank (from 1), item_id, score of (people, k) lists for everybody in test, with the files' ids."""
        people, places = (lists >= 0).nonzero()
        users = pl.Series(split.people.ids, dtype=pl.String)
        items = pl.Series(split.train.catalogue.items.ids, dtype=pl.String)
        return pl.DataFrame(
            {
                Column.USER: users.gather(people).cast(self.user_type),
                "rank": pl.Series(places + 1, dtype=pl.Int32),
                Column.ITEM: items.gather(lists[people, places]).cast(self.item_type),
                "score": scores[people, places],
            }
        )


def read_hold_out(paths: HoldOutFiles) -> HoldOut:
    """Read and check three files.

    Raises:
        BadFile: they cannot be used; the message says why and what to do.
    """
    files: Files = {f"{part} {path}": read_file(path) for part, path in paths._asdict().items()}
    for name, rows in files.items():
        if rows.is_empty():
            raise BadFile(f"{name} has no rows: {_advice(name)}")
    notes = _of_columns(files)
    files, user_type = ids_as_text(files, Column.USER)
    files, item_type = ids_as_text(files, Column.ITEM)
    parts: list[pl.DataFrame] = []
    for name, rows in times(files).items():
        parts.append(_new(name, rows, parts, notes))
    _not_strangers(parts)
    return HoldOut(parts[0], parts[1], parts[2], user_type, item_type, tuple(notes))


def check_writable(out: Path | None) -> None:
    """Say now, not after an hour, that the lists cannot be written.

    Raises:
        BadFile: `out` is no name of a parquet file in a folder that exists.
    """
    if out is None:
        return
    if out.suffix.lower() != ".parquet":
        raise BadFile(f"{out}: lists are written as parquet, so its name has to end in .parquet")
    if not out.absolute().parent.is_dir():
        raise BadFile(f"{out}: there is no such folder: make it first")


def notes_on(split: Split, part: str) -> list[str]:
    """How those are counted of whom, or of which, nothing is known, in sentences.

    Args:
        split: whose people are asked.
        part: the file that is held out.
    """
    notes = []
    people, rows = split.held_out.shape[0], split.held_out.nnz
    if new := int((np.diff(split.fresh.user_items.indptr) == 0).sum()):
        notes.append(
            f"{part}: of {people:,} users, {new:,} without any history that is known: they are served the popular "
            "list, and count in every figure as the others do."
        )
    if unknown := int((split.held_out.indices >= len(split.train.catalogue.items)).sum()):
        notes.append(
            f"{part}: of {rows:,} rows, {unknown:,} of items that the models have not met: they cannot name them, and "
            "these rows count as misses."
        )
    return notes


def _halves(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Each person's older and newer half; the older has one more of an odd number, but a single row is the newer."""
    c = Column
    of, place = pl.len().over(c.USER), pl.int_range(pl.len()).over(c.USER)
    ordered = rows.sort(c.USER, c.AT_MS, c.ITEM).with_columns(((place * 2 < of) & (of > 1)).alias("older"))
    return ordered.filter("older").select(ROW), ordered.filter(~pl.col("older")).select(ROW)


def _split(train: pl.DataFrame, arrived: pl.DataFrame, asked: pl.DataFrame) -> Split:
    length = train.height + arrived.height
    catalogue = IdMap(tuple(train[Column.ITEM].unique().sort()))
    cut = int(train[Column.AT_MS].to_numpy().max()) + 1
    return assemble(trained(train, Catalogue(catalogue, ({},) * len(catalogue)), length), arrived, asked, length, cut)


def _new(name: str, rows: pl.DataFrame, before: list[pl.DataFrame], notes: list[str]) -> pl.DataFrame:
    """Each pair of user and item once, with its newest time, and only those that no file before this one has."""
    once = rows.sort(Column.AT_MS, maintain_order=True).unique(PAIR, keep="last", maintain_order=True)
    if repeated := rows.height - once.height:
        notes.append(
            f"{name}: of {rows.height:,} rows, {repeated:,} dropped that repeat a user and item: the newest stays."
        )
    new = once
    for known in before:
        new = new.join(known, on=PAIR, how="anti")
    if left_out := once.height - new.height:
        notes.append(
            f"{name}: of {rows.height:,} rows, {left_out:,} left out that an earlier file has: people have these items."
        )
    if new.is_empty():
        raise BadFile(f"{name}: all rows are in the files before it too: {_advice(name)}")
    return new.with_columns(pl.lit(1.0).alias(Column.WEIGHT), pl.lit(0, pl.Int64).alias(Column.RECEIPT)).select(ROW)


def _advice(name: str) -> str:
    part = name.partition(" ")[0]
    return {
        "train": "models are fitted on it, so put most of the interactions there",
        "valid": "models are chosen on it, so hold out a part of train, for instance each user's newest tenth",
        "test": "the chosen model is judged on it, so hold out a part that is in neither train nor valid",
    }[part]


def _of_columns(files: Files) -> list[str]:
    """Notes on the columns that are there and that are not."""
    notes = []
    if rated := [rows[RATING].cast(pl.Float64, strict=False) for rows in files.values() if RATING in rows.columns]:
        missing = sum(int((one.is_null() | one.is_nan()).sum()) for one in rated)
        gone = f" ({missing:,} are missing or no numbers)" if missing else ""
        notes.append(
            f"Ratings are not used{gone}: every row counts as a positive interaction. Where low ones should not, "
            "remove such rows from the three files."
        )
    if not any(Column.OCCURRED in rows.columns for rows in files.values()):
        notes.append("There is no occurred_at: the order of a user's rows, train, valid, test, stands for time.")
    return notes


def _not_strangers(parts: list[pl.DataFrame]) -> None:
    for name, before, asked in (("valid", parts[:1], parts[1]), ("test", parts[:2], parts[2])):
        known = pl.concat(before)
        for column in PAIR:
            if asked.join(known, on=column, how="semi").is_empty():
                raise BadFile(f"no {column} of {name} is in the files before it: write ids the same way in all files")
