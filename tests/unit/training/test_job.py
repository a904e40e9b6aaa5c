"""The retraining job on small viewers: real lake, real Redis, real registry."""

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
from deltalake import write_deltalake

from infra.lake import EVENTS, ITEMS, TABLES, Lake, Span
from infra.model_registry import ModelRegistry
from infra.online_store import OnlineStore
from infra.runs import FAILURE
from ingest.events import CONSENT_HEAD, ConsentProjection, ConsentUnavailable, Domain
from training import job as job_module
from training import promotion
from training import search as search_module
from training.bundle import bundle_key, list_key, load
from training.comparison import POPULARITY
from training.job import Job, TrainingError
from training.model_card import CARD
from training.publish import Publisher, current
from training.recipe import Recipe
from training.run_record import TRAINING
from training.search import TUNING, Found, as_tag, search
from training.split import Split, split_by_time
from training.tuning import Trial

Rows = Callable[..., pl.DataFrame]
Grant = Callable[..., None]
Land = Callable[[pl.DataFrame], None]


@pytest.mark.usefixtures("landed")
def test_the_first_model_beats_popularity_and_is_published(
    job: Job, store: OnlineStore, registry: ModelRegistry
) -> None:
    outcome = job.run()
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


@pytest.mark.usefixtures("landed")
def test_no_person_is_in_the_bundle_or_the_registry(job: Job, registry: ModelRegistry) -> None:
    job.run()
    value = registry.bundle(1)
    bundle = load(value)
    assert all(len(array) == 61 or name != "item_factors" for name, array in bundle.arrays.items())
    everything = bundle.manifest.model_dump_json() + repr(registry.versions()) + repr(bundle.items)
    assert "u001" not in everything


@pytest.mark.usefixtures("landed")
def test_the_same_snapshot_gives_the_same_model(job: Job, registry: ModelRegistry) -> None:
    job.run()
    job.run()
    one, two = (load(registry.bundle(version)) for version in (1, 2))
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


@pytest.mark.usefixtures("landed")
def test_a_refused_challenger_is_registered_and_the_champion_keeps_serving(
    job: Job, store: OnlineStore, registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.run()
    store.delete(list_key(1, "u001"))
    monkeypatch.setattr(promotion, "GAIN", 100.0)
    outcome = job.run()
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


def test_an_empty_lake_says_what_to_do(job: Job) -> None:
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


@pytest.mark.usefixtures("landed")
def test_a_publish_that_fails_leaves_champion_and_served_version_where_they_are(
    job: Job, store: OnlineStore, registry: ModelRegistry, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.run()

    def fail(*_: object) -> None:
        raise ConsentUnavailable("by the test")

    monkeypatch.setattr(publisher, "_check", fail)
    with pytest.raises(ConsentUnavailable):
        job.run()
    assert current(store) == registry.champion() == 1


@pytest.mark.usefixtures("landed")
def test_a_failed_check_ends_the_run_before_tuning_and_the_champion_keeps_serving(
    job: Job,
    land: Land,
    landed: pl.DataFrame,
    store: OnlineStore,
    registry: ModelRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until an operator who knows why accepts the data; that is recorded."""
    job.run()
    store.delete(list_key(1, "u001"))
    land(landed.head(400))
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


@pytest.mark.usefixtures("landed")
def test_accepting_good_data_is_nothing_to_record(job: Job, registry: ModelRegistry) -> None:
    job.run(accept_data="just in case")
    assert "accepted_data" not in registry.version(1).tags


@pytest.mark.usefixtures("landed")
def test_a_run_holds_where_it_came_from_what_it_measured_and_what_was_said(
    job: Job, registry: ModelRegistry, consents: ConsentProjection
) -> None:
    outcome = job.run()
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


@pytest.mark.usefixtures("landed")
def test_every_trial_is_a_run_below_the_retrainings(job: Job, registry: ModelRegistry) -> None:
    job.run()
    trials = registry.runs.below(registry.version(1).run_id)
    assert len(trials) >= 3
    assert {"ndcg_at_10", "seconds"} <= trials[0].metrics.keys()
    assert len({trial.parameters["algorithm"] for trial in trials}) >= 3


@pytest.mark.usefixtures("landed")
def test_a_recipe_that_is_not_shown_to_be_as_good_makes_room_for_the_champions_own(
    job: Job, registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.run()
    monkeypatch.setattr(job_module, "search", lambda *_: Found(POPULARITY, ()))
    outcome = job.run()
    one, two = (load(registry.bundle(version)).manifest for version in (1, 2))
    assert (outcome.result, two.algorithm, two.parameters) == ("published", one.algorithm, one.parameters)
    assert outcome.reasons[-1].startswith("set aside popularity: ")
    assert registry.version(2).tags["set_aside"].startswith("popularity: popularity: nDCG@10")


@pytest.mark.usefixtures("landed")
def test_the_champions_recipe_and_the_best_of_the_last_tuning_are_tried_first(
    job: Job, registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.run()
    remembered = Recipe("item_item", {"weighting": "bm25", "neighbours": 7}).whole()
    with registry.runs.run(TUNING) as run_id:
        registry.runs.log(run_id, tags=as_tag([Trial(remembered, 0.5, 1.0, "complete")]))
    tried: list[Recipe] = []

    def look(split: Split, seconds: float, first: list[Recipe]) -> Found:
        tried.extend(first)
        return search(split, seconds, first)

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


def test_a_run_whose_process_was_killed_is_ended_by_the_next(job: Job, registry: ModelRegistry) -> None:
    killed = registry.runs.start(TRAINING, {})
    with pytest.raises(TrainingError):
        job.run()
    assert registry.runs.with_ids([killed])[killed].status == "FAILED"


@pytest.mark.usefixtures("landed")
def test_items_that_were_described_come_along_and_hidden_ones_are_in_no_list(
    job: Job, lake: Lake, registry: ModelRegistry
) -> None:
    rows = [("m0-00", '{"title":"Zero"}', False, 0, 0), ("m-popular", "{}", True, 0, 1)]
    lake.append(ITEMS, pl.DataFrame(rows, schema=dict(TABLES[ITEMS]), orient="row"), {0: Span(0, 2)})
    job.run()
    items = load(registry.bundle(1)).items
    assert "m-popular" not in items.item_ids
    assert items.attributes[items.item_ids.index("m0-00")] == {"title": "Zero"}


@pytest.mark.usefixtures("landed")
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
