"""The challenger, popularity and the champion on one hold-out."""

from collections.abc import Callable

import polars as pl
import pytest

from training.comparison import POPULARITY, compare
from training.interactions import read_catalogue, read_events
from training.recipe import Recipe
from training.split import Split, split_by_time

TFIDF = Recipe("item_item", {"weighting": "tfidf"})


@pytest.fixture(scope="module")
def split(viewers: Callable[..., pl.DataFrame]) -> Split:
    """Sixty viewers with tastes."""
    events = read_events(viewers().lazy(), {"play": 1.0})
    return split_by_time(events, read_catalogue(None, events), 100)


def test_the_champion_is_judged_by_its_recipe_on_the_same_events(split: Split) -> None:
    """It must not be judged by its bundle, which has been fitted on what is held out."""
    again = compare(split, TFIDF, TFIDF.whole())
    assert again.champion is again.challenger
    other = compare(split, TFIDF, POPULARITY)
    assert other.champion is not None
    assert other.champion.fresh.ndcg().tolist() == again.popularity.fresh.ndcg().tolist()


def test_without_a_champion_there_is_nothing_of_it_in_the_figures(split: Split) -> None:
    without, with_one = compare(split, TFIDF, None).metrics(), compare(split, TFIDF, POPULARITY).metrics()
    assert not [name for name in without if name.startswith("champion")]
    assert with_one["champion_ndcg_at_10"] == with_one["popularity_ndcg_at_10"]
    assert {"ndcg_at_10", "recall_at_20", "stale_ndcg_at_10", "coverage_at_10", "novelty_at_10"} <= without.keys()
