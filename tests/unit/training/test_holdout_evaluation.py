"""`marquee evaluate`: what it reports, what it writes, and that anybody can compute the figures again from that."""

import io
import math
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from scipy import sparse
from typer.testing import CliRunner

import marquee
from training import holdout_evaluation
from training.algorithms.base import CatalogueTooLarge
from training.comparison import POPULARITY
from training.holdout_evaluation import Report, evaluate_hold_out, unlisted
from training.holdout_files import HoldOutFiles, read_hold_out
from training.recipe import Recipe
from training.report import report_on
from training.search import Found
from training.split import Split
from training.tuning import Trial

KNN = Recipe("item_item", {"neighbours": 20})
PEOPLE, TASTES = 90, 3


def rows() -> Iterator[tuple[str, str, str]]:
    """(part, user_id, item_id): each person's eight to fifteen items, most of one taste, the last ones in test."""
    random = np.random.default_rng(0)
    for person in range(PEOPLE):
        chance = np.where(np.arange(60) % TASTES == person % TASTES, 8.0, 1.0) / np.arange(10, 70)
        items = random.choice(60, random.integers(8, 16), replace=False, p=chance / chance.sum())
        for place, item in enumerate(items):
            part = "train" if place < 5 else "valid" if place < 7 else "test"
            yield part, f"viewer {person}", f"item-{item:02}"
    yield "test", "newcomer", "item-00"
    yield "test", "viewer 0", "item-never-met"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> HoldOutFiles:
    """Three csv files."""
    folder = tmp_path_factory.mktemp("files")
    table = pl.DataFrame(rows(), ["part", "user_id", "item_id"], orient="row")
    for (part,), of_part in table.group_by("part", maintain_order=True):
        of_part.drop("part").write_csv(folder / f"{part}.csv")
    return HoldOutFiles(*(folder / f"{part}.csv" for part in ("train", "valid", "test")))


@pytest.fixture(scope="module")
def report(files: HoldOutFiles) -> Report:
    """Of models that are fitted again."""
    return evaluate_hold_out(read_hold_out(files), budget_seconds=1, ks=(5, 10))


def score(lists: pl.DataFrame, files: HoldOutFiles, k: int) -> dict[str, float]:
    """The metrics of lists (user_id, rank, item_id) in plain Python, from the files alone."""
    wanted, listed = defaultdict(set), defaultdict(list)
    for user, item in pl.read_csv(files.test).iter_rows():
        wanted[user].add(item)
    for user, item in lists.sort("user_id", "rank").select("user_id", "item_id").iter_rows():
        listed[user].append(item)
    sums = dict.fromkeys(("ndcg", "recall", "capped_recall", "map", "mrr"), 0.0)
    for user, items in wanted.items():
        hits = [item in items for item in listed[user][:k]]
        places = [place for place, hit in enumerate(hits, 1) if hit]
        most = min(k, len(items))
        best = sum(1 / math.log2(1 + place) for place in range(1, most + 1))
        sums["ndcg"] += sum(1 / math.log2(1 + place) for place in places) / best
        sums["recall"] += len(places) / len(items)
        sums["capped_recall"] += len(places) / most
        sums["map"] += sum(number / place for number, place in enumerate(places, 1)) / most
        sums["mrr"] += 1 / places[0] if places else 0
    known = {row[1] for file in (files.train, files.valid) for row in pl.read_csv(file).iter_rows()}
    seen = {item for items in listed.values() for item in items[:k]}
    return {name: value / len(wanted) for name, value in sums.items()} | {"coverage": len(seen) / len(known)}


@pytest.mark.parametrize("k", [5, 10])
def test_anybody_can_compute_the_figures_again_from_the_lists(report: Report, files: HoldOutFiles, k: int) -> None:
    again = score(report.recommendations, files, k)
    assert again["ndcg"] > 0.1
    assert {name: report.selected.figures[f"{name}@{k}"].value for name in again} == pytest.approx(again)


