"""Weights of blends: found on scores, and worth what the blend itself is worth."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from training.algorithms.base import Algorithm
from training.blending import Scored, best_weights, score
from training.evaluation import evaluate, fit
from training.interactions import read_catalogue, read_events
from training.recency import UNWEIGHTED, Recency
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
    assert score(models, split, UNWEIGHTED).wanted.tolist() == np.diff(split.held_out.indptr).tolist()
