"""The best recipe on a validation hold-out."""

from collections.abc import Callable

import polars as pl
import pytest

from training.comparison import POPULARITY
from training.interactions import read_catalogue, read_events
from training.recipe import Recipe
from training.split import Split, split_by_time
from training.tuning import select


@pytest.fixture(scope="module")
def split(viewers: Callable[..., pl.DataFrame]) -> Split:
    """Sixty viewers with tastes."""
    events = read_events(viewers().lazy(), {"play": 1.0})
    return split_by_time(events, read_catalogue(None, events), 100)


def test_the_better_candidate_is_chosen_whatever_the_order(split: Split) -> None:
    tfidf = Recipe("item_item", {"weighting": "tfidf"})
    for candidates in ((POPULARITY, tfidf), (tfidf, POPULARITY)):
        assert select(split, candidates) == tfidf.whole()
