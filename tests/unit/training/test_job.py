"""The retraining job on small viewers: real lake, real Redis, real registry."""

from collections.abc import Callable
from typing import cast

import numpy as np
import polars as pl
import pytest

from infra.lake import EVENTS, ITEMS, TABLES, Lake, Span
from infra.model_registry import ModelRegistry
from infra.online_store import OnlineStore
from ingest.events import CONSENT_HEAD, ConsentUnavailable
from training import job as job_module
from training.bundle import bundle_key, list_key, load
from training.job import Job, TrainingError
from training.promotion import Verdict
from training.publish import Publisher, current

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
    assert set(outcome.seconds) == {"read", "split", "tune", "compare", "fit", "register", "publish"}
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
    monkeypatch.setattr(job_module, "judge_challenger", lambda *_: Verdict(False, ("failed: by the test",)))
    outcome = job.run()
    assert (outcome.result, outcome.version, outcome.reasons) == ("refused", 2, ("failed: by the test",))
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
    assert outcome.reasons[0].startswith("failed")
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
    with pytest.raises(TrainingError, match=rf"of {people} people .* at least 50 of 5: collect more"):
        job.run()
    assert registry.versions() == []


def test_events_of_one_moment_cannot_be_held_out(job: Job, event_rows: Rows, land: Land, grant: Grant) -> None:
    users = [f"u{person}" for person in range(10)]
    land(event_rows([(user, f"m{item}", 5) for user in users for item in range(9)]))
    grant(users)
    with pytest.raises(TrainingError, match="same moment"):
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
def test_items_that_were_described_come_along_and_hidden_ones_are_in_no_list(
    job: Job, lake: Lake, registry: ModelRegistry
) -> None:
    rows = [("m0-00", '{"title":"Zero"}', False, 0, 0), ("m-popular", "{}", True, 0, 1)]
    lake.append(ITEMS, pl.DataFrame(rows, schema=dict(TABLES[ITEMS]), orient="row"), {0: Span(0, 2)})
    job.run()
    items = load(registry.bundle(1)).items
    assert "m-popular" not in items.item_ids
    assert items.attributes[items.item_ids.index("m0-00")] == {"title": "Zero"}
