"""Files as others write them: what is read from them, and what is said about those that cannot be."""

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from training.interaction_files import BadFile, ids_as_text, read_file, times

NOON = int(datetime(2024, 1, 31, 12, tzinfo=UTC).timestamp() * 1000)


def csv(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def parquet(path: Path, **columns: Any) -> Path:
    pl.DataFrame(columns).write_parquet(path)
    return path


def ids(**files: list[Any]) -> dict[str, pl.DataFrame]:
    """`train_csv=["1"]` is a file named train.csv with one user."""
    return {name.replace("_", "."): pl.DataFrame({"user_id": values}) for name, values in files.items()}


def moments(*values: Any, name: str = "train.parquet") -> list[int]:
    rows = pl.DataFrame({"user_id": range(len(values)), "occurred_at": list(values)}, strict=False)
    return times({name: rows})[name]["at_ms"].to_list()


def test_csv_and_parquet_hold_the_same(tmp_path: Path) -> None:
    """Other columns are passed over; names and ids of a csv file may have spaces around them, and a byte order mark."""
    text = "\ufeffuser_id, item_id,rating,shop\nu1, i1,5,a\nu2,i2,,b\n"
    one = read_file(csv(tmp_path / "a.CSV", text))
    columns = {"user_id": ["u1", "u2"], "item_id": ["i1", "i2"], "rating": ["5", None]}
    two = read_file(parquet(tmp_path / "a.parquet", **columns, shop=["a", "b"]))
    assert one.equals(two)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.json", b"{}", r"a.json: its name has to end in .parquet or .csv"),
        ("a.csv", b"", r"a.csv is empty: it needs a first line"),
        ("a.csv", b"user_id;item_id\n1;2\n", r"no column user_id and no column item_id; it has user_id;.*commas"),
        ("a.csv", b"user_id,movie\n1,2\n", r"a.csv has no column item_id; it has user_id, movie: rename them"),
        ("a.csv", b"user_id,item_id\n1,2,3\n", r"a.csv cannot be read as csv \(.*\): write it again, in UTF-8"),
        ("a.csv", b"user_id,item_id\n\xe9,2\n", r"a.csv cannot be read as csv \(.*\): write it again, in UTF-8"),
        ("a.parquet", b"user_id,item_id\n1,2\n", r"a.parquet cannot be read as parquet \(.*\): write it again"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_named_with_what_to_do(
    tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadFile, match=why):
        read_file(tmp_path / name)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"none.csv: there is no such file"):
        read_file(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(BadFile, match=r"folder.csv: there is no such file"):
        read_file(tmp_path / "folder.csv")


@pytest.mark.parametrize(
    ("files", "kind", "first"),
    [
        (ids(train_csv=["1", "20"], test_csv=["-3"]), pl.Int64, "1"),
        (ids(train_csv=["1", "20"], test_csv=["u3"]), pl.String, "1"),
        (ids(train_csv=["007", "20"], test_csv=["20"]), pl.String, "007"),
        (ids(train_csv=["99999999999999999999"], test_csv=["1"]), pl.String, "99999999999999999999"),
        (ids(train_parquet=[1, 2], test_parquet=[3]), pl.Int64, "1"),
        (ids(train_parquet=[1, 2], test_csv=["3"]), pl.Int64, "1"),
        (ids(train_parquet=["1", "u2"], test_csv=["3"]), pl.String, "1"),
    ],
)
def test_ids_become_text_and_their_type_is_kept(
    files: dict[str, pl.DataFrame], kind: type[pl.DataType], first: str
) -> None:
    """Of a csv file, whole numbers where every id in every file is one that comes out as it went in."""
    found, was = ids_as_text(files, "user_id")
    assert was == kind
    assert next(iter(found.values()))["user_id"][0] == first
    assert {rows["user_id"].dtype for rows in found.values()} == {pl.String()}


def test_narrow_whole_numbers_stay_narrow_where_all_files_have_them() -> None:
    narrow, wide = pl.DataFrame({"user_id": pl.Series([1], dtype=pl.Int16)}), pl.DataFrame({"user_id": [1]})
    assert ids_as_text({"a.parquet": narrow, "b.parquet": narrow}, "user_id")[1] == pl.Int16
    assert ids_as_text({"a.parquet": narrow, "b.parquet": wide}, "user_id")[1] == pl.Int64


def test_categories_are_text() -> None:
    rows = pl.DataFrame({"user_id": pl.Series(["a", "b"], dtype=pl.Categorical)})
    assert ids_as_text({"a.parquet": rows}, "user_id")[1] == pl.String


@pytest.mark.parametrize(
    ("files", "why"),
    [
        (ids(train_parquet=[1, 2], test_parquet=["u3"]), "whole number in train.parquet and text in test.parquet: "),
        (ids(train_parquet=[1, 2], test_csv=["u3"]), "whole number in train.parquet and text in test.csv: write"),
        (ids(train_parquet=["u1", None, None]), "train.parquet: 2 rows have no user_id, the first is row 2: remove"),
        (ids(train_parquet=[1.0, float("nan")]), "train.parquet: a row has no user_id, the first is row 2: remove"),
        (ids(train_parquet=["", "u1"]), "train.parquet: a row has no user_id, the first is row 1: remove"),
        (ids(train_parquet=[1.0, 2.0]), "train.parquet: user_id is of type Float64; ids are whole numbers or text"),
        (ids(train_parquet=[True]), "train.parquet: user_id is of type Boolean; ids are whole numbers or text"),
    ],
)  # fmt: skip
def test_ids_that_are_missing_mixed_or_of_another_type_are_named_with_what_to_do(
    files: dict[str, pl.DataFrame], why: str
) -> None:
    with pytest.raises(BadFile, match=why):
        ids_as_text(files, "user_id")


@pytest.mark.parametrize("missing", ["", "NaN", "nan", "NULL", "null"])
def test_an_id_that_is_missing_in_a_csv_file_is_noticed(tmp_path: Path, missing: str) -> None:
    rows = read_file(csv(tmp_path / "a.csv", f"user_id,item_id\n1,i1\n{missing},i2\n"))
    with pytest.raises(BadFile, match="a row has no user_id, the first is row 2"):
        ids_as_text({"a.csv": rows}, "user_id")


@pytest.mark.parametrize(
    "value",
    [
        datetime(2024, 1, 31, 12),
        datetime(2024, 1, 31, 12, tzinfo=UTC),
        datetime(2024, 1, 31, 14, tzinfo=timezone(timedelta(hours=2))),
        NOON // 1000,
        NOON / 1000,
        NOON,
        NOON * 1000,
        NOON * 1_000_000,
        str(NOON // 1000),
        str(NOON),
        "2024-01-31T12:00:00Z",
        "2024-01-31T12:00:00",
        "2024-01-31 12:00:00",
        "2024-01-31 12:00",
        "2024-01-31T14:00:00+02:00",
        "2024-01-31 12:00:00.000",
    ],
    ids=repr,
)
def test_a_moment_may_be_written_in_many_ways(value: Any) -> None:
    assert moments(value) == [NOON]


def test_a_day_is_its_first_moment() -> None:
    midnight = NOON - 12 * 3_600_000
    assert moments(date(2024, 1, 31)) == moments("2024-01-31") == [midnight]


def test_moments_of_a_file_may_differ_in_form_and_before_1970() -> None:
    assert moments("2024-01-31 12:00:00", "2024-01-31T12:00:00Z", "1969-12-31") == [NOON, NOON, -86_400_000]
    assert moments(-86_400, 0) == [-86_400_000, 0]


def test_numbers_are_seconds_until_the_year_5138_and_milliseconds_likewise() -> None:
    late = int(datetime(5000, 1, 1, tzinfo=UTC).timestamp())
    assert moments(late) == moments(late * 1000) == moments(late * 1_000_000) == [late * 1000]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (["2024-01-31", "yesterday"], "train.parquet: occurred_at 'yesterday' in row 2 cannot be read: write ISO 8601"),
        ([NOON, None], "train.parquet: a row has no occurred_at, the first is row 2: fill them in, or drop the column"),
        ([1.5, float("nan")], "train.parquet: a row has no occurred_at, the first is row 2"),
        ([1.5, float("inf")], "train.parquet: a row has no occurred_at, the first is row 2"),
        ([True], "train.parquet: occurred_at is of type Boolean; write date and time"),
    ],
)
def test_moments_that_cannot_be_read_are_named_with_what_to_do(values: list[Any], why: str) -> None:
    with pytest.raises(BadFile, match=why):
        moments(*values)


def test_without_moments_the_order_of_a_users_rows_stands_for_them() -> None:
    files = {"train": pl.DataFrame({"user_id": ["a", "b", "a"]}), "valid": pl.DataFrame({"user_id": ["b", "a", "c"]})}
    found = times(files)
    assert found["train"]["at_ms"].to_list() == [0, 0, 1]
    assert found["valid"]["at_ms"].to_list() == [1, 2, 0]


def test_moments_in_some_files_only_are_refused() -> None:
    files = {"train": pl.DataFrame({"user_id": ["a"], "occurred_at": [1]}), "valid": pl.DataFrame({"user_id": ["a"]})}
    with pytest.raises(BadFile, match="valid has no occurred_at, but another file has: add it, or drop it"):
        times(files)
