"""The plots of a model card: what they group, and that they are pictures whatever the hold-out."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from training.comparison import POPULARITY, Comparison, compare
from training.interactions import read_catalogue, read_events
from training.plots import (
    EDGES,
    FEWEST,
    activity_groups,
    plot_activity,
    plot_history,
    plot_popularity,
    popularity_groups,
)
from training.recipe import Recipe
from training.run_record import Point
from training.split import Split, split_by_time

PNG = b"\x89PNG\r\n\x1a\n"

Viewers = Callable[..., pl.DataFrame]


@pytest.fixture(scope="module")
def split(viewers: Viewers) -> Split:
    """Sixty viewers with tastes."""
    events = read_events(viewers().lazy(), {"play": 1.0})
    return split_by_time(events, read_catalogue(None, events), 100)


@pytest.fixture(scope="module", params=[None, POPULARITY], ids=["without a champion", "with a champion"])
def comparison(split: Split, request: pytest.FixtureRequest) -> Comparison:
    return compare(split, Recipe("item_item", {"weighting": "tfidf"}), request.param)


def test_plots_are_pictures_and_the_same_each_time(comparison: Comparison, split: Split) -> None:
    for plot in (plot_activity, plot_popularity):
        assert plot(comparison, split).startswith(PNG)
        assert plot(comparison, split) == plot(comparison, split)


@pytest.mark.parametrize(
    "points",
    [
        [Point(1, 0.0, 0.0, True)],
        [Point(4, 0.2, 0.1, False)],
        [Point(version, 0.2, 0.1, version % 2 == 0) for version in range(1, 60)],
    ],
    ids=["nothing is right", "one version, refused", "many versions"],
)
def test_the_history_is_a_picture_however_long(points: list[Point]) -> None:
    assert plot_history(points).startswith(PNG)


@pytest.mark.parametrize("seed", range(20))
def test_everybody_is_in_one_group_of_activity_and_no_group_is_small(seed: int) -> None:
    random = np.random.default_rng(seed)
    lengths = random.geometric(random.uniform(0.01, 0.4), size=int(random.integers(1, 400)))
    groups = activity_groups(lengths)
    assert sorted(np.concatenate(list(groups.values())).tolist()) == list(range(len(lengths)))
    assert all(len(people) >= min(FEWEST, len(lengths)) for people in groups.values())
    for name, people in groups.items():
        low, _, high = name.partition(" to ")
        assert int(low) <= lengths[people].min() <= lengths[people].max() <= int(high or low)


def test_histories_longer_than_the_last_edge_have_a_group() -> None:
    assert list(activity_groups(np.full(9, EDGES[-1] + 300))) == [f"{EDGES[-1] + 300}"]


def test_each_group_of_items_has_about_a_tenth_of_all_interactions() -> None:
    popularity = np.sort(np.random.default_rng(0).geometric(0.02, 2000)).astype(np.float32)
    groups = popularity_groups(popularity)
    shares = np.bincount(groups, weights=popularity, minlength=10) / popularity.sum()
    assert shares == pytest.approx(0.1, abs=0.01)
    assert groups[-1] == 0, "the most popular item"
    assert popularity_groups(np.zeros(5, np.float32)).tolist() == [9] * 5
