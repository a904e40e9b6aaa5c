"""The retraining job on small viewers: real lake, real Redis, real registry."""

import re
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import polars as pl
import pytest
from deltalake import write_deltalake

from infra.lake import EVENTS, ITEMS, TABLES, Lake, Span
from infra.model_registry import ModelRegistry
from infra.online_store import OnlineStore, connect
from infra.runs import FAILURE
from ingest.events import CONSENT_HEAD, ConsentProjection, ConsentUnavailable, Domain
from training import job as job_module
from training import promotion
from training import search as search_module
from training.bundle import bundle_key, list_key, load
from training.comparison import POPULARITY
from training.job import Job, Outcome, TrainingError
from training.model_card import CARD
from training.publish import Lists, Publisher, current
from training.recipe import Recipe
from training.run_record import TRAINING
from training.search import TUNING, Found, as_tag
from training.split import Split, split_by_time
from training.tuning import Trial

SECRET = "a secret of the tests"
Rows = Callable[..., pl.DataFrame]
Grant = Callable[..., None]
Land = Callable[[pl.DataFrame], None]


class Made(NamedTuple):
    """A platform's first retraining on sixty viewers.

    Attributes:
        folder: its lake and its registry's database; files of runs stay where they are.
        keys: of its Redis, dumped.
    """

    folder: Path
    keys: dict[bytes, bytes]
    outcome: Outcome


class Trained(NamedTuple):
    """What a test has of such a platform for itself."""

    job: Job
    lake: Lake
    registry: ModelRegistry
    publisher: Publisher
    outcome: Outcome


def platform(folder: Path, store: OnlineStore, domain: Domain) -> tuple[Job, Lake, ModelRegistry, Publisher]:
    """The job on the stores in a folder."""
    consents, lake = ConsentProjection(store, SECRET), Lake(str(folder / "lake"))
    registry = ModelRegistry(f"sqlite:///{folder / 'registry.db'}", folder / "artifacts", "films")
    publisher = Publisher(store, consents, 5, 1000)
    job = Job(lake=lake, consents=consents, registry=registry, publisher=publisher, domain=domain, code="c0ffee")
    return job, lake, registry, publisher


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory,
    redis_url: str,
    empty_registry: Path,
    viewers: Rows,
    grant_in: Grant,
    domain: Domain,
) -> Made:
    """Trained once for all tests that begin with a champion; its data were good, and accepted all the same."""
    folder, rows = tmp_path_factory.mktemp("made"), viewers()
    shutil.copy(empty_registry, folder / "registry.db")
    with connect(redis_url) as store:
        store.flushall()
        grant_in(store, rows["user_id"].unique())
        job, lake, _, _ = platform(folder, store, domain)
        lake.append(EVENTS, rows, {0: Span(0, rows.height)})
        outcome = job.run(accept_data="just in case")
        keys = {key: cast(bytes, store.dump(key)) for key in store.scan_iter()}
    return Made(folder, keys, outcome)


