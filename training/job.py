"""The retraining job, in reading order: read, check, split, tune, compare, fit, register, publish.

Every run is a run in the registry from its first moment on, whatever becomes of it. Until the last phase nothing that
people see has changed, and where a run ends early, the champion keeps serving.
"""

from datetime import timedelta
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from infra.lake import Lake, LakeEmpty, LakeError
from infra.model_registry import ModelRegistry
from ingest.events import ConsentProjection, Domain, now
from training.algorithms.base import Algorithm
from training.bundle import Bundle, ItemTable, Manifest
from training.champion import Champion, read_champion
from training.data_checks import Checked, check_data, check_schema
from training.engine import Engine, OneProcess
from training.interactions import Interactions
from training.list_diff import diff_lists
from training.model_card import Facts, files
from training.phases import Phases
from training.promotion import NO_CHAMPION, Contest, hold_contest
from training.publish import Publisher
from training.recipe import Recipe
from training.run_record import TRAINING, RunRecord, learned_before, learning_history
from training.search import NO_GAP, Found, children, default, remembered, search, so_far, validation
from training.snapshot import Reading, read_lake
from training.split import NothingHeldOut, Split, split_by_time
from training.tuning import Trial
from training.verdict import Verdict, all_passed


class TrainingError(Exception):
    """There is nothing to train on; the message says what is missing. The champion keeps serving."""


class Outcome(BaseModel):
    """What a run came to.

    Attributes:
        result: `refused` by the gate, or `data_refused` before anything was trained.
        version: the number under which the challenger is registered, published or not; None where there is none.
        reasons: what the gate said, or which checks on the data failed.
        metrics: on the hold-out.
        seconds: phase → how long it took.
        users_published: lists in the online store of the version that is served now.
    """

    model_config = ConfigDict(frozen=True)

    result: Literal["published", "refused", "data_refused"]
    version: int | None
    algorithm: str | None
    reasons: tuple[str, ...]
    metrics: dict[str, float]
    seconds: dict[str, float]
    users_published: int


class Seen(NamedTuple):
    """What a run starts from.

    Attributes:
        reading: of the lake; None where its columns do not let it be read.
        drift: how the columns differ from what this code writes.
        receipts: in the ledger now.
        champion: what is served.
        owed: somebody was erased since the champion was trained, so it has to be replaced.
    """

    reading: Reading | None
    drift: list[str]
    receipts: int
    champion: Champion | None
    owed: bool


