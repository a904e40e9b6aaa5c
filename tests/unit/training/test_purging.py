"""After an erasure the next version takes the champion's place, and what was learned before is removed for good."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from infra.event_log.port import EventLog
from infra.event_log.redis_streams import RedisStreamsEventLog
from infra.lake import EVENTS, Lake
from infra.model_registry import PURGED, ModelRegistry, VersionPurged
from infra.online_store import OnlineStore
from infra.runs import Run
from ingest.events import ERASURES, ConsentProjection, Domain, Erasures, ErasureStep, decode
from training import job as job_module
from training import promotion, purging
from training.bundle import CURRENT, KEPT, bundle_key, list_key, live_key, load, manifest_key
from training.job import Job
from training.publish import Publisher, current
from training.purging import purge, purge_and_sign
from training.recipe import Recipe
from training.rollback import ByHand, NothingToRollBackTo, promote, roll_back
from training.run_record import TRAINING
from training.search import Found
from training.snapshot import read_lake

Grant = Callable[..., None]
Erase = Callable[[str], None]


@pytest.fixture(autouse=True)
def _one_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is searched: what is asked here is what becomes of versions."""
    monkeypatch.setattr(job_module, "search", lambda *_, **__: Found(Recipe("ease", {}).whole(), ()))


@pytest.fixture
def log(redis_url: str, store: OnlineStore) -> Iterator[EventLog]:
    opened = RedisStreamsEventLog(redis_url, uuid.uuid4().hex, 1)
    yield opened
    opened.close()


@pytest.fixture
def erase(lake: Lake, grant: Grant, store: OnlineStore) -> Erase:
    """What ingest and the lander do when somebody is erased: receipt 5."""

    def forget(user_id: str) -> None:
        grant([user_id], revoked=5)
        lake.forget(EVENTS, {user_id: 5})
        store.set(ERASURES, Erasures(5, {"e1": 5}).encode())

    return forget


@pytest.fixture
def settle(
    registry: ModelRegistry, store: OnlineStore, consents: ConsentProjection, log: EventLog
) -> Callable[[], None]:
    """What `marquee train` does before and after a run."""

    @contextmanager
    def open_log() -> Iterator[EventLog]:
        yield log

    return lambda: purge_and_sign(registry, store, consents, open_log)


def signed(log: EventLog) -> list[tuple[str, str, int | None]]:
    consumer = log.consumer(uuid.uuid4().hex)
    said = [decode(record.value) for record in consumer.poll(0.3)]
    consumer.close()
    return [(step.erasure_id, step.stage, step.removed) for step in said if isinstance(step, ErasureStep)]


def files_of(registry: ModelRegistry, version: int) -> list[Path]:
    place = registry.runs.with_ids([registry.version(version).run_id])
    [run] = place.values()
    return [path for path in Path(run.artifacts.removeprefix("file://")).rglob("*") if path.is_file()]


@pytest.mark.usefixtures("landed")
def test_once_a_later_version_is_served_what_was_learned_before_is_gone_and_signed_for(
    job: Job, erase: Erase, settle: Callable[[], None], store: OnlineStore, registry: ModelRegistry, log: EventLog
) -> None:
    job.run()
    erase("u007")
    settle()
    assert files_of(registry, 1), "it is served still"
    assert signed(log) == []
    job.run()
    store.set(live_key(1, "u001"), b"nearline's")
    settle()
    assert files_of(registry, 1) == []
    assert not store.exists(bundle_key(1), list_key(1, "u001"), live_key(1, "u001"))
    assert store.smembers(KEPT) == {b"2"}
    assert store.exists(manifest_key(1)), "a list that was handed out can still be asked where it came from"
    assert signed(log) == [("e1", "models", 1)]
    assert current(store) == registry.champion() == 2
    assert load(registry.bundle(2)).manifest.snapshot.users == 59
    assert PURGED in registry.version(1).tags
    assert registry.version(1).metrics["ndcg_at_10"] > 0, "averages stay"


@pytest.mark.usefixtures("landed")
def test_a_purged_version_is_served_by_nobody_s_word(
    job: Job,
    erase: Erase,
    settle: Callable[[], None],
    store: OnlineStore,
    registry: ModelRegistry,
    publisher: Publisher,
    lake: Lake,
    consents: ConsentProjection,
    domain: Domain,
) -> None:
    job.run()
    erase("u007")
    job.run()
    settle()

    def histories() -> Any:
        return read_lake(lake, consents, domain).histories()

    for refused in (
        lambda: roll_back(store, registry, publisher, histories, 1),
        lambda: promote(registry, publisher, histories, 1, ByHand("ada", "I want it", force=True)),
        lambda: registry.bundle(1),
    ):
        with pytest.raises(VersionPurged, match="version 1 is purged: it was trained on events of people who"):
            refused()
    with pytest.raises(NothingToRollBackTo, match="not purged"):
        roll_back(store, registry, publisher, histories, None)
    assert current(store) == registry.champion() == 2


