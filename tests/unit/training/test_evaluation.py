"""A recipe is fitted on what it may know, and its lists are judged as they are served."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from training.bundle import Indices, Scores
from training.comparison import POPULARITY
from training.evaluation import evaluate, fit, rank
from training.interactions import Catalogue, IdMap, Interactions, read_catalogue, read_events
from training.recency import Histories
from training.recipe import Recipe
from training.split import Split, split_by_time

LOG2_3 = float(np.log2(3))


def csr(rows: list[list[float]]) -> sparse.csr_matrix:
    return sparse.csr_matrix(np.array(rows, np.float32))


def histories(rows: list[list[float]]) -> Histories:
    return Histories(csr(rows), np.zeros(csr(rows).nnz, np.int64))


class Fixed:
    """Recommends the same list to everybody, and remembers which rows it was asked about."""

    def __init__(self, items: list[int]) -> None:
        self.items = items
        self.asked: list[sparse.csr_matrix] = []

    def recommend(self, user_items: sparse.csr_matrix, k: int) -> tuple[Indices, Scores]:
        self.asked.append(user_items)
        row = np.full(k, -1, np.int32)
        row[: len(self.items[:k])] = self.items[:k]
        return np.tile(row, (user_items.shape[0], 1)), np.zeros((user_items.shape[0], k), np.float32)

    def similar_items(self, item_index: int, k: int) -> tuple[Indices, Scores]:
        raise NotImplementedError

    def contributions(self, user_items: sparse.csr_matrix, item_index: int) -> Scores:
        raise NotImplementedError


@pytest.fixture
def split() -> Split:
    """Five items, a ten times popular one first; two people, one of them new."""
    items = Catalogue(IdMap(tuple("abcde")), ({},) * 5)
    people = [(user, 0, 0, 1.0, 1) for user in range(3)] + [(3, 1, 0, 1.0, 1)]
    schema = {
        "user_index": pl.Int32,
        "item_index": pl.Int32,
        "at_ms": pl.Int64,
        "weight": pl.Float64,
        "receipt": pl.Int64,
    }
    rows = pl.DataFrame(people, schema=schema, orient="row")
    train = Interactions.of(IdMap(tuple("pqrs")), items, rows)
    stale = histories([[1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    fresh = histories([[1, 1, 0, 0, 0], [0, 0, 0, 0, 1]])
    held_out = csr([[0, 0, 1, 0, 0], [1, 0, 0, 1, 0]])
    return Split(0, train, stale, fresh, held_out, IdMap(("p", "q")))


def test_a_model_is_judged_by_hand(split: Split) -> None:
    """The list is c, d, then popular ones. p lacks c: a hit in place 1. q wants a and d: in places 3 and 2."""
    found = rank(Fixed([2, 3]), split, split.fresh.user_items)
    q = (1 / LOG2_3 + 1 / 2) / (1 + 1 / LOG2_3)
    assert found.ndcg().tolist() == pytest.approx([1, q])
    assert found.recall().tolist() == [1, 1]
    assert found.coverage() == 1


def test_a_history_that_says_nothing_is_judged_by_the_popular_list(split: Split) -> None:
    """With the stale history q is a newcomer and gets a, b, c, d, e; the model is asked about p alone."""
    model = Fixed([2, 3])
    found = rank(model, split, split.stale.user_items)
    best = 1 + 1 / LOG2_3
    q = (1 + 1 / np.log2(5)) / best
    assert found.ndcg().tolist() == pytest.approx([1, q])
    assert [asked.shape[0] for asked in model.asked] == [1]


def test_popularity_is_counted_before_the_cut_and_judged_the_same_way(split: Split) -> None:
    """p holds a and b, so c is first; q holds e, so a is first and d fourth."""
    fresh = evaluate(POPULARITY, split).fresh
    q = (1 + 1 / np.log2(5)) / (1 + 1 / LOG2_3)
    assert fresh.ndcg().tolist() == pytest.approx([1, q])
    assert fresh.recall().tolist() == [1, 1]


def test_a_model_is_fitted_on_positives_from_before_the_cut(split: Split) -> None:
    """Items that were seen but speak for nothing are in the histories, and in nothing that is learnt from."""
    train = split.train
    disliked = train.rows.with_columns(weight=pl.when(pl.col("user_index") == 3).then(0.0).otherwise(pl.col("weight")))
    sour = replace(split, train=Interactions.of(train.users, train.catalogue, disliked))
    assert sour.train.user_items.nnz == 4
    assert fit(POPULARITY, sour.train).arrays()["popularity"].tolist() == [3, 0, 0, 0, 0]


def test_figures_have_names(split: Split) -> None:
    assert set(evaluate(POPULARITY, split).fresh.figures("popularity_")) == {
        "popularity_ndcg_at_10",
        "popularity_recall_at_20",
        "popularity_coverage_at_10",
        "popularity_novelty_at_10",
    }


def test_on_viewers_with_tastes_a_model_beats_popularity_and_fresh_beats_stale(
    viewers: Callable[..., pl.DataFrame],
) -> None:
    """The floor: every candidate finds the tastes that were put in."""
    events = read_events(viewers(200).lazy(), {"play": 1.0})
    split = split_by_time(events, read_catalogue(None, events), 100)
    popular = evaluate(POPULARITY, split).fresh.ndcg().mean()
    for recipe in (Recipe("als", {}), Recipe("item_item", {})):
        found = evaluate(recipe, split)
        assert found.fresh.ndcg().mean() > 1.5 * popular
        assert found.fresh.ndcg().mean() > found.stale.ndcg().mean()
