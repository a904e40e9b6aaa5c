"""Three files become splits; what is left out of them is counted and said."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from training.holdout_files import HoldOut, HoldOutFiles, check_writable, notes_on, read_hold_out
from training.interaction_files import BadFile
from training.recency import Histories
from training.split import Split

TRAIN = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "z"), ("c", "y")]
VALID = [("a", "z"), ("b", "y"), ("c", "x")]
TEST = [("a", "w"), ("b", "w"), ("c", "z")]
PARTS = ("train", "valid", "test")


def written(folder: Path, kind: str = "csv", **parts: Any) -> HoldOutFiles:
    """Files of (user_id, item_id) rows; `w` is known from train, where a fourth user has it."""
    given = {"train": [*TRAIN, ("d", "w")], "valid": VALID, "test": TEST} | parts
    for part, rows in given.items():
        frame = rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(rows, ["user_id", "item_id"], orient="row")
        frame.write_csv(folder / f"{part}.csv") if kind == "csv" else frame.write_parquet(folder / f"{part}.parquet")
    return HoldOutFiles(*(folder / f"{part}.{kind}" for part in PARTS))


def items(split: Split, history: Histories, row: int) -> dict[str, int]:
    """item → moment."""
    bounds = slice(*history.user_items.indptr[row : row + 2])
    names = (split.train.catalogue.items.ids[index] for index in history.user_items.indices[bounds])
    return dict(zip(names, history.at_ms[bounds].tolist(), strict=True))


def asked(split: Split) -> dict[str, list[int]]:
    return {person: split.held_out[row].indices.tolist() for row, person in enumerate(split.people.ids)}


@pytest.fixture
def hold_out(tmp_path: Path) -> HoldOut:
    """Three users."""
    return read_hold_out(written(tmp_path))


def test_a_model_is_chosen_on_valid_with_what_train_knows(hold_out: HoldOut) -> None:
    split = hold_out.selection()
    assert split.train.catalogue.items.ids == ("w", "x", "y", "z")
    assert split.train.positives.nnz == 6
    assert items(split, split.fresh, 0) == {"x": 0, "y": 1}
    assert asked(split) == {"a": [3], "b": [2], "c": [1]}


def test_where_valid_will_arrive_a_model_is_chosen_with_the_older_half_of_it_arrived(tmp_path: Path) -> None:
    """Of three rows two; who has one row is asked for it."""
    more = [*TRAIN, ("d", "w"), ("d", "v"), ("d", "u")]
    found = read_hold_out(written(tmp_path, train=more, valid=[*VALID, ("a", "v"), ("a", "u")]))
    split = found.selection(refit=False)
    assert split.train.digest == found.selection().train.digest
    assert items(split, split.stale, 0) == {"x": 0, "y": 1}
    assert items(split, split.fresh, 0) == {"x": 0, "y": 1, "z": 2, "v": 3}
    names = split.train.catalogue.items.ids
    assert {who: [names[i] for i in of] for who, of in asked(split).items()} == {"a": ["u"], "b": ["y"], "c": ["x"]}


def test_a_model_is_judged_on_test_with_what_train_and_valid_know(hold_out: HoldOut) -> None:
    split = hold_out.refitted()
    assert split.train.positives.nnz == 9
    assert split.stale is split.fresh
    assert items(split, split.fresh, 0) == {"x": 0, "y": 1, "z": 2}
    assert asked(split) == {"a": [0], "b": [0], "c": [3]}


def test_as_production_sees_it_valid_is_history_and_nothing_else(hold_out: HoldOut) -> None:
    split = hold_out.arrived()
    assert split.train.positives.nnz == 6
    assert split.train.popularity.tolist() == [1, 2, 2, 1]
    assert items(split, split.stale, 0) == {"x": 0, "y": 1}
    assert items(split, split.fresh, 0) == {"x": 0, "y": 1, "z": 2}
    assert asked(split) == {"a": [0], "b": [0], "c": [3]}


def test_what_a_model_is_chosen_on_does_not_depend_on_test(hold_out: HoldOut) -> None:
    """Neither what is learnt, nor who is asked, nor which items there are."""
    other = replace(hold_out, test=hold_out.test.head(1).with_columns(item_id=pl.lit("never")))
    one, two = hold_out.selection(), other.selection()
    assert one.train.digest == two.train.digest
    assert one.held_out.toarray().tolist() == two.held_out.toarray().tolist()


def test_what_a_model_is_fitted_on_does_not_depend_on_test(hold_out: HoldOut) -> None:
    other = replace(hold_out, test=hold_out.test.head(1).with_columns(item_id=pl.lit("never")))
    assert hold_out.refitted().train.digest == other.refitted().train.digest
    assert hold_out.arrived().train.digest == other.arrived().train.digest


def test_every_row_counts_as_positive_whatever_its_rating(tmp_path: Path) -> None:
    rated = pl.DataFrame(TRAIN, ["user_id", "item_id"], orient="row").with_columns(rating=pl.Series([1, 5, None, 2, 3]))
    found = read_hold_out(written(tmp_path, train=rated, test=[("a", "z")], valid=[("a", "w"), ("b", "y")]))
    assert found.train["weight"].to_list() == [1.0] * 5
    assert "Ratings are not used (1 are missing or no numbers): every row counts" in " ".join(found.notes)


def test_ratings_that_are_nan_are_counted(tmp_path: Path) -> None:
    rated = pl.DataFrame(TRAIN, ["user_id", "item_id"], orient="row").with_columns(rating=pl.lit(float("nan")))
    files = written(tmp_path, "parquet", train=rated, test=[("a", "z")], valid=[("b", "y")])
    assert "(5 are missing or no numbers)" in " ".join(read_hold_out(files).notes)


def test_rows_that_repeat_a_pair_are_dropped_and_counted(tmp_path: Path) -> None:
    """The newest stays: `a` met `x` at last."""
    found = read_hold_out(written(tmp_path, train=[*TRAIN, ("d", "w"), ("a", "x"), ("a", "x")]))
    assert found.train.height == 6
    split = found.selection()
    assert items(split, split.fresh, 0) == {"y": 1, "x": 3}
    assert any("train.csv: of 8 rows, 2 dropped that repeat a user and item" in note for note in found.notes)


def test_rows_of_test_that_are_in_train_or_valid_are_left_out_and_counted(tmp_path: Path) -> None:
    found = read_hold_out(written(tmp_path, test=[*TEST, ("a", "x"), ("b", "y")], valid=[*VALID, ("c", "y")]))
    assert found.test.height == 3
    assert found.valid.height == 3
    assert any("test.csv: of 5 rows, 2 left out that an earlier file has" in note for note in found.notes)
    assert any("valid.csv: of 4 rows, 1 left out that an earlier file has" in note for note in found.notes)


def test_users_without_history_are_asked_and_counted(tmp_path: Path) -> None:
    found = read_hold_out(written(tmp_path, test=[*TEST, ("new", "x")]))
    split = found.refitted()
    assert split.people.ids == ("a", "b", "c", "new")
    assert items(split, split.fresh, 3) == {}
    (note,) = notes_on(split, "test")
    assert note.startswith("test: of 4 users, 1 without any history that is known: they are served the popular list")


def test_items_that_no_file_before_has_count_as_misses(tmp_path: Path) -> None:
    found = read_hold_out(written(tmp_path, test=[*TEST, ("a", "never")]))
    split = found.refitted()
    assert "never" not in split.train.catalogue.items.ids
    assert asked(split)["a"] == [0, 4]
    (note,) = notes_on(split, "test")
    assert note.startswith("test: of 4 rows, 1 of items that the models have not met: they cannot name them")


def test_as_production_sees_it_items_of_valid_are_not_known_yet(tmp_path: Path) -> None:
    found = read_hold_out(written(tmp_path, valid=[*VALID, ("a", "newer")], test=[*TEST, ("b", "newer")]))
    assert "newer" in found.refitted().train.catalogue.items.ids
    split = found.arrived()
    assert "newer" not in split.train.catalogue.items.ids
    assert items(split, split.fresh, 0) == {"x": 0, "y": 1, "z": 2}
    assert asked(split)["b"] == [0, 4]


def test_moments_decide_where_there_are_some(tmp_path: Path) -> None:
    def dated(rows: list[tuple[str, str]], start: int) -> pl.DataFrame:
        moments = [f"2024-01-{start - place:02}" for place in range(len(rows))]
        return pl.DataFrame(rows, ["user_id", "item_id"], orient="row").with_columns(occurred_at=pl.Series(moments))

    found = read_hold_out(
        written(tmp_path, train=dated([*TRAIN, ("d", "w")], 9), valid=dated(VALID, 15), test=dated(TEST, 31))
    )
    split = found.arrived()
    history = items(split, split.fresh, 0)
    assert sorted(history, key=lambda item: history[item]) == ["y", "x", "z"]
    assert not [note for note in found.notes if "order" in note]


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"train": []}, "train .*train.csv has no rows: models are fitted on it"),
        ({"valid": []}, "valid .*valid.csv has no rows: models are chosen on it, so hold out a part of train"),
        ({"test": []}, "test .*test.csv has no rows: the chosen model is judged on it"),
        ({"valid": TRAIN}, "valid.csv: all rows are in the files before it too: models are chosen on it"),
        ({"test": VALID}, "test.csv: all rows are in the files before it too: the chosen model is judged on it"),
        ({"test": [("A", "w"), ("B", "w")]}, "no user_id of test is in the files before it: write ids the same way"),
        ({"valid": [("a", "X"), ("b", "Y")]}, "no item_id of valid is in the files before it: write ids the same way"),
        ({"test": [("a", "w"), ("", "w")]}, "test.csv: a row has no user_id, the first is row 2: remove"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used_are_named_with_what_to_do(tmp_path: Path, parts: dict[str, Any], why: str) -> None:
    with pytest.raises(BadFile, match=why):
        read_hold_out(written(tmp_path, **{p: _frame(rows) for p, rows in parts.items()}))


def _frame(rows: list[tuple[str, str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, {"user_id": pl.String, "item_id": pl.String}, orient="row")


def test_ids_of_mixed_types_are_refused(tmp_path: Path) -> None:
    whole = pl.DataFrame({"user_id": [1, 2], "item_id": ["w", "w"]})
    with pytest.raises(
        BadFile, match=r"user_id is a whole number in test .* and text in train .*: write the same type"
    ):
        read_hold_out(written(tmp_path, "parquet", test=whole))


@pytest.mark.parametrize(("kind", "expected"), [("csv", pl.Int64), ("parquet", pl.Int32)])
def test_lists_are_written_with_the_ids_of_the_files(tmp_path: Path, kind: str, expected: type[pl.DataType]) -> None:
    """Users in the order of their ids as text; padding is no row."""
    numbers = {"a": 30, "b": 4, "c": 100, "d": 7, "w": 1, "x": 20, "y": 3, "z": 4}
    parts = {}
    for part, rows in (("train", [*TRAIN, ("d", "w")]), ("valid", VALID), ("test", TEST)):
        frame = pl.DataFrame([(numbers[u], numbers[i]) for u, i in rows], ["user_id", "item_id"], orient="row")
        parts[part] = frame.cast(pl.Int32)
    found = read_hold_out(written(tmp_path, kind, **parts))
    split = found.refitted()
    lists = np.array([[0, 1], [2, -1], [3, 0]], np.int32)
    rows = found.recommendations(split, lists, lists.astype(np.float32))
    assert rows.schema == {"user_id": expected, "rank": pl.Int32, "item_id": expected, "score": pl.Float32}
    assert split.train.catalogue.items.ids == ("1", "20", "3", "4")
    assert rows.rows() == [(100, 1, 1, 0.0), (100, 2, 20, 1.0), (30, 1, 3, 2.0), (4, 1, 4, 3.0), (4, 2, 1, 0.0)]


def test_where_lists_cannot_be_written_is_said_beforehand(tmp_path: Path) -> None:
    check_writable(None)
    check_writable(tmp_path / "recs.parquet")
    with pytest.raises(BadFile, match=r"recs.csv: lists are written as parquet, so its name has to end in .parquet"):
        check_writable(tmp_path / "recs.csv")
    with pytest.raises(BadFile, match=r"recs.parquet: there is no such folder: make it first"):
        check_writable(tmp_path / "none/recs.parquet")
