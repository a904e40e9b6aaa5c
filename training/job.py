"""The retraining job, in reading order: read, split, tune, compare, gate, fit on everything, register, publish."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import structlog
from pydantic import BaseModel, ConfigDict

from infra.lake import Lake, LakeEmpty
from infra.model_registry import ModelRegistry
from ingest.events import ConsentProjection, Domain, now
from training.algorithms.base import Algorithm
from training.bundle import Bundle, BundleError, ItemTable, Manifest, load
from training.comparison import Comparison, compare
from training.evaluation import fit
from training.interactions import Interactions
from training.promotion import Verdict, judge_challenger
from training.publish import Publisher
from training.recipe import Recipe
from training.snapshot import Reading, read_lake
from training.split import NothingHeldOut, Split, split_by_time
from training.tuning import CANDIDATES, select

FEWEST_PEOPLE = 5
FEWEST_EVENTS = 50
PASSED = "passed"
REFUSED = "refused"


class TrainingError(Exception):
    """There is not enough to train on; the message says what is missing. The champion keeps serving."""


class Outcome(BaseModel):
    """What a run came to.

    Attributes:
        version: the number under which the challenger is registered, published or not.
        reasons: what the gate said.
        metrics: on the hold-out.
        seconds: phase → how long it took.
        users_published: lists in the online store of the version that is served now.
    """

    model_config = ConfigDict(frozen=True)

    result: Literal["published", "refused"]
    version: int
    algorithm: str
    reasons: tuple[str, ...]
    metrics: dict[str, float]
    seconds: dict[str, float]
    users_published: int


class Phases:
    """Measures and logs the phases of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the block under this name."""
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start
        structlog.get_logger(__name__).info("phase done", phase=name, seconds=round(self.seconds[name], 2))


class Job:
    """Trains a challenger and, when the gate lets it pass, publishes it.

    Args:
        lake: what was collected.
        consents: what people allow.
        registry: where runs and versions are kept.
        publisher: where versions are served from.
        domain: which acts count and what they weigh.
        code: commit of the code, for the manifests.
    """

    def __init__(
        self,
        *,
        lake: Lake,
        consents: ConsentProjection,
        registry: ModelRegistry,
        publisher: Publisher,
        domain: Domain,
        code: str,
    ) -> None:
        self._lake = lake
        self._consents = consents
        self._registry = registry
        self._publisher = publisher
        self._domain = domain
        self._code = code

    def run(self) -> Outcome:
        """Retrain once.

        Raises:
            TrainingError: see there.
            Exception: what lake, consents, registry and publisher raise. Whatever it is, the champion keeps serving.
        """
        phase = Phases()
        with phase("read"):
            reading = self._read()
        with phase("split"):
            split = self._split(reading)
        with phase("tune"):
            recipe = self._select(reading, split)
        with phase("compare"):
            comparison = compare(split, recipe, self._champion_recipe())
            verdict = gate(comparison)
        with phase("fit"):
            interactions = reading.histories()
            challenger = fit(recipe, interactions)
        with phase("register"):
            run_id = self._registry.start_run({"algorithm": challenger.name, **challenger.parameters})
            bundle = self._bundle(run_id, reading, interactions, comparison, challenger)
            version = self._register(bundle, verdict, phase.seconds)
        with phase("publish"):
            users = self._publish(version, bundle, interactions) if verdict.passed else self._renew(interactions)
        return Outcome(
            result="published" if verdict.passed else "refused",
            version=version,
            algorithm=challenger.name,
            reasons=verdict.reasons,
            metrics=comparison.metrics(),
            seconds=phase.seconds,
            users_published=users,
        )

    def _read(self) -> Reading:
        try:
            reading = read_lake(self._lake, self._consents, self._domain)
        except LakeEmpty as error:
            raise TrainingError(f"{error} Send events to the ingest API and let the lander land them.") from error
        people, events = len(reading.events.people), reading.events.rows.height
        if people < FEWEST_PEOPLE or events < FEWEST_EVENTS:
            raise TrainingError(
                f"the lake has {events} events of {people} people that may be used for a model; it takes at least "
                f"{FEWEST_EVENTS} of {FEWEST_PEOPLE}: collect more before training"
            )
        return reading

    def _split(self, reading: Reading) -> Split:
        try:
            return split_by_time(reading.events, reading.catalogue, reading.length)
        except NothingHeldOut as error:
            raise TrainingError(str(error)) from error

    def _select(self, reading: Reading, split: Split) -> Recipe:
        """Chosen on a hold-out of its own, from before the cut: what the gate asks about has not been looked at."""
        try:
            validation = split_by_time(reading.events.before(split.cut_ms), reading.catalogue, reading.length)
        except NothingHeldOut as error:
            structlog.get_logger(__name__).warning("not tuned: the default recipe is taken", why=str(error))
            return CANDIDATES[0].whole()
        return select(validation)

    def _champion_recipe(self) -> Recipe | None:
        champion = self._champion()
        if champion is None:
            return None
        manifest = champion[1].manifest
        return Recipe(manifest.algorithm, manifest.parameters, manifest.recency)

    def _champion(self) -> tuple[int, Bundle] | None:
        version = self._registry.champion()
        if version is None:
            return None
        try:
            return version, load(self._registry.bundle(version))
        except BundleError as error:
            log = structlog.get_logger(__name__)
            log.warning("this code cannot read the champion's bundle", version=version, why=str(error))
            return None

    def _bundle(
        self, run_id: str, reading: Reading, interactions: Interactions, comparison: Comparison, model: Algorithm
    ) -> Bundle:
        manifest = Manifest(
            algorithm=model.name,
            parameters=model.parameters,
            recency=comparison.recipe.recency,
            domain=self._domain.name,
            history_length=self._domain.history.length,
            snapshot=reading.describe(interactions),
            code=self._code,
            run_id=run_id,
            trained_at=now(),
            metrics=comparison.metrics(),
        )
        catalogue = interactions.catalogue
        items = ItemTable(catalogue.items.ids, catalogue.attributes, interactions.popularity)
        return Bundle(manifest, items, model, model.arrays())

    def _register(self, bundle: Bundle, verdict: Verdict, seconds: Mapping[str, float]) -> int:
        manifest = bundle.manifest
        figures = manifest.metrics | {f"seconds_{phase}": took for phase, took in seconds.items()}
        tags = {
            "algorithm": manifest.algorithm,
            "verdict": PASSED if verdict.passed else REFUSED,
            "reasons": "; ".join(verdict.reasons),
            "digest": bundle.digest(),
            "snapshot_version": str(manifest.snapshot.version),
            "snapshot_digest": manifest.snapshot.digest,
            "code": manifest.code,
        }
        return self._registry.register(manifest.run_id, bundle.dump(), figures, tags)

    def _publish(self, version: int, bundle: Bundle, interactions: Interactions) -> int:
        """Serve the version. The alias follows: a publish that fails leaves both where they are."""
        users = self._publisher.publish(version, bundle, interactions)
        self._registry.promote(version)
        return users

    def _renew(self, interactions: Interactions) -> int:
        """Publish the champion again, with today's histories, before its lists expire."""
        champion = self._champion()
        return 0 if champion is None else self._publisher.publish(*champion, interactions)


def gate(comparison: Comparison) -> Verdict:
    """The gate's verdict on the challenger."""
    champion = comparison.champion
    return judge_challenger(
        float(comparison.challenger.fresh.ndcg().mean()),
        float(comparison.popularity.fresh.ndcg().mean()),
        None if champion is None else float(champion.fresh.ndcg().mean()),
    )
