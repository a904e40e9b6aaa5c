"""Recipes compared on one hold-out."""

from collections.abc import Callable

import polars as pl
import pytest

from training.interactions import read_catalogue, read_events
from training.split import Split, split_by_time
from training.tuning import CANDIDATES, Recipe, compare

POPULARITY = Recipe("popularity", {})


@pytest.fixture(scope="module")
def split(viewers: Callable[..., pl.DataFrame]) -> Split:
    """Sixty viewers with tastes."""
    events = read_events(viewers().lazy(), {"play": 1.0})
    return split_by_time(events, read_catalogue(None, events), 100)


def test_the_better_candidate_is_chosen_whatever_the_order(split: Split) -> None:
    tfidf = Recipe("item_item", {"weighting": "tfidf"})
    for candidates in ((POPULARITY, tfidf), (tfidf, POPULARITY)):
        found = compare(split, None, candidates)
        assert found.best == tfidf.whole()
        assert found.challenger.fresh.ndcg_at_10 > found.popularity.fresh.ndcg_at_10


def test_the_champion_is_judged_by_its_recipe_on_the_same_events(split: Split) -> None:
    """It must not be judged by its bundle, which has been fitted on what is held out."""
    best = compare(split, None).best
    again = compare(split, best)
    assert again.champion == again.challenger
    assert compare(split, POPULARITY).champion == again.popularity


def test_without_a_champion_there_is_nothing_of_it_in_the_figures(split: Split) -> None:
    without, with_one = compare(split, None).metrics(), compare(split, POPULARITY).metrics()
    assert not [name for name in without if name.startswith("champion")]
    assert with_one["champion_ndcg_at_10"] == with_one["popularity_ndcg_at_10"]
    assert {"ndcg_at_10", "recall_at_20", "stale_ndcg_at_10", "coverage_at_10", "novelty_at_10"} <= without.keys()


def test_a_recipe_that_leaves_parameters_out_is_the_one_that_names_them() -> None:
    assert Recipe("als", {}).whole() == Recipe("als", Recipe("als", {}).make().parameters)
    assert all(recipe.whole().parameters.keys() >= recipe.parameters.keys() for recipe in CANDIDATES)
