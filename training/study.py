"""What a search for a recipe has tried: kept by Optuna, in a file if it is to go on another day."""

import logging
import warnings
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import orjson
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from training.recency import Recency
from training.recipe import Recipe
from training.search_space import Range, Space
from training.split import Split
from training.tuning import Trial

SEED = 0
STARTUP = 4
"""Trials of a study that are drawn at random before what they came to is made use of."""
RECIPE = "recipe"
SECONDS = "seconds"
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


class Study:
    """The trials on one hold-out.

    Args:
        split: the hold-out. Trials on another one are another study, in the same file.
        storage: the file; None: the trials are forgotten with this object.
    """

    def __init__(self, split: Split, storage: Path | None) -> None:
        optuna.logging.set_verbosity(logging.WARNING)
        if storage is not None:
            storage.parent.mkdir(parents=True, exist_ok=True)
        self._study = optuna.create_study(
            storage=None if storage is None else JournalStorage(JournalFileBackend(str(storage))),
            study_name=digest(split),
            direction="maximize",
            load_if_exists=True,
            sampler=_sampler(),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP),
        )

    def trials(self) -> Iterator[Trial]:
        """Those that have ended, in the order in which they began."""
        for one in self._study.get_trials(deepcopy=False):
            if one.state in STATES and RECIPE in one.user_attrs:
                last = one.intermediate_values.get(max(one.intermediate_values, default=0), np.nan)
                value = one.value if one.state == TrialState.COMPLETE else last
                seconds = one.user_attrs[SECONDS]
                yield Trial(_read(one.user_attrs[RECIPE]), float(value), seconds, STATES[one.state])  # type: ignore[arg-type]

    def ask(self) -> optuna.Trial:
        """What to try next."""
        return self._study.ask()

    def tell(self, asked: optuna.Trial, trial: Trial) -> None:
        """What came of that."""
        for name, value in attributes(trial.recipe, trial.seconds).items():
            asked.set_user_attr(name, value)
        state = _state(trial)
        self._study.tell(asked, trial.ndcg if state == TrialState.COMPLETE else None, state)

    def remember(self, trial: Trial, space: Space) -> None:
        """Keep a trial that Optuna did not ask for.

        Args:
            trial: what was tried.
            space: where its algorithm is searched; what lies in it, the search learns from.
        """
        algorithm, parameters, _ = trial.recipe
        ranges = space.ranges
        inside = all(where.low <= parameters[name] <= where.high for name, where in ranges.items())
        values = {f"{algorithm}.{name}": parameters[name] for name in ranges if inside}
        places = {f"{algorithm}.{name}": _distribution(where) for name, where in ranges.items() if inside}
        state = _state(trial)
        self._study.add_trial(
            create_trial(
                state=state,
                value=trial.ndcg if state == TrialState.COMPLETE else None,
                params=values,
                distributions=places,
                user_attrs=attributes(trial.recipe, trial.seconds),
            )
        )


def attributes(recipe: Recipe, seconds: float) -> dict[str, Any]:
    """What is kept of a trial beside what it came to."""
    return {RECIPE: key(recipe), SECONDS: seconds}


def key(recipe: Recipe) -> str:
    """The whole recipe as text: two that are the same have the same."""
    algorithm, parameters, recency = recipe.whole()
    return orjson.dumps([algorithm, parameters, recency.model_dump()], option=orjson.OPT_SORT_KEYS).decode()


def digest(split: Split) -> str:
    """SHA-256 of what is trained on, asked with and held out."""
    found = sha256(split.train.digest.encode())
    for matrix in (split.fresh.user_items, split.held_out):
        for part in (matrix.indptr, matrix.indices, matrix.data):
            found.update(np.ascontiguousarray(part).tobytes())
    found.update(split.fresh.at_ms.tobytes())
    return found.hexdigest()


def _read(text: str) -> Recipe:
    algorithm, parameters, recency = orjson.loads(text)
    return Recipe(algorithm, parameters, Recency(**recency))


def _sampler() -> optuna.samplers.TPESampler:
    with warnings.catch_warnings():
        # Grouped: parameters of one algorithm are seen together, as alpha0 and regularization have to be.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=SEED, n_startup_trials=STARTUP, multivariate=True, group=True)


def _state(trial: Trial) -> TrialState:
    return next(state for state, name in STATES.items() if name == trial.state)


def _distribution(where: Range) -> BaseDistribution:
    if isinstance(where.default, int):
        return IntDistribution(int(where.low), int(where.high), log=where.log)
    return FloatDistribution(where.low, where.high, log=where.log)