@pytest.fixture
def one_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is searched, where it does not matter what is trained."""
    monkeypatch.setattr(job_module, "search", lambda *_, **__: Found(Recipe("ease", {}).whole(), ()))


@pytest.fixture
def trained(made: Made, store: OnlineStore, tmp_path: Path, domain: Domain) -> Trained:
    """A champion, and everything as its retraining left it."""
    shutil.copytree(made.folder / "lake", tmp_path / "lake")
    shutil.copy(made.folder / "registry.db", tmp_path)
    for key, value in made.keys.items():
        store.restore(key, 0, value)
    return Trained(*platform(tmp_path, store, domain), made.outcome)


def test_the_first_model_beats_popularity_and_is_published(trained: Trained, store: OnlineStore) -> None:
    outcome, registry = trained.outcome, trained.registry
    assert (outcome.result, outcome.version, outcome.users_published) == ("published", 1, 60)
    assert outcome.metrics["ndcg_at_10"] > outcome.metrics["popularity_ndcg_at_10"]
    assert set(outcome.seconds) == {"read", "check", "split", "tune", "compare", "fit", "register", "publish"}
    assert current(store) == registry.champion() == 1
    bundle = load(cast(bytes, store.get(bundle_key(1))))
    assert bundle.dump() == registry.bundle(1)
    manifest = bundle.manifest
    assert (manifest.code, manifest.domain, manifest.run_id) == ("c0ffee", "films", registry.versions()[0].run_id)
    assert (manifest.snapshot.watermark, manifest.snapshot.events) == ({0: 720}, 720)
    assert manifest.metrics == outcome.metrics


def test_no_person_is_in_the_bundle_or_the_registry(trained: Trained) -> None:
    registry = trained.registry
    bundle = load(registry.bundle(1))
    assert all(len(array) == 61 or name != "item_factors" for name, array in bundle.arrays.items())
    everything = bundle.manifest.model_dump_json() + repr(registry.versions()) + repr(bundle.items)
    assert "u001" not in everything


def test_the_same_snapshot_gives_the_same_model(trained: Trained) -> None:
    trained.job.run()
    one, two = (load(trained.registry.bundle(version)) for version in (1, 2))
    assert one.digest() == two.digest()
    assert one.manifest.snapshot.digest == two.manifest.snapshot.digest


def test_a_model_trained_after_a_withdrawal_is_that_of_one_who_never_was(
    job: Job, registry: ModelRegistry, landed: pl.DataFrame, lake: Lake, grant: Grant
) -> None:
    """First the projection alone says so; then the lander has removed the rows too."""
    grant(["u007"], revoked=5)
    job.run()
    assert lake.forget(EVENTS, {"u007": 5}) == 12
    job.run()
    one, two = (load(registry.bundle(version)) for version in (1, 2))
    assert one.digest() == two.digest()
    assert one.manifest.snapshot.users == 59
    assert one.manifest.snapshot.events == landed.height - 12


def test_a_refused_challenger_is_registered_and_the_champion_keeps_serving(
    trained: Trained, store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = trained.registry
    store.delete(list_key(1, "u001"))
    monkeypatch.setattr(promotion, "GAIN", 100.0)
    outcome = trained.job.run()
    assert (outcome.result, outcome.version) == ("refused", 2)
    assert [reason.partition(":")[0] for reason in outcome.reasons if reason.startswith("failed")] == [
        "failed popularity"
    ]
    assert current(store) == registry.champion() == 1
    assert [(one.version, one.tags["verdict"]) for one in registry.versions()] == [(2, "refused"), (1, "passed")]
    assert not store.exists(bundle_key(2))
    assert store.exists(list_key(1, "u001")), "the champion's lists are renewed"


def test_a_first_model_that_does_not_beat_popularity_is_not_published(
    job: Job, event_rows: Rows, land: Land, grant: Grant, store: OnlineStore, registry: ModelRegistry
) -> None:
    """Viewers without any taste draw from the same few popular items: there is nothing else to learn."""
    random = np.random.default_rng(0)
    share = 1 / np.arange(1, 61) ** 1.2
    people = [f"u{person:03}" for person in range(200)]
    acts = [
        (person, f"m{item}", int(random.integers(100_000)))
        for person in people
        for item in random.choice(60, 15, replace=False, p=share / share.sum())
    ]
    land(event_rows(acts))
    grant(people)
    outcome = job.run()
    assert outcome.result == "refused"
    assert outcome.reasons[0].startswith("failed popularity")
    assert (outcome.users_published, current(store), registry.champion()) == (0, None, None)


def test_an_empty_lake_says_what_to_do(job: Job, grant: Grant) -> None:
    grant([])
    with pytest.raises(TrainingError, match="Send events to the ingest API"):
        job.run()


@pytest.mark.parametrize("people", [1, 4])
def test_too_few_people_say_how_many_it_takes(
    job: Job, event_rows: Rows, land: Land, grant: Grant, registry: ModelRegistry, people: int
) -> None:
    users = [f"u{person}" for person in range(people)]
    land(event_rows([(user, f"m{item}", item) for user in users for item in range(60)]))
    grant(users)
    outcome = job.run()
    assert (outcome.result, outcome.version) == ("data_refused", None)
    assert re.search(rf"of {people} people .* at least 50 of 5: collect more", outcome.reasons[0])
    assert registry.versions() == []


def test_events_of_one_moment_cannot_be_held_out(job: Job, event_rows: Rows, land: Land, grant: Grant) -> None:
    users = [f"u{person}" for person in range(10)]
    land(event_rows([(user, f"m{item}", 5) for user in users for item in range(9)]))
    grant(users)
    with pytest.raises(TrainingError, match="nothing happened before the cut"):
        job.run()


@pytest.mark.usefixtures("landed")
def test_when_nobody_can_tell_what_people_allow_nothing_is_trained(
    job: Job, store: OnlineStore, registry: ModelRegistry
) -> None:
    store.delete(CONSENT_HEAD)
    with pytest.raises(ConsentUnavailable):
        job.run()
    assert registry.versions() == []


@pytest.mark.usefixtures("one_recipe")
def test_a_publish_that_fails_leaves_champion_and_served_version_where_they_are(
    trained: Trained, store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ConsentUnavailable("by the test")

    monkeypatch.setattr(Lists, "_check", fail)
    with pytest.raises(ConsentUnavailable):
        trained.job.run()
    assert current(store) == trained.registry.champion() == 1


@pytest.mark.usefixtures("one_recipe")
def test_a_failed_check_ends_the_run_before_tuning_and_the_champion_keeps_serving(
    trained: Trained, land: Land, viewers: Rows, store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until an operator who knows why accepts the data; that is recorded."""
    job, registry = trained.job, trained.registry
    store.delete(list_key(1, "u001"))
    land(viewers().head(400))
    with monkeypatch.context() as patch:
        patch.setattr(job_module, "search", None)
        outcome = job.run()
    assert (outcome.result, outcome.version, outcome.users_published) == ("data_refused", None, 60)
    assert [reason.partition(":")[0] for reason in outcome.reasons] == ["failed repeated"]
    assert current(store) == registry.champion() == 1
    assert store.exists(list_key(1, "u001")), "the champion's lists are renewed"
    refused = registry.runs.of_kind(TRAINING)[0]
    assert (refused.status, refused.tags["verdict"]) == ("FINISHED", "data_refused")
    assert refused.tags["check.repeated"].startswith("failed: 35.7 % of the rows repeat an event_id")
    assert (refused.tags["snapshot_version"], refused.metrics["events"]) == ("2", 720)

    assert job.run(accept_data="a client sent its past again").result == "published"
    version = registry.version(2)
    assert version.tags["accepted_data"] == "a client sent its past again"
    assert version.tags["check.repeated"].startswith("failed")
    assert "accepted by hand: a client sent its past again" in registry.runs.file(version.run_id, CARD).decode()