@pytest.mark.usefixtures("landed")
def test_where_the_gate_refuses_the_challenger_the_champion_s_own_recipe_takes_its_place(
    job: Job, erase: Erase, settle: Callable[[], None], registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where that fails the gate too: a model of somebody who was erased may not stay."""
    job.run()
    monkeypatch.setattr(promotion, "GAIN", 100.0)
    assert job.run().result == "refused"
    erase("u007")
    outcome = job.run()
    assert (outcome.result, outcome.version, registry.champion()) == ("published", 3, 3)
    one, three = (load(registry.bundle(version)).manifest for version in (1, 3))
    assert (one.algorithm, one.parameters, one.recency) == (three.algorithm, three.parameters, three.recency)
    assert any("people were erased since the champion was trained" in reason for reason in outcome.reasons)
    tags = registry.version(3).tags
    assert tags["gate.popularity"].startswith("failed")
    assert tags["gate.erasure"].startswith("passed")
    settle()
    assert [one.version for one in registry.versions() if PURGED in one.tags] == [2, 1], "refused ones go too"
    assert job.run().result == "refused", "from then on the gate decides again"


@pytest.mark.usefixtures("landed")
def test_files_of_a_run_that_was_killed_before_it_made_a_version_go_too(
    job: Job, erase: Erase, settle: Callable[[], None], registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(registry._client, "create_model_version", killed)
        with pytest.raises(KeyboardInterrupt):
            job.run()
    [orphan] = registry.runs.of_kind(TRAINING)
    folder = Path(orphan.artifacts.removeprefix("file://"))
    assert (folder / "bundle.zip").exists()
    erase("u007")
    job.run()
    settle()
    assert not folder.exists()
    assert files_of(registry, 1)


@pytest.mark.usefixtures("landed")
def test_killed_at_any_step_it_is_continued_by_the_next_run(
    job: Job,
    erase: Erase,
    store: OnlineStore,
    registry: ModelRegistry,
    consents: ConsentProjection,
    log: EventLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The steps: a tag a version, its keys, a run's files, the signature; each is cut short before and after."""
    job.run()
    job.run()
    erase("u007")
    job.run()
    died: set[str] = set()

    def die(point: str) -> None:
        if point not in died:
            died.add(point)
            raise KeyboardInterrupt

    def dying(name: str, work: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            step = f"{name} {[str(word) for word in arguments if isinstance(word, int | Run)]}"
            die(f"before {step}")
            done = work(*arguments, **named)
            die(f"after {step}")
            return done

        return call

    @contextmanager
    def open_log() -> Iterator[Any]:
        yield type("Log", (), {"append": staticmethod(dying("sign", log.append))})

    monkeypatch.setattr(registry, "tag", dying("tag", registry.tag))
    monkeypatch.setattr(purging, "remove_version", dying("remove", purging.remove_version))
    monkeypatch.setattr(registry.runs, "purge", dying("purge", registry.runs.purge))
    while True:
        try:
            purge_and_sign(registry, store, consents, open_log)
            break
        except KeyboardInterrupt:
            continue
    assert len(died) == 2 * (2 + 2 + 2 + 1)
    kept = [version for version in (1, 2, 3) if files_of(registry, version)]
    assert kept == [3]
    assert {stage for _, stage, _ in signed(log)} == {"models"}
    assert [one.version for one in registry.versions() if PURGED in one.tags] == [2, 1]


def test_before_the_first_version_an_erasure_waits_for_no_model(
    settle: Callable[[], None], grant: Grant, store: OnlineStore, log: EventLog
) -> None:
    grant(["u1"])
    store.set(ERASURES, Erasures(5, {"e1": 5}).encode())
    settle()
    assert signed(log) == [("e1", "models", 0)]


@pytest.mark.usefixtures("landed")
def test_a_store_that_was_restored_and_serves_such_a_version_is_put_right_first(
    job: Job, erase: Erase, store: OnlineStore, registry: ModelRegistry
) -> None:
    """The file of Redis is from before: its version goes when the champion is published again."""
    job.run()
    erase("u007")
    job.run()
    store.set(CURRENT, 1)
    assert purge(registry, store, 5) is None
    job.run()
    assert purge(registry, store, 5) == 1