def test_everybody_in_test_has_a_list_of_what_they_do_not_have(report: Report, files: HoldOutFiles) -> None:
    lists = report.recommendations
    assert lists.columns == ["user_id", "rank", "item_id", "score"]
    assert lists.group_by("user_id").len()["len"].to_list() == [10] * (PEOPLE + 1)
    assert lists.filter(pl.col("user_id") == "viewer 7")["rank"].to_list() == list(range(1, 11))
    for file in (files.train, files.valid):
        assert lists.join(pl.read_csv(file), on=["user_id", "item_id"], how="semi").is_empty()


def test_newcomers_are_served_the_popular_list_and_counted(report: Report, files: HoldOutFiles) -> None:
    known = pl.concat([pl.read_csv(files.train), pl.read_csv(files.valid)])
    most = known["item_id"].value_counts().sort("count", "item_id", descending=[True, False])["item_id"].head(10)
    assert report.recommendations.filter(pl.col("user_id") == "newcomer")["item_id"].to_list() == most.to_list()
    assert any(f"of {PEOPLE + 1} users, 1 without any history" in note for note in report.notes)
    assert any("1 of items that the models have not met" in note for note in report.notes)


def test_popularity_stands_beside_the_chosen_model_and_one_of_each_other_algorithm(report: Report) -> None:
    others = [one.recipe.algorithm for one in report.others]
    assert report.popularity.recipe.algorithm == "popularity"
    assert others
    assert len({*others, "popularity", report.selected.recipe.algorithm}) == len(others) + 2
    assert report.selected.figures["ndcg@10"].value > 1.2 * report.popularity.figures["ndcg@10"].value
    assert report.selected.stale is None


def test_as_production_sees_it_the_newest_history_helps_and_all_that_people_have_is_masked(files: HoldOutFiles) -> None:
    """The popular list is the same for stale and fresh histories: nobody is shown what they had before test."""
    found = evaluate_hold_out(read_hold_out(files), budget_seconds=1, refit=False)
    assert found.selected.stale is not None
    assert found.selected.figures["ndcg@10"].value > found.selected.stale["ndcg@10"].value
    assert found.popularity.stale == found.popularity.figures
    assert found.recommendations.join(pl.read_csv(files.valid), on=["user_id", "item_id"], how="semi").is_empty()


def test_what_people_hold_by_now_is_masked_and_speaks_for_nothing() -> None:
    told = sparse.csr_matrix(np.array([[0, 2, 0, 0], [0, 0, 0, 0], [3, 0, 0, 1]], np.float32))
    held = sparse.csr_matrix(np.array([[1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 1]], np.float32))
    found = unlisted(told, held)
    assert found.toarray().tolist() == told.toarray().tolist()
    assert found.indices.tolist() == held.indices.tolist()


