"""Files of interactions from outside, parquet or csv, read so that ids and times mean the same in all of them."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from training.interactions import Column

REQUIRED = (Column.USER, Column.ITEM)
RATING = "rating"
EMPTY = ["", "NaN", "nan", "NULL", "null"]
WHOLE = r"^(0|-?[1-9][0-9]{0,17})$"
"""Text that is a whole number and comes out of one as it went in: "7", not "007" or "7.0"."""

UNITS_A_SECOND = ((1e11, 1), (1e14, 1_000), (1e17, 1_000_000), (float("inf"), 1_000_000_000))
"""(below this, a time that is a number counts so many units a second): seconds until the year 5138, then smaller."""

FORMATS = ("%+", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M")

Files = Mapping[str, pl.DataFrame]
"""Name of the file as messages call it, ending in that of the path → its rows."""


class BadFile(Exception):
    """The files cannot be used; the message says which one, why, and what to do."""


def read_file(path: Path) -> pl.DataFrame:
    """The columns user_id and item_id, and rating and occurred_at where there are such. All of a csv file is text.

    Raises:
        BadFile: there is no such file, it cannot be read, or a column is missing.
    """
    kind = path.suffix.lower()
    if kind not in (".parquet", ".csv"):
        raise BadFile(f"{path}: its name has to end in .parquet or .csv, so that it is known how to read it")
    if not path.is_file():
        raise BadFile(f"{path}: there is no such file")
    try:
        rows = pl.read_parquet(path) if kind == ".parquet" else _read_csv(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        if isinstance(error, pl.exceptions.NoDataError):
            raise BadFile(f"{path} is empty: it needs a first line with the names of the columns, and rows") from error
        why = str(error).splitlines()[0]
        raise BadFile(f"{path} cannot be read as {kind[1:]} ({why}): write it again, in UTF-8 if it is csv") from error
    if missing := [column for column in REQUIRED if column not in rows.columns]:
        raise BadFile(
            f"{path} has no column {' and no column '.join(missing)}; it has {', '.join(rows.columns)}: rename them, "
            "and separate the columns of a csv file with commas"
        )
    return rows.select(column for column in (*REQUIRED, RATING, Column.OCCURRED) if column in rows.columns)


def ids_as_text(files: Files, column: str) -> tuple[Files, pl.DataType]:
    """The same files with the ids in `column` as text, and the type that they had.

    The ids of csv files are whole numbers if all of them are in all files, else text.

    Raises:
        BadFile: ids are missing, are neither whole numbers nor text, or are the one here and the other there.
    """
    types = {name: _id_type(name, rows[column]) for name, rows in files.items()}
    whole = [name for name, kind in types.items() if kind.is_integer()]
    if len(whole) == len(files):
        kinds = set(types.values())
        found: pl.DataType = kinds.pop() if len(kinds) == 1 else pl.Int64()
    elif all(_is_csv(name) for name in whole):
        found = pl.String()
    else:
        text = next(name for name in files if name not in whole)
        raise BadFile(
            f"{column} is a whole number in {whole[0]} and text in {text}: write the same type into all files"
        )
    return {name: rows.with_columns(pl.col(column).cast(pl.String)) for name, rows in files.items()}, found


def times(files: Files) -> Files:
    """The same files with `at_ms`, in milliseconds since 1970, instead of occurred_at.

    Where no file has times, the order of a user's rows stands for them, file after file.

    Raises:
        BadFile: some files have times and others have none, or a time is missing or cannot be read.
    """
    without = [name for name, rows in files.items() if Column.OCCURRED not in rows.columns]
    if len(without) == len(files):
        return _in_order(files)
    if without:
        raise BadFile(f"{without[0]} has no occurred_at, but another file has: add it, or drop it from all of them")
    return {
        name: rows.with_columns(_milliseconds(name, rows[Column.OCCURRED]).alias(Column.AT_MS)).drop(Column.OCCURRED)
        for name, rows in files.items()
    }


def _read_csv(path: Path) -> pl.DataFrame:
    # Types are not guessed from the first rows: "007" would lose its zeros, and row 10,000 may hold the first letter.
    rows = pl.read_csv(path, infer_schema=False, null_values=EMPTY)
    return rows.rename(str.strip).with_columns(pl.all().str.strip_chars())


def _id_type(name: str, ids: pl.Series) -> pl.DataType:
    """An integer type or String."""
    _none_missing(name, ids, "remove such rows or fill them in")
    if ids.dtype.is_integer():
        return ids.dtype
    if ids.dtype not in (pl.String, pl.Categorical, pl.Enum):
        raise BadFile(f"{name}: {ids.name} is of type {ids.dtype}; ids are whole numbers or text: write them as such")
    if _is_csv(name) and ids.str.contains(WHOLE).all():
        return pl.Int64()
    return pl.String()


def _is_csv(name: str) -> bool:
    return name.lower().endswith(".csv")


def _none_missing(name: str, values: pl.Series, advice: str) -> None:
    gone = values.is_null()
    if values.dtype.is_float():
        gone |= ~values.is_finite().fill_null(False)
    elif values.dtype == pl.String:
        gone |= (values == "").fill_null(False)
    if missing := int(gone.sum()):
        row = int(gone.arg_true()[0]) + 1
        rows = f"{missing:,} rows have" if missing > 1 else "a row has"
        raise BadFile(f"{name}: {rows} no {values.name}, the first is row {row:,}: {advice}")


def _in_order(files: Files) -> Files:
    c = Column
    whole = pl.concat([rows.select(c.USER) for rows in files.values()])
    order = whole.select(pl.int_range(pl.len(), dtype=pl.Int64).over(c.USER).alias(c.AT_MS))[c.AT_MS]
    found, start = {}, 0
    for name, rows in files.items():
        found[name] = rows.with_columns(order[start : start + rows.height])
        start += rows.height
    return found


def _milliseconds(name: str, moments: pl.Series) -> pl.Series:
    _none_missing(name, moments, "fill them in, or drop the column from all files: then the order of the rows counts")
    if moments.dtype == pl.String and moments.str.contains(r"^-?[0-9]+(\.[0-9]*)?$").all():
        moments = moments.cast(pl.Float64)
    if moments.dtype.is_numeric():
        return _from_numbers(moments.cast(pl.Float64))
    if moments.dtype == pl.String:
        return _from_text(name, moments)
    if moments.dtype not in (pl.Datetime, pl.Date):
        raise BadFile(
            f"{name}: occurred_at is of type {moments.dtype}; write date and time, seconds since 1970, or ISO 8601 text"
        )
    return moments.cast(pl.Datetime("ms", getattr(moments.dtype, "time_zone", None))).dt.timestamp("ms")


def _from_numbers(moments: pl.Series) -> pl.Series:
    """Seconds, milli-, micro- or nanoseconds since 1970: whichever the largest of them can be."""
    largest = float(moments.abs().max() or 0)  # type: ignore[arg-type]
    a_second = next(units for bound, units in UNITS_A_SECOND if largest < bound)
    return (moments * (1000 / a_second)).floor().cast(pl.Int64)


def _from_text(name: str, moments: pl.Series) -> pl.Series:
    """ISO 8601; a time without a zone is in UTC."""
    text = moments.str.replace("T", " ")
    readings = [text.str.to_datetime(form, strict=False, time_unit="ms", time_zone="UTC") for form in FORMATS]
    readings.append(text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("ms")).dt.replace_time_zone("UTC"))
    read = pl.DataFrame([one.alias(str(i)) for i, one in enumerate(readings)]).select(pl.coalesce(pl.all())).to_series()
    if read.null_count():
        row = int(read.is_null().arg_true()[0])
        raise BadFile(
            f"{name}: occurred_at {moments[row]!r} in row {row + 1:,} cannot be read: write ISO 8601, as in "
            "2024-01-31T12:00:00Z, or seconds since 1970"
        )
    return read.dt.timestamp("ms")
