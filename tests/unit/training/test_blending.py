"""Weights of blends: found on scores, and worth what the blend itself is worth."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from training.algorithms.base import Algorithm
from training.blending import Scored, best_weights, score
from training.evaluation import evaluate, fit
from training.interactions import read_catalogue, read_events
from training.recency import UNWEIGHTED, Histories, Recency
from training.recipe import Recipe
from training.split import Split, split_by_time
from training.tuning import blended

PARTS = (Recipe("item_item", {}), Recipe("ease", {"regularization": 5.0}), Recipe("gf_cf", {"factors": 3}))


@pytest.fixture(scope="module")
def split(viewers: Callable[..., pl.DataFrame]) -> Split:
    events = read_events(viewers(100).lazy(), {"play": 1.0})
    return split_by_time(events, read_catalogue(None, events), 100)


@pytest.fixture(scope="module")
def models(split: Split) -> list[Algorithm]:
    return [fit(recipe, split.train) for recipe in PARTS]


@pytest.mark.parametrize("weights", [(0.5, 0.3, 0.2), (0.9, 0.1, 0.0), (0.2, 0.4, 0.4)])
@pytest.mark.parametrize("recency", [UNWEIGHTED, Recency(boost=8, half_life=0.1)])
def test_a_blend_is_worth_what_its_cached_scores_say(
    split: Split, models: list[Algorithm], weights: tuple[float, ...], recency: Recency
) -> None:
    parts = [(one._replace(recency=recency), weight) for one, weight in zip(PARTS, weights, strict=True) if weight]
    cached = score(models, split, recency).ndcg(weights)
    assert cached == pytest.approx(evaluate(blended(parts), split).fresh.ndcg(), abs=1e-6)


def of(*scores: list[list[float]], hits: list[list[bool]]) -> Scored:
    """Scores of models for 40 people whose rows repeat."""
    found = np.array(scores, np.float32)
    times = 40 // found.shape[1]
    many = np.tile(found, (1, times, 1))
    wide = np.pad(many, ((0, 0), (0, 0), (0, 10)), constant_values=-np.inf)
    flags = np.pad(np.tile(np.array(hits), (times, 1)), ((0, 0), (0, 10)))
    return Scored(wide, flags, flags.sum(axis=1))


def test_two_models_that_know_different_things_are_blended() -> None:
    """Each has the one hit second in half of the rows, and only the sum has it first in all."""
    one = [[3.0, 2.9, 0.0], [0.0, 2.9, 0.0]]
    other = [[0.0, 2.9, 0.0], [3.0, 2.9, 0.0]]
    weights = best_weights(of(one, other, hits=[[False, True, False]] * 2))
    assert min(weights) > 0
    assert sum(weights) == pytest.approx(1)


def test_a_model_that_adds_nothing_has_no_weight() -> None:
    good = [[3.0, 2.0, 1.0], [1.0, 3.0, 2.0]]
    assert best_weights(of(good, good, hits=[[True, False, False], [False, True, False]])) in ([1.0, 0.0], [0.0, 1.0])


def test_the_best_of_them_is_where_it_starts() -> None:
    bad, good = [[1.0, 2.0, 3.0]] * 2, [[3.0, 2.0, 1.0]] * 2
    assert best_weights(of(bad, good, hits=[[True, False, False]] * 2)) == [0.0, 1.0]


def test_what_a_person_has_is_not_a_candidate(split: Split, models: list[Algorithm]) -> None:
    scored = score(models, split, UNWEIGHTED)
    held = np.diff(split.fresh.user_items.indptr)
    items = split.fresh.user_items.shape[1]
    assert (np.isfinite(scored.scores[0]).sum(axis=1) <= items - held).all()


def test_items_that_training_never_met_stay_among_what_is_wanted(split: Split, models: list[Algorithm]) -> None:
    unmet = sparse.csr_matrix(np.ones((len(split.fresh), 2), np.float32))
    more = replace(split, held_out=sparse.csr_matrix(sparse.hstack([split.held_out, unmet])))
    assert score(models, more, UNWEIGHTED).wanted.tolist() == (np.diff(split.held_out.indptr) + 2).tolist()


def noisy(better: int, worse: int) -> Scored:
    """A thousand people: the first model has every hit second; with the second, some have it first and some third."""
    one = np.tile(np.array([[2.0, 1.0, 0.0]], np.float32), (1000, 1))
    other = np.tile(np.array([[0.02, 0.0, 0.01]], np.float32), (1000, 1))
    other[:better, 1] = 30.0
    other[better : better + worse, 2] = 30.0
    hits = np.tile(np.array([[False, True, False]]), (1000, 1))
    wide = np.pad(np.stack([one, other]), ((0, 0), (0, 0), (0, 10)), constant_values=-np.inf)
    return Scored(wide, np.pad(hits, ((0, 0), (0, 10))), hits.sum(axis=1))


def test_a_part_has_to_gain_enough() -> None:
    assert best_weights(noisy(better=5, worse=0)) == [1.0, 0.0]
    assert best_weights(noisy(better=100, worse=0))[1] > 0


def test_a_part_has_to_gain_surely() -> None:
    """A tenth of the people gain much and a quarter lose some: a little better on the whole, which may be chance."""
    found = noisy(better=100, worse=250)
    gained = found.ndcg([0.5, 0.5]) - found.ndcg([1.0, 0.0])
    assert gained.mean() > 0.004 * found.ndcg([1.0, 0.0]).mean()
    assert gained.mean() < 2 * gained.std() / np.sqrt(1000)
    assert best_weights(found) == [1.0, 0.0]


def test_what_was_seen_but_speaks_for_nothing_is_neither_asked_with_nor_listed(split: Split) -> None:
    user_items = split.fresh.user_items.copy()
    user_items.data[user_items.indptr[:-1]] = 0
    seen = replace(split, fresh=Histories(user_items, split.fresh.at_ms))
    parts = (Recipe("als", {"factors": 4}), Recipe("ease", {"regularization": 5.0}))
    cached = score([fit(one, split.train) for one in parts], seen, UNWEIGHTED).ndcg((0.5, 0.5))
    served = evaluate(blended([(one, 0.5) for one in parts]), seen).fresh.ndcg()
    assert cached == pytest.approx(served, abs=1e-6)
