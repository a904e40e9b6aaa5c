"""Viewers and what they watched, as data; and the reader of MovieLens folders."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import polars as pl

from ingest.events import Event, Item

TIME = pl.Datetime("us", "UTC")
ACTS = pl.Schema({"user_id": pl.String(), "item_id": pl.String(), "type": pl.String(), "occurred_at": TIME})


class DatasetError(Exception):
    """The data cannot be had; the message names the file, the line where there is one, and what was expected."""


@dataclass(frozen=True)
class Dataset:
    """Items, and what people did with them.

    Attributes:
        name: what to call it.
        items: the items' attributes.
        acts: columns as in `ACTS`, oldest first.
    """

    name: str
    items: Sequence[Item]
    acts: pl.DataFrame

    @cached_property
    def users(self) -> list[str]:
        """Everybody who did something, in order of their ids."""
        return self.acts["user_id"].unique().sort().to_list()


# --- what a platform tells a person ----------------------------------------------------------------------------------


class Export(NamedTuple):
    """What `GET /v1/users/{user_id}/data` gave.

    Attributes:
        user_id: the person.
        purposes: what the person allowed last; none: nothing.
        events: as a client sends them, in the order in which they were taken, with their ids.
    """

    user_id: str
    purposes: tuple[str, ...]
    events: list[dict[str, Any]]


def read_export(path: Path) -> Export:
    """Read an export.

    Raises:
        DatasetError: there is no such file, or a line of it is of another form.
    """
    person, purposes = "", ()
    events: list[dict[str, Any]] = []
    for number, line in enumerate(_lines_of(path), 1):
        try:
            fields = orjson.loads(line)
            match fields["kind"]:
                case "person":
                    person = str(fields["user_id"])
                case "receipt":
                    purposes = tuple(fields["purposes"])
                case "event":
                    events.append({name: fields[name] for name in Event.model_fields if fields[name] is not None})
        except (ValueError, KeyError, TypeError):
            raise DatasetError(f"{path}, line {number}: no line of an export.") from None
    if not person:
        raise DatasetError(f"{path} names no person: it is no export of GET /v1/users/USER/data.")
    return Export(person, purposes, events)


def _lines_of(path: Path) -> list[bytes]:
    try:
        return [line for line in path.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.") from None


# --- MovieLens -------------------------------------------------------------------------------------------------------


class _Layout(NamedTuple):
    """How a family of MovieLens releases writes its two files."""

    ratings: str
    movies: str
    separator: str
    has_header: bool


_LAYOUTS = (_Layout("ratings.csv", "movies.csv", ",", True), _Layout("ratings.dat", "movies.dat", "::", False))
_UNDERSTOOD = (
    "A MovieLens folder holds ratings.csv and movies.csv (ml-latest-small, 20M, 25M, 32M) "
    "or ratings.dat and movies.dat (1M, 10M)."
)
_RATING = ("userId", "movieId", "rating", "timestamp")
_MOVIE = ("movieId", "title", "genres")
_LARGEST = 2**32 - 1
_LOWEST, _HIGHEST = 0.5, 5.0
_YEAR = re.compile(r"\((\d{4})(?:\D\d{0,4})?\)\s*$")


def read_movielens(folder: Path, max_users: int | None = None, seed: int = 1) -> Dataset:
    """Ratings of a MovieLens release as acts: 4 and better a `thumbs_up`, 1 and worse a `thumbs_down`, else a `play`.

    Args:
        folder: as it comes out of the release's archive: ml-latest-small, 1M, 10M, 20M, 25M or 32M.
        max_users: keep so many users, drawn by `seed`; None keeps all.
        seed: the same seed draws the same users.

    Raises:
        DatasetError: a file is missing or a line of one is broken.
    """
    layout = _layout(folder)
    ratings = _ratings(folder / layout.ratings, layout, max_users, seed)
    rated = set(ratings["movieId"].unique().to_list())
    items = [item for movie, item in _movies(folder / layout.movies, layout) if movie in rated]
    return Dataset(folder.resolve().name, items, _as_acts(ratings))


def _layout(folder: Path) -> _Layout:
    for layout in _LAYOUTS:
        if (folder / layout.ratings).is_file():
            if not (folder / layout.movies).is_file():
                raise DatasetError(f"{folder / layout.movies} is missing. {_UNDERSTOOD}")
            return layout
    raise DatasetError(f"{folder / 'ratings.csv'} is missing, and there is no ratings.dat either. {_UNDERSTOOD}")


def _ratings(path: Path, layout: _Layout, max_users: int | None, seed: int) -> pl.DataFrame:
    """Columns as in `_RATING`, oldest first. Read once to check, so that a broken line of anybody is told."""
    _check_header(path, layout)
    rows = _scan(path, layout)
    try:
        if not rows.select(_is_fine().all()).collect(engine="streaming").item():
            raise _broken_rating(path, layout)
        if max_users is not None:
            users = rows.select(pl.col("userId").unique().sort()).collect(engine="streaming")["userId"].to_numpy()
            drawn = np.random.default_rng(seed).choice(users, min(max_users, len(users)), replace=False)
            rows = rows.filter(pl.col("userId").is_in(drawn.tolist()))
        return rows.collect(engine="streaming").sort("timestamp", "userId", "movieId")
    except pl.exceptions.PolarsError as error:
        raise _broken_rating(path, layout) from error


def _scan(path: Path, layout: _Layout) -> pl.LazyFrame:
    """The ratings, unread. A `::` is read as two separators with an empty column between them."""
    types: dict[str, Any] = dict(zip(_RATING, (pl.UInt32, pl.UInt32, pl.Float32, pl.Int64), strict=True))
    gap = len(layout.separator) - 1
    schema: dict[str, Any] = {}
    for name, dtype in types.items():
        schema |= {f"gap_{name}": pl.String} if schema and gap else {}
        schema[name] = dtype
    rows = pl.scan_csv(
        path,
        separator=layout.separator[0],
        has_header=False,
        skip_lines=int(layout.has_header),
        quote_char=None,
        schema=schema,
    )
    gaps_are_empty = pl.all_horizontal(pl.col("^gap_.*$").is_null()) if gap else pl.lit(True)
    return rows.filter(~pl.all_horizontal(pl.all().is_null())).select(
        pl.when(gaps_are_empty).then(pl.col("userId")).alias("userId"), *_RATING[1:]
    )


def _is_fine() -> pl.Expr:
    return (
        pl.col("userId").is_not_null()
        & pl.col("movieId").is_not_null()
        & pl.col("rating").is_between(_LOWEST, _HIGHEST).fill_null(False)
        & pl.col("timestamp").is_between(1, _LARGEST).fill_null(False)
    )


def _check_header(path: Path, layout: _Layout) -> None:
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline().strip().split(layout.separator)
    if layout.has_header and tuple(first) != _RATING:
        raise DatasetError(f"{path}, line 1: expected the header {','.join(_RATING)}. {_UNDERSTOOD}")
    if first == [""]:
        raise DatasetError(f"{path} is empty. {_UNDERSTOOD}")


def _broken_rating(path: Path, layout: _Layout) -> DatasetError:
    """The slow way, taken only when the fast one failed: which line is it?"""
    expected = f"expected {layout.separator.join(_RATING)}, with a rating from {_LOWEST} to {_HIGHEST}"
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            header = layout.has_header and number == 1
            if not header and line.strip() and not _is_rating(line.strip().split(layout.separator)):
                return DatasetError(f"{path}, line {number}: {expected}.")
    return DatasetError(f"{path} cannot be read: {expected} in every line.")


def _is_rating(fields: list[str]) -> bool:
    try:
        user, movie, rating, at = fields
        ids_fit = 0 <= int(user) <= _LARGEST and 0 <= int(movie) <= _LARGEST
        return ids_fit and _LOWEST <= float(rating) <= _HIGHEST and 1 <= int(at) <= _LARGEST
    except ValueError:
        return False


def _as_acts(ratings: pl.DataFrame) -> pl.DataFrame:
    liked, disliked = pl.col("rating") >= 4, pl.col("rating") <= 1
    return ratings.select(
        pl.concat_str(pl.lit("u"), "userId").alias("user_id"),
        pl.concat_str(pl.lit("m"), "movieId").alias("item_id"),
        pl.when(liked)
        .then(pl.lit("thumbs_up"))
        .when(disliked)
        .then(pl.lit("thumbs_down"))
        .otherwise(pl.lit("play"))
        .alias("type"),
        pl.from_epoch("timestamp", "s").cast(TIME).alias("occurred_at"),
    )


def _movies(path: Path, layout: _Layout) -> Iterator[tuple[int, Item]]:
    """movieId and item of every line.

    Raises:
        DatasetError: a line is broken.
    """
    for number, fields in _movie_lines(path, layout):
        if len(fields) != len(_MOVIE) or not fields[0].isdecimal():
            raise DatasetError(f"{path}, line {number}: expected {layout.separator.join(_MOVIE)}.")
        yield int(fields[0]), _movie(*fields)


def _movie_lines(path: Path, layout: _Layout) -> Iterator[tuple[int, list[str]]]:
    lines = io.StringIO(_decode(path.read_bytes()))
    if not layout.has_header:
        yield from ((n, line.strip().split(layout.separator)) for n, line in enumerate(lines, 1) if line.strip())
        return
    rows = csv.reader(lines, strict=True)
    try:
        if tuple(next(rows, ())) != _MOVIE:
            raise DatasetError(f"{path}, line 1: expected the header {','.join(_MOVIE)}. {_UNDERSTOOD}")
        yield from ((rows.line_num, row) for row in rows if row)
    except csv.Error as error:
        raise DatasetError(f"{path}, line {rows.line_num}: {error}.") from error


def _decode(content: bytes) -> str:
    """The 1M release is in Latin-1, all the others are in UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _movie(movie: str, title: str, genres: str) -> Item:
    year = _YEAR.search(title)
    attributes: dict[str, str | int | float | list[str]] = {
        "title": title,
        "genres": [] if genres == "(no genres listed)" else genres.split("|"),
    }
    return Item(item_id=f"m{movie}", attributes=attributes | ({"year": int(year[1])} if year else {}))