class Job:
    """Trains a challenger and, when the gate lets it pass, publishes it.

    Args:
        lake: what was collected.
        consents: what people allow.
        registry: where runs and versions are kept.
        publisher: where versions are served from.
        domain: which acts count and what they weigh.
        code: commit of the code, for the manifests.
        tune_seconds: how long to look for a recipe; 0: the default ones only.
        gap: how long before the hold-out begins training ends: see `training.split.split_by_time`.
        engine: fits the models; None: this process.
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
        tune_seconds: float = 0.0,
        gap: timedelta = NO_GAP,
        engine: Engine | None = None,
    ) -> None:
        self._lake = lake
        self._consents = consents
        self._registry = registry
        self._publisher = publisher
        self._domain = domain
        self._code = code
        self._tune_seconds = tune_seconds
        self._gap = gap
        self._engine = engine or OneProcess()

    def run(self, accept_data: str | None = None, phase: Phases | None = None) -> Outcome:
        """Retrain once.

        Args:
            accept_data: why to go on where a check on the data fails; None: do not go on.
            phase: told where the run stands; None: nobody looks.

        Raises:
            TrainingError: see there.
            Exception: what lake, consents, registry and publisher raise. Whatever it is, the champion keeps serving.
        """
        phase = phase or Phases()
        self._registry.runs.end_abandoned(TRAINING)
        tags = {"code": self._code, "mlflow.source.git.commit": self._code, "engine": self._engine.name}
        with self._registry.runs.run(TRAINING, tags) as run_id:
            record = RunRecord(self._registry.runs, run_id)
            try:
                return self._train(record, phase, accept_data)
            finally:
                record.ended(phase)

    def _train(self, record: RunRecord, phase: Phases, accept_data: str | None) -> Outcome:
        with phase("read"):
            seen = self._read()
            record.read(seen.reading, seen.receipts)
        with phase("check"):
            checks = self._check(seen)
            accepted = None if all_passed(checks) else accept_data
            record.checked(checks, accepted)
        if seen.reading is None or (accepted is None and not all_passed(checks)):
            record.ended_early()
            return self._end_early(seen, checks, phase)
        return self._challenge(record, phase, seen.reading, seen, Checked(checks, accepted))

    def _challenge(self, record: RunRecord, phase: Phases, reading: Reading, seen: Seen, data: Checked) -> Outcome:
        champion = seen.champion
        with phase("split"):
            split = self._split(reading)
        with phase("tune"):
            found = self._search(reading, split, champion, phase)
            record.tried(children(found.trials))
        with phase("compare"):
            contest = self._contest(split, found.recipe, seen)
            record.compared(contest)
        with phase("fit"):
            interactions = reading.histories()
            model = self._engine.fit(contest.comparison.recipe, interactions)
        with phase("register"):
            bundle = self._bundle(record.run_id, reading, interactions, contest, model)
            change = champion and diff_lists(champion.bundle, bundle, interactions)
            facts = Facts(bundle, contest, split, data, found, change, phase.figures())
            version = self._register(record, facts)
        with phase("publish"):
            served = contest.passed
            users = self._publish(version, bundle, interactions) if served else self._renew(champion, interactions)
        return Outcome(
            result="published" if served else "refused",
            version=version,
            algorithm=model.name,
            reasons=contest.reasons,
            metrics=contest.comparison.metrics(),
            seconds=phase.seconds,
            users_published=users,
        )

    def _read(self) -> Seen:
        # Receipts first: whoever is erased by one of these is left out of what is read after it.
        erasures, receipts = self._consents.erasures(), self._consents.receipts()
        drift, reading = self._lake.drift(), None
        try:
            reading = read_lake(self._lake, self._consents, self._domain)
        except LakeEmpty as error:
            raise TrainingError(f"{error} Send events to the ingest API and let the lander land them.") from error
        except LakeError:
            if not drift:
                raise
        served = self._registry.champion()
        owed = served is not None and learned_before(self._registry.version(served).tags, erasures.last)
        return Seen(reading, drift, receipts, read_champion(self._registry), owed)

    def _check(self, seen: Seen) -> tuple[Verdict, ...]:
        if seen.reading is None:
            return (check_schema(seen.drift),)
        known = seen.champion and seen.champion.known(seen.receipts)
        return check_data(seen.reading, seen.drift, self._domain, known)

    def _end_early(self, seen: Seen, checks: tuple[Verdict, ...], phase: Phases) -> Outcome:
        """Without a challenger: the champion's lists are renewed with what can be read, before they expire."""
        return Outcome(
            result="data_refused",
            version=None,
            algorithm=None,
            reasons=tuple(str(one) for one in checks if not one.passed),
            metrics={},
            seconds=phase.seconds,
            users_published=0 if seen.reading is None else self._renew(seen.champion, seen.reading.histories()),
        )

    def _split(self, reading: Reading) -> Split:
        try:
            return split_by_time(reading.events, reading.catalogue, reading.length, gap=self._gap)
        except NothingHeldOut as error:
            raise TrainingError(str(error)) from error

    def _search(self, reading: Reading, split: Split, champion: Champion | None, phase: Phases) -> Found:
        """Chosen on a hold-out of its own, from before the cut: what the gate asks about has not been looked at."""
        first = [*([] if champion is None else [champion.recipe]), *remembered(self._registry)]
        if (chosen := self._engine.choose(first)) is not None:
            return Found(chosen.whole(), ())
        trials: list[Trial] = []

        def tell(trial: Trial) -> None:
            trials.append(trial)
            phase.say(so_far(trials))

        try:
            older = validation(reading, split.cut_ms, gap=self._gap)
            return search(older, self._tune_seconds, first, on_trial=tell)
        except NothingHeldOut as error:
            return default(split, error)

    def _contest(self, split: Split, challenger: Recipe, seen: Seen) -> Contest:
        unreadable = seen.champion is None and self._registry.champion() is not None
        absent = "this code cannot read the champion's bundle" if unreadable else NO_CHAMPION
        recipe = seen.champion and seen.champion.recipe
        return hold_contest(split, challenger, recipe, absent, seen.owed, engine=self._engine)

    def _bundle(
        self, run_id: str, reading: Reading, interactions: Interactions, contest: Contest, model: Algorithm
    ) -> Bundle:
        manifest = Manifest(
            algorithm=model.name,
            parameters=model.parameters,
            recency=contest.comparison.recipe.recency,
            domain=self._domain.name,
            history_length=self._domain.history.length,
            snapshot=reading.describe(interactions),
            code=self._code,
            run_id=run_id,
            trained_at=now(),
            metrics=contest.comparison.metrics(),
        )
        catalogue = interactions.catalogue
        items = ItemTable(catalogue.items.ids, catalogue.attributes, interactions.popularity)
        return Bundle(manifest, items, model, model.arrays())

    def _register(self, record: RunRecord, facts: Facts) -> int:
        """Make the bundle a version, and its card the run's."""
        record.fitted(facts.bundle, facts.change)
        version = self._registry.register(record.run_id, facts.bundle.dump(), record.tags)
        record.keep(files(version, facts, learning_history(self._registry.versions())))
        return version

    def _publish(self, version: int, bundle: Bundle, interactions: Interactions) -> int:
        """Serve the version. The alias follows: a publish that fails leaves both where they are."""
        users = self._publisher.publish(version, bundle, interactions)
        self._registry.promote(version)
        return users

    def _renew(self, champion: Champion | None, interactions: Interactions) -> int:
        """Publish the champion again, with today's histories, before its lists expire."""
        return 0 if champion is None else self._publisher.publish(champion.version, champion.bundle, interactions)