def test_a_lake_whose_columns_cannot_be_read_is_a_verdict_too(
    job: Job, lake: Lake, tmp_path: Path, landed: pl.DataFrame, registry: ModelRegistry
) -> None:
    write_deltalake(tmp_path / "lake" / EVENTS, landed.drop("receipt"), mode="overwrite", schema_mode="overwrite")
    outcome = job.run()
    assert (outcome.result, outcome.users_published) == ("data_refused", 0)
    assert outcome.reasons[0].startswith("failed schema: events has no column receipt: ")
    assert registry.runs.of_kind(TRAINING)[0].tags["check.schema"].startswith("failed")
    assert job.run(accept_data="no matter").result == "data_refused", "nobody can read it"


def test_accepting_good_data_is_nothing_to_record(trained: Trained) -> None:
    assert "accepted_data" not in trained.registry.version(1).tags


def test_a_run_holds_where_it_came_from_what_it_measured_and_what_was_said(
    trained: Trained, consents: ConsentProjection
) -> None:
    outcome, registry = trained.outcome, trained.registry
    manifest = load(registry.bundle(1)).manifest
    run = registry.runs.of_kind(TRAINING)[0]
    assert run.status == "FINISHED"
    wanted = {name: str(value) for name, value in manifest.parameters.items()}
    wanted |= {"algorithm": manifest.algorithm, "recency.boost": str(manifest.recency.boost)}
    assert wanted.items() <= run.parameters.items()
    assert outcome.metrics.items() <= run.metrics.items()
    assert {f"seconds_{phase}" for phase in outcome.seconds} <= run.metrics.keys()
    assert 50 < run.metrics["peak_memory_mb"] < 10_000
    assert (run.metrics["events"], run.metrics["people"]) == (720, 60)
    lineage = {
        "snapshot_version": str(manifest.snapshot.version),
        "snapshot_digest": manifest.snapshot.digest,
        "watermark": '{"0":720}',
        "digest": load(registry.bundle(1)).digest(),
        "code": "c0ffee",
        "receipts": str(consents.receipts()),
        "verdict": "passed",
    }
    assert lineage.items() <= run.tags.items()
    assert lineage.items() <= registry.version(1).tags.items()
    assert sum(name.startswith("gate.") for name in run.tags) == 4
    assert sum(name.startswith("check.") for name in run.tags) == 11
    for name in (CARD, "activity.png", "popularity.png", "history.png"):
        assert registry.runs.file(run.run_id, name)


