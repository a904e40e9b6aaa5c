"""The search as the job and `marquee tune` make it: what it may look at, and what is kept of it."""

import math
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from infra.lake import Lake
from infra.model_registry import ModelRegistry
from ingest.events import ConsentProjection, Domain
from training import search as search_module
from training.interactions import Column
from training.recency import Recency
from training.recipe import Recipe
from training.run_record import parameters_of
from training.search import TUNING, Found, as_tag, children, default, remembered, search, tune, validation
from training.snapshot import Reading, read_lake
from training.split import NothingHeldOut, Split, split_by_time
from training.tuning import OnTrial, Trial

ONE = Recipe("item_item", {"weighting": "bm25", "neighbours": 7}, Recency(boost=2.0)).whole()
TWO = Recipe("als", {"factors": 16}).whole()


@pytest.fixture
def reading(lake: Lake, consents: ConsentProjection, domain: Domain, landed: pl.DataFrame) -> Reading:
    """Of sixty viewers with tastes."""
    assert landed.height
    return read_lake(lake, consents, domain)


@pytest.mark.parametrize("hold_out", ["time", "last", "random"])
def test_nothing_from_after_the_moment_is_looked_at(reading: Reading, hold_out: str) -> None:
    """Whatever the hold-out to choose on: what the gate asks about must not be in it."""
    cut = split_by_time(reading.events, reading.catalogue, reading.length).cut_ms
    split = validation(reading, cut, hold_out)  # type: ignore[arg-type]
    older = reading.events.rows.filter(pl.col(Column.AT_MS) < cut)
    assert max(int(part.at_ms.max()) for part in (split.train.histories, split.fresh)) < cut
    pairs = split.train.positives.nnz + split.held_out.nnz
    assert pairs <= older.select(Column.USER, Column.ITEM).n_unique()


def test_the_three_hold_outs_are_three(reading: Reading) -> None:
    cut = split_by_time(reading.events, reading.catalogue, reading.length).cut_ms
    splits = [validation(reading, cut, one) for one in ("time", "last", "random")]  # type: ignore[arg-type]
    assert len({(split.cut_ms, split.held_out.nnz, split.held_out.indices.tobytes()) for split in splits}) == 3
    assert splits[1].held_out.nnz == len(splits[1].fresh), "the last item of each person"


def test_training_ends_a_gap_before_the_hold_out(reading: Reading) -> None:
    gap, everything = timedelta(days=10), 2**62
    without, with_one = (validation(reading, everything, "time", of) for of in (timedelta(), gap))
    assert without.cut_ms - with_one.cut_ms == gap.total_seconds() * 1000
    assert int(with_one.train.histories.at_ms.max()) < with_one.cut_ms


def test_a_search_keeps_its_trials_the_best_first(reading: Reading) -> None:
    split = split_by_time(reading.events, reading.catalogue, reading.length)
    told: list[Trial] = []
    found = search(split, 0.0, [ONE], on_trial=told.append)
    assert list(found.trials) == told
    assert ONE in [trial.recipe for trial in found.trials]
    figures = [trial.ndcg for trial in found.best]
    assert figures == sorted(figures, reverse=True)
    assert found.recipe.algorithm in {trial.recipe.algorithm for trial in found.trials}


def test_where_there_is_too_little_the_default_for_the_datas_shape_is_taken(reading: Reading) -> None:
    split = split_by_time(reading.events, reading.catalogue, reading.length)
    found = default(split, NothingHeldOut("too little"))
    assert found.trials == ()
    assert found.recipe == found.recipe.whole()


def test_the_best_recipes_of_the_last_tuning_are_remembered(registry: ModelRegistry) -> None:
    assert remembered(registry) == []
    for recipes in ([TWO], [ONE, TWO]):
        with registry.runs.run(TUNING) as run_id:
            registry.runs.log(run_id, tags=as_tag(Trial(one, 0.5, 1.0, "complete") for one in recipes))
    with pytest.raises(KeyboardInterrupt), registry.runs.run(TUNING):
        raise KeyboardInterrupt
    assert remembered(registry) == [ONE, TWO], "a tuning that was interrupted has none"


def test_a_recipe_that_this_code_cannot_make_is_forgotten(registry: ModelRegistry) -> None:
    strange = [Recipe("als", {"wings": 2}), Recipe("oracle", {}), TWO]
    with registry.runs.run(TUNING) as run_id:
        registry.runs.log(run_id, tags=as_tag(Trial(one, 0.5, 1.0, "complete") for one in strange))
    assert remembered(registry) == [TWO]


def test_trials_become_runs_with_parameters_state_and_seconds() -> None:
    made = children(
        [Trial(ONE, 0.3, 2.0, "complete"), Trial(TWO, 0.1, 0.5, "pruned"), Trial(TWO, math.nan, 0.1, "failed")]
    )
    assert [one.status for one in made] == ["FINISHED", "KILLED", "FAILED"]
    assert made[0].parameters == parameters_of(ONE)
    assert made[0].metrics == {"seconds": 2.0, "ndcg_at_10": 0.3}
    assert made[2].metrics == {"seconds": 0.1}, "what failed has no figure"


def test_only_what_was_judged_to_the_end_is_among_the_best() -> None:
    trials = (Trial(TWO, 0.9, 0.5, "pruned"), Trial(ONE, 0.3, 2.0, "complete"), Trial(TWO, math.nan, 0.1, "failed"))
    assert [one.recipe for one in Found(ONE, trials).best] == [ONE]


def test_a_recipe_that_was_tried_again_is_among_the_best_once() -> None:
    figures = ((ONE, 0.1), (TWO, 0.2), (ONE, 0.31))
    trials = tuple(Trial(recipe, figure, 1.0, "complete") for recipe, figure in figures)
    assert Found(ONE, trials).best == [trials[2], trials[1]]


def test_tuning_is_told_to_the_registry_and_publishes_nothing(
    reading: Reading, registry: ModelRegistry, tmp_path: Path
) -> None:
    found = tune(registry, reading, "last", {"code": "c0ffee"}, seconds=0.0, storage=tmp_path / "trials.db")
    run = registry.runs.of_kind(TUNING)[0]
    assert {"code": "c0ffee", "hold_out": "last", "snapshot_version": "1"}.items() <= run.tags.items()
    assert run.parameters["algorithm"] == found.recipe.algorithm
    assert len(registry.runs.below(run.run_id)) == len(found.trials)
    assert remembered(registry)[0] == found.best[0].recipe
    assert registry.versions() == []


def test_an_interrupted_tuning_keeps_its_trials_and_goes_on_where_it_ended(
    reading: Reading, registry: ModelRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C after the second trial."""
    trials: list[Trial] = []

    def interrupted(split: Split, seconds: float, first: object, storage: Path, on_trial: OnTrial) -> Found:
        def count(trial: Trial) -> None:
            on_trial(trial)
            trials.append(trial)
            if len(trials) == 2:
                raise KeyboardInterrupt

        return search(split, seconds, (), storage, count)

    with monkeypatch.context() as patch:
        patch.setattr(search_module, "search", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tune(registry, reading, "time", {}, seconds=0.0, storage=tmp_path / "trials.db")
    run = registry.runs.of_kind(TUNING)[0]
    assert run.status == "FAILED"
    assert len(registry.runs.below(run.run_id)) == 2
    again = tune(registry, reading, "time", {}, seconds=0.0, storage=tmp_path / "trials.db")
    assert [trial.recipe for trial in again.trials[:2]] == [trial.recipe for trial in trials]
    assert [trial.seconds for trial in again.trials[:2]] == pytest.approx([trial.seconds for trial in trials])