def test_an_algorithm_that_is_not_made_for_so_many_items_is_left_out_with_its_reason(
    files: HoldOutFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = (Trial(KNN, 0.2, 0.1, "complete"), Trial(Recipe("ease", {"max_items": 5}), 0.1, 0.1, "complete"))
    monkeypatch.setattr(holdout_evaluation, "search", lambda *_: Found(KNN, trials))
    found = evaluate_hold_out(read_hold_out(files), budget_seconds=1)
    assert found.selected.recipe == KNN.whole()
    assert not found.others
    assert any(note.startswith("ease is left out: 60 items are more than the 5") for note in found.notes)
    monkeypatch.setattr(holdout_evaluation, "search", lambda *_: Found(trials[1].recipe, trials))
    with pytest.raises(CatalogueTooLarge):
        evaluate_hold_out(read_hold_out(files), budget_seconds=1)


@pytest.mark.parametrize("refit", [True, False])
def test_a_model_is_chosen_on_valid_with_what_train_knows(
    files: HoldOutFiles, monkeypatch: pytest.MonkeyPatch, refit: bool
) -> None:
    """In the way in which test will be asked about: of everybody's two rows in valid one has arrived, or none has."""
    shown: list[Split] = []

    def search(split: Split, seconds: float) -> Found:
        shown.append(split)
        return Found(KNN, ())

    monkeypatch.setattr(holdout_evaluation, "search", search)
    hold_out = read_hold_out(files)
    evaluate_hold_out(hold_out, budget_seconds=7, refit=refit)
    (split,) = shown
    assert split.train.digest == hold_out.selection().train.digest
    assert split.held_out.nnz == (2 if refit else 1) * PEOPLE
    assert split.stale.user_items.nnz == hold_out.train.height == 5 * PEOPLE
    assert (split.fresh.user_items.nnz > 5 * PEOPLE) is not refit


def test_the_best_of_each_algorithm_is_judged(files: HoldOutFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials come the best first; popularity stands there plain, whatever was tried of it."""
    worse = Recipe("item_item", {"neighbours": 5})
    tried = ((worse, 0.1), (Recipe("popularity", {"half_life_days": 3.0}), 0.15), (KNN, 0.2))
    found = Found(Recipe("gf_cf", {"factors": 8}), tuple(Trial(r, n, 0.1, "complete") for r, n in tried))
    monkeypatch.setattr(holdout_evaluation, "search", lambda *_: found)
    report = evaluate_hold_out(read_hold_out(files), budget_seconds=1)
    assert [one.recipe for one in report.others] == [KNN.whole()]
    assert report.popularity.recipe == POPULARITY.whole()


def test_the_report_has_every_metric_of_every_model_at_every_length(report: Report) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    for part in report_on(report, (5, 10)):
        console.print(part)
    printed = console.export_text()
    for name in ("ndcg", "recall", "capped_recall", "map", "mrr", "coverage", "gini", "novelty", "mean_popularity"):
        assert f"\n {name} " in printed
        for one in (report.selected, report.popularity, *report.others):
            for k in (5, 10):
                figure = one.figures[f"{name}@{k}"]
                assert f"{figure.value:.4f} [{figure.low:.4f}, {figure.high:.4f}]" in printed
    assert all(note in " ".join(printed.split()) for note in map(" ".join, map(str.split, report.notes)))


def evaluate(files: HoldOutFiles, *more: str) -> list[str]:
    named = zip(("--train", "--valid", "--test"), map(str, files), strict=True)
    return ["evaluate", *(word for pair in named for word in pair), "--budget", "1", *more]


def test_the_command_prints_the_report_and_writes_the_lists(files: HoldOutFiles, tmp_path: Path) -> None:
    """In a folder where nothing else is. Progress is on stderr, the result on stdout."""
    out = tmp_path / "recs.parquet"
    command = [sys.executable, "-m", "marquee", *evaluate(files, "--k", "3", "7", "--out", str(out))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    again = score(pl.read_parquet(out), files, 7)
    assert f"{again['ndcg']:.4f} [" in done.stdout
    assert "@3" in done.stdout
    assert "@7" in done.stdout
    assert "choosing on valid" not in done.stdout
    assert "choosing on valid" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recs.parquet"]


def test_the_command_says_what_is_wrong_and_fails(files: HoldOutFiles, tmp_path: Path) -> None:
    (tmp_path / "valid.csv").write_text("user_id,item_id\n")
    bad = files._replace(valid=tmp_path / "valid.csv")
    command = [sys.executable, "-m", "marquee", *evaluate(bad)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "has no rows: models are chosen on it, so hold out a part of train" in done.stderr
    assert not done.stdout


@pytest.mark.parametrize("words", [("5",), ("--k", "3", "x"), ("--k", "3", "0"), ("--k", "0"), ("--k", "x")])
def test_list_lengths_are_whole_numbers_after_k(files: HoldOutFiles, words: tuple[str, ...]) -> None:
    assert CliRunner().invoke(marquee.app, evaluate(files, *words)).exit_code == 2