def test_every_trial_is_a_run_below_the_retrainings(trained: Trained) -> None:
    registry = trained.registry
    trials = registry.runs.below(registry.version(1).run_id)
    assert len(trials) >= 3
    assert {"ndcg_at_10", "seconds"} <= trials[0].metrics.keys()
    assert len({trial.parameters["algorithm"] for trial in trials}) >= 3


def test_a_recipe_that_is_not_shown_to_be_as_good_makes_room_for_the_champions_own(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, registry = trained.job, trained.registry
    monkeypatch.setattr(job_module, "search", lambda *_, **__: Found(POPULARITY, ()))
    outcome = job.run()
    one, two = (load(registry.bundle(version)).manifest for version in (1, 2))
    assert (outcome.result, two.algorithm, two.parameters) == ("published", one.algorithm, one.parameters)
    assert outcome.reasons[-1].startswith("set aside popularity: ")
    assert registry.version(2).tags["set_aside"].startswith("popularity: popularity: nDCG@10")


def test_the_champions_recipe_and_the_best_of_the_last_tuning_are_tried_first(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, registry = trained.job, trained.registry
    remembered = Recipe("item_item", {"weighting": "bm25", "neighbours": 7}).whole()
    with registry.runs.run(TUNING) as run_id:
        registry.runs.log(run_id, tags=as_tag([Trial(remembered, 0.5, 1.0, "complete")]))
    tried: list[Recipe] = []

    def look(split: Split, seconds: float, first: list[Recipe], **_: Any) -> Found:
        tried.extend(first)
        return Found(first[0], ())

    monkeypatch.setattr(job_module, "search", look)
    job.run()
    manifest = load(registry.bundle(1)).manifest
    assert tried == [Recipe(manifest.algorithm, manifest.parameters, manifest.recency), remembered]


@pytest.mark.usefixtures("landed")
def test_a_run_that_fails_ends_as_failed_with_the_reason(job: Job, store: OnlineStore, registry: ModelRegistry) -> None:
    store.delete(CONSENT_HEAD)
    with pytest.raises(ConsentUnavailable):
        job.run()
    run = registry.runs.of_kind(TRAINING)[0]
    assert (run.status, run.tags[FAILURE]) == (
        "FAILED",
        "ConsentUnavailable: the consent projection is not whole; an ingest process rebuilds it from the ledger",
    )


def test_a_run_whose_process_was_killed_is_ended_by_the_next(job: Job, grant: Grant, registry: ModelRegistry) -> None:
    grant([])
    killed = registry.runs.start(TRAINING, {})
    with pytest.raises(TrainingError):
        job.run()
    assert registry.runs.with_ids([killed])[killed].status == "FAILED"


@pytest.mark.usefixtures("landed", "one_recipe")
def test_items_that_were_described_come_along_and_hidden_ones_are_in_no_list(
    job: Job, lake: Lake, registry: ModelRegistry
) -> None:
    rows = [("m0-00", '{"title":"Zero"}', False, 0, 0), ("m-popular", "{}", True, 0, 1)]
    lake.append(ITEMS, pl.DataFrame(rows, schema=dict(TABLES[ITEMS]), orient="row"), {0: Span(0, 2)})
    job.run()
    items = load(registry.bundle(1)).items
    assert "m-popular" not in items.item_ids
    assert items.attributes[items.item_ids.index("m0-00")] == {"title": "Zero"}


@pytest.mark.usefixtures("landed", "one_recipe")
def test_the_gap_of_the_job_is_that_of_both_its_hold_outs(
    lake: Lake,
    consents: ConsentProjection,
    registry: ModelRegistry,
    publisher: Publisher,
    domain: Domain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gaps: list[timedelta] = []

    def look(*parts: Any, gap: timedelta) -> Split:
        gaps.append(gap)
        return split_by_time(*parts, gap=gap)

    for module in (job_module, search_module):
        monkeypatch.setattr(module, "split_by_time", look)
    day = timedelta(days=1)
    Job(
        lake=lake, consents=consents, registry=registry, publisher=publisher, domain=domain, code="c0ffee", gap=day
    ).run()
    assert gaps == [day, day]
