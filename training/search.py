"""The search for a recipe, as the job and `marquee tune` make it: where it looks, what it tries first, what is kept."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson
import structlog

from infra.model_registry import ModelRegistry
from infra.runs import Child, Status
from training.recency import Recency
from training.recipe import Recipe
from training.run_record import describe, parameters_of
from training.search_space import shape_of, untuned
from training.snapshot import Reading
from training.split import NothingHeldOut, Split, leave_last, random_share, split_by_time
from training.tuning import Trial, select

TUNING = "tuning"
"""Kind of the runs of `marquee tune`."""
BEST = "best_recipes"
"""Tag of such a run: the recipes that the next retraining tries first."""
REMEMBERED = 3
NO_GAP = timedelta()
STATUSES: dict[str, Status] = {"complete": "FINISHED", "pruned": "KILLED"}

HoldOut = Literal["time", "last", "random"]


class Found(NamedTuple):
    """What a search came to.

    Attributes:
        recipe: the best one.
        trials: in the order in which they were made.
    """

    recipe: Recipe
    trials: tuple[Trial, ...]

    @property
    def best(self) -> list[Trial]:
        """Those that were judged to the end, the best first, each recipe once."""
        complete = sorted((one for one in self.trials if one.state == "complete"), key=lambda one: -one.ndcg)
        unique: dict[str, Trial] = {}
        for trial in complete:
            unique.setdefault(repr(sorted(parameters_of(trial.recipe).items())), trial)
        return list(unique.values())


def search(
    split: Split,
    seconds: float,
    first: Sequence[Recipe] = (),
    storage: Path | None = None,
    on_trial: Callable[[Trial], None] | None = None,
) -> Found:
    """Search on a hold-out. This is the one place that asks `training.tuning`.

    Args:
        split: to judge on.
        seconds: how long to look; 0: the default recipes only.
        first: recipes to try first.
        storage: file that keeps the trials, so that the search goes on where it ended; None: kept nowhere.
        on_trial: told each trial.
    """
    trials: list[Trial] = []

    def keep(trial: Trial) -> None:
        trials.append(trial)
        if on_trial is not None:
            on_trial(trial)

    recipe = select(split, seconds=seconds, first=first, storage=storage, on_trial=keep)
    return Found(recipe, tuple(trials))


def validation(reading: Reading, before_ms: int, hold_out: HoldOut = "time", gap: timedelta = NO_GAP) -> Split:
    """A hold-out to choose on, from before the one to judge on.

    Args:
        reading: of the lake.
        before_ms: the moment from which on nothing may be looked at.
        hold_out: by time, or as papers do it: everybody's last item, or a random fifth.
        gap: how long before a hold-out by time begins training ends.

    Raises:
        NothingHeldOut: there is too little from before that moment.
    """
    older = reading.events.before(before_ms)
    if hold_out == "last":
        return leave_last(older, reading.catalogue, reading.length)
    if hold_out == "random":
        return random_share(older, reading.catalogue, reading.length)
    return split_by_time(older, reading.catalogue, reading.length, gap=gap)


def tune(
    registry: ModelRegistry,
    reading: Reading,
    hold_out: HoldOut,
    tags: Mapping[str, str],
    *,
    seconds: float,
    storage: Path,
    gap: timedelta = NO_GAP,
) -> Found:
    """A search of its own, from before the moment that the next retraining judges from; it is told to the registry.

    Args:
        registry: keeps the trials, and the best of them for the next retraining.
        reading: of the lake.
        hold_out: to choose on.
        tags: what the registry is to hold of the run besides.
        seconds: how long to look.
        storage: file in which the search goes on where it ended.
        gap: as the retraining's.

    Raises:
        NothingHeldOut: there is too little in the lake.
    """
    judged = split_by_time(reading.events, reading.catalogue, reading.length, gap=gap)
    split = validation(reading, judged.cut_ms, hold_out, gap)
    known = {"hold_out": hold_out, "snapshot_version": str(reading.version), "people_judged": str(len(split.fresh))}
    trials: list[Trial] = []
    with registry.runs.run(TUNING, {**tags, **known}) as run_id:
        try:
            found = search(split, seconds, remembered(registry), storage, trials.append)
        finally:  # Whoever interrupts it keeps what was tried.
            registry.runs.log_children(run_id, children(trials))
        registry.runs.log(run_id, parameters=parameters_of(found.recipe), tags=as_tag(found.best))
    return found


def default(split: Split, why: NothingHeldOut) -> Found:
    """What is taken where there is too little to choose on: the first of the default recipes.

    Args:
        split: the one to judge on; only what it trains on is looked at.
        why: there is too little.
    """
    structlog.get_logger(__name__).warning("not tuned: the default recipe is taken", why=str(why))
    return Found(untuned(shape_of(split.train.positives)).whole(), ())


def remembered(registry: ModelRegistry) -> list[Recipe]:
    """The best recipes of the last `marquee tune`, as far as this code can make them."""
    for run in registry.runs.of_kind(TUNING):
        if BEST in run.tags:
            return [recipe for recipe in map(_recipe, orjson.loads(run.tags[BEST])) if recipe]
    return []


def so_far(trials: Sequence[Trial]) -> str:
    """How far a search is, in words.

    >>> so_far([Trial(Recipe("ease", {}), 0.25, 1.0, "complete"), Trial(Recipe("als", {}), math.nan, 1.0, "failed")])
    '2 recipes tried, best nDCG@10 0.2500 (ease)'
    """
    known = [one for one in trials if one.state == "complete"]
    best = max(known, key=lambda one: one.ndcg, default=None)
    tried = f"{len(trials)} recipe{'s' * (len(trials) != 1)} tried"
    return f"{tried}, best nDCG@10 {best.ndcg:.4f} ({best.recipe.algorithm})" if best else tried


def as_tag(trials: Iterable[Trial]) -> dict[str, str]:
    """The best recipes, to be remembered."""
    best = [[*one.recipe[:2], one.recipe.recency.model_dump()] for one in list(trials)[:REMEMBERED]]
    return {BEST: orjson.dumps(best).decode()}


def children(trials: Iterable[Trial]) -> list[Child]:
    """The trials as runs below the run that made them."""
    return [
        Child(
            name=f"trial {number}: {trial.recipe.algorithm}",
            parameters=parameters_of(trial.recipe),
            metrics={"seconds": trial.seconds} | ({} if math.isnan(trial.ndcg) else {"ndcg_at_10": trial.ndcg}),
            tags={"state": trial.state, "recipe": describe(trial.recipe), "trial": str(number)},
            seconds=trial.seconds,
            status=STATUSES.get(trial.state, "FAILED"),
        )
        for number, trial in enumerate(trials)
    ]


def _recipe(value: Any) -> Recipe | None:
    algorithm, parameters, recency = value
    try:
        return Recipe(algorithm, parameters, Recency(**recency)).whole()
    except (TypeError, ValueError) as error:
        structlog.get_logger(__name__).warning("a recipe of the last search cannot be made", why=str(error))
        return None
