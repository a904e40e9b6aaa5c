"""The best recipe on a validation hold-out: what is tried, what is chosen, and that a search goes on where it ended."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from training.algorithms.base import Algorithm
from training.comparison import POPULARITY
from training.evaluation import evaluate
from training.interactions import read_catalogue, read_events
from training.recency import UNWEIGHTED, Recency
from training.recipe import Recipe
from training.search_bar import SearchBar
from training.search_space import default_recipes, shape_of
from training.split import Split, split_by_time
from training.study import Study, key
from training.tuning import MOST_BLENDED, Search, Trial, select, worth_it

Rows = Callable[..., pl.DataFrame]


@pytest.fixture(scope="module")
def split(viewers: Rows) -> Split:
    """Sixty viewers with tastes."""
    events = read_events(viewers().lazy(), {"play": 1.0})
    return split_by_time(events, read_catalogue(None, events), 100)


@pytest.fixture(scope="module")
def moving(event_rows: Rows) -> Split:
    """Eighty viewers who play twelve items of one taste, and then move on to another for good."""
    random = np.random.default_rng(0)
    acts = []
    for person in range(80):
        tastes = random.permutation(4)[:2]
        for place, taste in enumerate(tastes):
            acts += [
                (f"u{person:02}", f"m{taste}-{item:02}", place * 1000 + minute)
                for minute, item in enumerate(random.permutation(20)[:12])
            ]
    events = read_events(event_rows(sorted(acts, key=lambda act: act[2])).lazy(), {"play": 1.0})
    return split_by_time(events, read_catalogue(None, events), 100, quantile=0.6)


def tried(split: Split, **words: object) -> tuple[Recipe, list[Trial]]:
    """What is chosen, and the trials."""
    trials: list[Trial] = []
    return select(split, on_trial=trials.append, **words), trials  # type: ignore[arg-type]


def test_without_time_one_recipe_of_each_algorithm_is_judged(split: Split) -> None:
    defaults = default_recipes(shape_of(split.train.positives))
    chosen, trials = tried(split)
    assert [one.recipe.algorithm for one in trials[: len(defaults)]] == [one.algorithm for one in defaults]
    assert {one.recipe._replace(recency=UNWEIGHTED) for one in map(hashable, trials)} == {
        hashable(Trial(one.whole(), 0, 0, "")).recipe for one in defaults
    }
    assert chosen.algorithm not in ("popularity", "blend")


def hashable(trial: Trial) -> Trial:
    """The same trial; its parameters as a tuple."""
    return trial._replace(recipe=trial.recipe._replace(parameters=tuple(sorted(trial.recipe.parameters.items()))))  # type: ignore[arg-type]


def test_the_best_one_is_chosen(split: Split) -> None:
    chosen, trials = tried(split)
    plain = [one for one in trials if one.recipe.recency == UNWEIGHTED]
    assert key(chosen) == key(max(plain, key=lambda one: one.ndcg).recipe)


def test_what_a_trial_says_is_what_the_evaluation_says(split: Split) -> None:
    _, trials = tried(split)
    for trial in trials:
        assert trial.ndcg == pytest.approx(evaluate(trial.recipe, split).fresh.ndcg().mean())


def test_recipes_that_were_good_before_are_judged_first(split: Split) -> None:
    before = Recipe("item_item", {"weighting": "bm25", "neighbours": 7})
    _, trials = tried(split, first=[before])
    assert trials[0].recipe == before.whole()


def test_with_time_the_algorithms_near_the_best_are_searched_and_the_best_are_blended(split: Split) -> None:
    defaults = {key(one) for one in default_recipes(shape_of(split.train.positives))}
    _, trials = tried(split, seconds=3.0)
    searched = [one for one in trials if key(one.recipe) not in defaults and one.recipe.algorithm != "blend"]
    best = max(one.ndcg for one in trials)
    assert len({one.recipe.algorithm for one in searched}) >= 2
    assert "popularity" not in {one.recipe.algorithm for one in searched}
    assert trials[-1].ndcg >= best - 0.03


def test_a_search_that_goes_on_repeats_nothing_and_tells_what_it_remembers(split: Split, tmp_path: Path) -> None:
    storage = tmp_path / "new" / "trials.log"
    first, told = tried(split, storage=storage)
    known = told[: len(default_recipes(shape_of(split.train.positives)))]
    search, again = resumed(split, storage)
    search.judge_all(default_recipes(shape_of(split.train.positives)))
    assert [(key(a.recipe), a.seconds, a.state) for a in again] == [(key(b.recipe), b.seconds, b.state) for b in known]
    assert tried(split, storage=storage)[0] == first


def resumed(split: Split, storage: Path) -> tuple[Search, list[Trial]]:
    """A search that starts from what is stored, and what it tells."""
    told: list[Trial] = []
    return Search(split, Study(split, storage), SearchBar(0), told.append), told


def test_a_search_on_other_data_does_not_take_over_trials(split: Split, moving: Split, tmp_path: Path) -> None:
    tried(split, storage=tmp_path / "trials.log")
    assert not resumed(moving, tmp_path / "trials.log")[1]


def test_a_recipe_that_its_catalogue_is_too_large_for_is_passed_over(split: Split) -> None:
    refused = Recipe("ease", {"max_items": 3})
    chosen, trials = tried(split, first=[refused])
    assert (trials[0].recipe, trials[0].state) == (refused.whole(), "failed")
    assert math.isnan(trials[0].ndcg)
    assert key(chosen) != key(refused)


def test_a_fit_that_promises_nothing_is_ended_early(split: Split) -> None:
    """After four good fits, one whose vectors are pulled to nothing."""
    good = [Recipe("ials", {"factors": 8, "iterations": 8, "seed": seed}).whole() for seed in range(5)]
    bad = Recipe("ials", {"factors": 1, "regularization": 50.0, "iterations": 8}).whole()
    search = Search(split, study := Study(split, None), SearchBar(0), None)
    states, far = [], time.monotonic() + 1000
    for recipe in (*good, bad):
        asked = study.ask()
        trial, _ = search._judged(recipe, search._watch(asked, recipe, far))
        study.tell(asked, trial)
        states.append(trial.state)
    assert states[0] == "complete"
    assert states[-1] == "pruned"


def test_a_fit_that_takes_too_long_is_ended(split: Split) -> None:
    rounds: list[int] = []
    search = Search(split, study := Study(split, None), SearchBar(0), None)
    recipe = Recipe("ials", {"factors": 8, "iterations": 50})
    look = search._watch(study.ask(), recipe, time.monotonic())

    def counted(model: Algorithm, done: int) -> None:
        rounds.append(done)
        look(model, done)

    trial, _ = search._judged(recipe, counted)
    assert (rounds, trial.state) == ([1], "pruned")


def test_who_moved_on_is_asked_by_what_is_newest(moving: Split) -> None:
    chosen, _ = tried(moving)
    assert chosen.recency.boost > 0
    plain = evaluate(chosen._replace(recency=UNWEIGHTED), moving).fresh.ndcg().mean()
    assert evaluate(chosen, moving).fresh.ndcg().mean() > 1.1 * plain


def test_where_order_says_nothing_histories_stay_unweighted(split: Split) -> None:
    assert tried(split)[0].recency == UNWEIGHTED


def test_a_champion_keeps_its_recency_where_nothing_is_better(moving: Split) -> None:
    best = tried(moving)[0]
    champion = best._replace(recency=Recency(boost=30.0, half_life=0.3))
    assert tried(moving, first=[champion])[1][0].recipe == champion.whole()


def test_a_blend_has_no_blend_among_its_parts(split: Split) -> None:
    parts = [{"algorithm": name, "parameters": {}, "weight": 0.5} for name in ("item_item", "ease")]
    search = Search(split, Study(split, None), SearchBar(0), None)
    search.judge_all([Recipe("blend", {"parts": parts}), *default_recipes(shape_of(split.train.positives))])
    names = [best.trial.recipe.algorithm for best in search._parts()]
    assert "blend" not in names
    assert 2 <= len(names) <= MOST_BLENDED


def test_a_blend_of_before_is_kept_where_nothing_found_is_better(split: Split) -> None:
    parts = [{"algorithm": name, "parameters": {}, "weight": 0.5} for name in ("item_item", "ease")]
    before = Trial(Recipe("blend", {"parts": parts}).whole(), 0.99, 0.0, "complete")
    search = Search(split, Study(split, None), SearchBar(0), None)
    search.judge_all(default_recipes(shape_of(split.train.positives)))
    search._keep(before, None)
    assert search.blend() == before.recipe


def test_what_is_searched_is_judged_with_the_recency_that_was_found(moving: Split) -> None:
    _, trials = tried(moving, seconds=2.0)
    weighed = max(place for place, one in enumerate(trials) if one.recipe.algorithm == "popularity")
    assert len(trials) > weighed + 12
    assert all(one.recipe.recency.boost for one in trials[weighed + 12 :])


@pytest.mark.parametrize(
    ("gained", "worth"), [([0.0] * 100, False), ([0.001] * 100, False), ([0.01] * 100, True), ([9, -8.9] * 50, False)]
)
def test_what_is_more_complicated_has_to_be_better_by_enough_and_surely(gained: list[float], worth: bool) -> None:
    over = np.full(100, 0.5)
    assert worth_it(over + np.array(gained), over) is worth


def test_popularity_is_a_recipe_like_any_other(split: Split) -> None:
    _, trials = tried(split)
    assert POPULARITY.whole() in [one.recipe for one in trials]
