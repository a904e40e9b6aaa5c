"""What the registry holds of a retraining: where it came from, what it measured, what was said of it."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson
import structlog

from infra.model_registry import ModelVersion
from infra.runs import Child, ModelRegistryError, Runs
from training.bundle import Bundle
from training.list_diff import ListDiff
from training.phases import Phases
from training.promotion import Contest
from training.recipe import Recipe
from training.snapshot import Reading
from training.verdict import Verdict, as_tags

TRAINING = "training"
"""Kind of the runs that retrain."""
GATE = "gate"
CHECK = "check"
PASSED = "passed"
REFUSED = "refused"
DATA_REFUSED = "data_refused"
FORCED = "forced_because"
"""Tag of a version that was promoted by hand though it had not passed: why."""
RECEIPTS = "receipts"
"""Tag of a version: number of receipts in the ledger when its data was read."""


class Point(NamedTuple):
    """A version in the learning history.

    Attributes:
        ndcg: its nDCG@10, on the hold-out of its time.
        popularity: the popular list's, on the same.
        let_in: whether it might be served.
    """

    version: int
    ndcg: float
    popularity: float
    let_in: bool


class RunRecord:
    """One run, written down as it goes.

    Args:
        runs: of the registry.
        run_id: the run.
    """

    def __init__(self, runs: Runs, run_id: str) -> None:
        self._runs = runs
        self.run_id = run_id
        self._said: dict[str, str] = {}

    def read(self, reading: Reading | None, receipts: int) -> None:
        """What was read; None where it could not be."""
        self._say({RECEIPTS: str(receipts)})
        if reading is None:
            return
        seen = orjson.dumps({str(partition): offset for partition, offset in sorted(reading.watermark.items())})
        self._say({"snapshot_version": str(reading.version), "watermark": seen.decode()})
        figures = {"events": reading.acts, "people": len(reading.interactions.users)}
        self._runs.log(self.run_id, metrics=figures)

    def checked(self, verdicts: Iterable[Verdict], accepted: str | None) -> None:
        """What the checks said of the data, and why somebody went on all the same."""
        self._say(as_tags(CHECK, verdicts) | ({} if accepted is None else {"accepted_data": accepted}))

    def ended_early(self) -> None:
        """The data was not fit to train on, and nobody said to go on."""
        self._say({"verdict": DATA_REFUSED})

    def tried(self, trials: Iterable[Child]) -> None:
        """The trials of the search."""
        self._runs.log_children(self.run_id, trials)

    def compared(self, contest: Contest) -> None:
        """What the hold-out and the gate said."""
        self._runs.log(self.run_id, metrics=contest.figures())
        verdict = PASSED if contest.passed else REFUSED
        self._say({"verdict": verdict, "reasons": "; ".join(contest.reasons)} | as_tags(GATE, contest.verdicts))
        if contest.set_aside is not None:
            self._say({"set_aside": f"{describe(contest.set_aside.recipe)}: {contest.set_aside.why}"})

    def fitted(self, bundle: Bundle, change: ListDiff | None) -> None:
        """What was fitted, its lineage, and what it changes in the lists that are served."""
        manifest = bundle.manifest
        recipe = Recipe(manifest.algorithm, manifest.parameters, manifest.recency)
        self._runs.log(self.run_id, parameters=parameters_of(recipe))
        if change is not None:
            shares = {"served_changed": change.changed, "served_kept": change.kept, "served_overlap": change.overlap}
            self._runs.log(self.run_id, metrics=shares)
        words = {"algorithm": manifest.algorithm, "recipe": describe(recipe), "code": manifest.code}
        self._say(words | {"digest": bundle.digest(), "snapshot_digest": manifest.snapshot.digest})

    def ended(self, phases: Phases) -> None:
        """How long the phases took. It says nothing of the outcome: the registry may be what failed."""
        try:
            self._runs.log(self.run_id, metrics=phases.figures())
        except ModelRegistryError as error:
            structlog.get_logger(__name__).warning("the run's phases were not recorded", why=str(error))

    def keep(self, files: Mapping[str, bytes]) -> None:
        """Keep files with the run."""
        self._runs.log_files(self.run_id, files)

    @property
    def tags(self) -> Mapping[str, str]:
        """What was said so far: a version has the same tags as its run."""
        return self._said

    def _say(self, words: Mapping[str, str]) -> None:
        self._said |= words
        self._runs.log(self.run_id, tags=words)


def was_let_in(tags: Mapping[str, str]) -> bool:
    """Whether a version with these tags passed the gate, or was let past it by hand."""
    return tags.get("verdict") == PASSED or FORCED in tags


def learned_before(tags: Mapping[str, str], receipt: int) -> bool:
    """Whether a version or a run with these tags read its data when the ledger had no such receipt yet."""
    return int(tags.get(RECEIPTS, 0)) < receipt


def learning_history(versions: Iterable[ModelVersion]) -> list[Point]:
    """The versions that have figures, the oldest first."""
    return sorted(
        Point(one.version, one.metrics["ndcg_at_10"], one.metrics["popularity_ndcg_at_10"], was_let_in(one.tags))
        for one in versions
        if {"ndcg_at_10", "popularity_ndcg_at_10"} <= one.metrics.keys()
    )


def parameters_of(recipe: Recipe) -> dict[str, Any]:
    """Algorithm, parameters and recency by name, as the registry keeps them.

    >>> parameters_of(Recipe("popularity", {}))
    {'algorithm': 'popularity', 'recency.boost': 0.0, 'recency.half_life': 0.2}
    """
    plain = {name: _plain(value) for name, value in recipe.parameters.items()}
    recency = {f"recency.{name}": value for name, value in recipe.recency.model_dump().items()}
    return {"algorithm": recipe.algorithm, **plain, **recency}


def describe(recipe: Recipe) -> str:
    """A recipe in one line.

    >>> describe(Recipe("als", {"factors": 64, "regularization": 10.0}))
    'als factors=64 regularization=10'
    >>> part = {"algorithm": "ease", "parameters": {}, "weight": 0.25}
    >>> describe(Recipe("blend", {"parts": [part, part]}))
    'blend of 0.25 ease + 0.25 ease'
    """
    recency = recipe.recency
    boost = f" boost={recency.boost:.3g}/{recency.half_life:.3g}" if recency.boost else ""
    return _words(recipe.algorithm, recipe.parameters) + boost


def _words(algorithm: str, parameters: Mapping[str, Any]) -> str:
    if "parts" in parameters:
        parts = (f"{one['weight']:.2g} {_words(one['algorithm'], one['parameters'])}" for one in parameters["parts"])
        return f"{algorithm} of {' + '.join(parts)}"
    told = {name: value for name, value in parameters.items() if name != "seed" and value is not None}
    words = (f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in told.items())
    return " ".join([algorithm, *words])


def figure(value: float) -> str:
    """A figure as people read it: whole ones whole.

    >>> figure(90003.0), figure(0.123456)
    ('90003', '0.1235')
    """
    return f"{value:.0f}" if value == round(value) or abs(value) >= 10_000 else f"{value:.4g}"


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | None) else orjson.dumps(value).decode()
