"""The people that recipes are compared on."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from training.comparison import POPULARITY
from training.evaluation import evaluate, fit
from training.interactions import read_catalogue, read_events
from training.panel import gain, judge, sample
from training.recency import UNWEIGHTED
from training.split import Split, split_by_time


@pytest.fixture(scope="module")
def split(viewers: Callable[..., pl.DataFrame]) -> Split:
    events = read_events(viewers().lazy(), {"play": 1.0})
    return split_by_time(events, read_catalogue(None, events), 100)


def test_a_sample_asks_the_same_people_about_the_same_items(split: Split) -> None:
    some = sample(split, 10)
    assert len(some.people.ids) == len(some.fresh) == len(some.stale) == some.held_out.shape[0] == 10
    for row, person in enumerate(some.people.ids):
        place = split.people.index[person]
        assert (some.held_out[row] != split.held_out[place]).nnz == 0
        assert (some.fresh.user_items[row] != split.fresh.user_items[place]).nnz == 0
        assert (some.stale.user_items[row] != split.stale.user_items[place]).nnz == 0
    assert some.train is split.train


def test_the_same_people_are_drawn_every_time(split: Split) -> None:
    assert sample(split, 10).people == sample(split, 10).people


def test_where_there_are_no_more_all_are_asked(split: Split) -> None:
    assert sample(split, 1000) is split


def test_people_are_judged_as_the_evaluation_does(split: Split) -> None:
    model = fit(POPULARITY, split.train)
    assert judge(model, split, UNWEIGHTED).tolist() == evaluate(POPULARITY, split).fresh.ndcg().tolist()


def test_a_gain_of_one_person_is_not_certain() -> None:
    assert not gain(np.array([1.0]), np.array([0.0])).certain


def test_a_gain_that_is_the_same_for_all_is_certain_and_none_is_not() -> None:
    assert gain(np.full(9, 0.6), np.full(9, 0.5)).certain
    assert not gain(np.full(9, 0.5), np.full(9, 0.5)).certain
