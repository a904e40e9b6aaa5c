"""A store that is put back to an earlier day does not bring anybody back."""

import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.event_log.redis_streams import RedisStreamsEventLog
from infra.lake import EVENTS, Lake
from ingest.events import CONSENT_HEAD, Consent, ConsentUnavailable, ErasureStep, encode, key, now
from ingest.projection import LedgerBehind
from ingest.reconciliation import HISTORIES, NAMED, PATTERNS, SOURCE, Reconciliation
from training.bundle import KEPT, WRITTEN, Interaction, bundle_key, encode_history, history_key, list_key, live_key
from training.publish import forget_lists
from workshop.traces import find_traces

MakeEvent = Callable[..., dict[str, Any]]
CANARY = "the-canary"


@pytest.fixture
def reconciliation(ingest: Any) -> Reconciliation:
    return Reconciliation(ingest.lake, ingest.store, ingest.log, ingest.projection, ingest.consents)


@pytest.fixture
def lived(ingest: Any, client: httpx.Client, event: MakeEvent) -> None:
    """The canary and a neighbour have done things, and have histories and lists."""
    for person in (CANARY, "neighbour"):
        ingest.allow(person)
        client.post("/v1/events", json={"events": [event(user_id=person, event_id=f"{person}-{n}") for n in range(3)]})
        ingest.log.append([(person.encode(), b"no record of " + person.encode())])
        ingest.store.set(history_key(person), encode_history({"m1": Interaction(1, 1.0)}))
        ingest.store.zadd(WRITTEN, {person: 1})
        ingest.store.set(list_key(1, person), b"1")
    ingest.store.sadd(KEPT, 1)
    ingest.land()


def forgotten_everywhere(ingest: Any) -> None:
    """What the other stages do when they meet a mark; then the lander and the log."""
    ingest.land()
    forget_lists(ingest.store, CANARY)
    ingest.store.delete(history_key(CANARY), live_key(1, CANARY))
    ingest.store.zrem(WRITTEN, CANARY)
    for state in ingest.ledger.open_erasures():
        for stage in ("lists", "nearline"):
            step = ErasureStep(erasure_id=state.erasure_id, stage=stage, removed=1, at=now())
            ingest.log.append([(key(step), encode(step))])
    ingest.land()
    assert ingest.ledger.open_erasures() == []


def erase(ingest: Any) -> None:
    ingest.consents.erase(CANARY, "1", "test")
    forgotten_everywhere(ingest)
    assert traces(ingest) == []


def traces(ingest: Any) -> list[str]:
    return find_traces(CANARY, ingest.folder, ingest.store)


def bystander(ingest: Any) -> list[Any]:
    store = ingest.store
    rows = ingest.lake.events_of("neighbour").rows()
    letters = ingest.lake.dead_letters_of(b"neighbour").rows()
    return [rows, letters, store.get(history_key("neighbour")), store.get(list_key(1, "neighbour"))]


@pytest.fixture
def put_lake_back(ingest: Any, lived: None, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], None]:
    """Puts the lake back to what it is now."""
    backup = tmp_path_factory.mktemp("backup") / "lake"
    shutil.copytree(ingest.folder / "lake", backup)

    def put_back() -> None:
        shutil.rmtree(ingest.folder / "lake")
        backup.rename(ingest.folder / "lake")

    return put_back


def test_a_lake_that_was_put_back_is_cleared(
    ingest: Any, reconciliation: Reconciliation, put_lake_back: Callable[[], None]
) -> None:
    before = bystander(ingest)
    erase(ingest)
    put_lake_back()
    assert traces(ingest) != []
    assert reconciliation.run() == 4
    assert traces(ingest) == []
    assert bystander(ingest) == before
    assert reconciliation.run() == 0


def test_a_search_that_only_deletes_rows_would_leave_traces(
    ingest: Any, reconciliation: Reconciliation, put_lake_back: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the bytes stay in old files, and the test above would see them."""
    erase(ingest)
    put_lake_back()
    monkeypatch.setattr(Lake, "purge", lambda self: None)
    reconciliation.run()
    assert traces(ingest) != []


@pytest.mark.usefixtures("lived")
def test_a_redis_that_was_put_back_and_its_log_are_cleared_by_a_new_erasure(
    ingest: Any, reconciliation: Reconciliation
) -> None:
    """The lake has landed more than the old log holds: new records go on behind that."""
    before = bystander(ingest)
    saved = {name: ingest.store.dump(name) for name in ingest.store.keys("*")}
    erase(ingest)
    ingest.store.flushall()
    for name, value in saved.items():
        ingest.store.restore(name, 0, value)
    assert traces(ingest) != []
    ingest.rebuild()
    ingest.log.keep(partial(ingest.lake.landed, EVENTS))
    assert reconciliation.run() == 1
    forgotten_everywhere(ingest)
    assert traces(ingest) == []
    assert bystander(ingest) == before
    _, receipts = ingest.consents.current(CANARY)
    assert [(receipt.action, receipt.source) for receipt in receipts] == [
        ("grant", "test"),
        ("erase", "test"),
        ("erase", SOURCE),
    ]
    assert reconciliation.run() == 0


def test_records_after_a_log_was_put_back_are_refused_until_it_goes_on_behind_the_fence(
    ingest: Any, client: httpx.Client, event: MakeEvent
) -> None:
    ingest.allow("u1")
    saved = {name: ingest.store.dump(name) for name in ingest.store.keys("*")}
    client.post("/v1/events", json={"events": [event(event_id=f"lost-{n}") for n in range(4)]})
    ingest.land()
    ingest.store.flushall()
    for name, value in saved.items():
        ingest.store.restore(name, 0, value)
    ingest.rebuild()
    answer = client.post("/v1/events", json={"events": [event(event_id="passed-over")]})
    assert (answer.status_code, answer.json()["code"]) == (503, "log_unavailable")
    ingest.land()
    ingest.log.keep(partial(ingest.lake.landed, EVENTS))
    client.post("/v1/events", json={"events": [event(event_id="landed")]})
    ingest.land()
    landed = set(ingest.lake.events_of("u1")["event_id"])
    assert landed == {*(f"lost-{n}" for n in range(4)), "landed"}


@pytest.mark.usefixtures("lived")
def test_a_ledger_that_was_put_back_shuts_every_gate(
    ingest: Any, client: httpx.Client, event: MakeEvent, new_ingest: Any, tmp_path_factory: Any, redis_url: str
) -> None:
    old: Path = tmp_path_factory.mktemp("old")
    with (
        closing(sqlite3.connect(ingest.folder / "ledger.db")) as today,
        closing(sqlite3.connect(old / "ledger.db")) as then,
    ):
        today.backup(then)
    erase(ingest)
    ingest.rebuild()  # As each second.
    restored = new_ingest(old, redis_url, redis_url, ingest.log._topic)
    with pytest.raises(LedgerBehind):
        restored.rebuild()
    assert not ingest.store.exists(CONSENT_HEAD)
    assert client.post("/v1/events", json={"events": [event(user_id=CANARY)]}).status_code == 503
    with pytest.raises(ConsentUnavailable):
        Reconciliation(ingest.lake, ingest.store, ingest.log, restored.projection, restored.consents).run()
    restored.close()


def test_who_allows_it_again_keeps_what_came_since(
    ingest: Any,
    reconciliation: Reconciliation,
    client: httpx.Client,
    event: MakeEvent,
    put_lake_back: Callable[[], None],
) -> None:
    erase(ingest)
    put_lake_back()
    ingest.log.keep(partial(ingest.lake.landed, EVENTS))
    ingest.allow(CANARY)
    client.post("/v1/events", json={"events": [event(user_id=CANARY, event_id="new")]})
    ingest.land()
    reconciliation.run()
    assert ingest.lake.events_of(CANARY)["event_id"].to_list() == ["new"]
    assert ingest.ledger.open_erasures() == []


@pytest.mark.usefixtures("lived")
def test_where_redis_says_no_and_the_record_says_yes_nobody_is_erased(
    ingest: Any, reconciliation: Reconciliation
) -> None:
    """A projection that was put back as well."""
    ingest.store.set(ingest.projection.key(CANARY), Consent(0, 1).encode())
    ingest.store.set(CONSENT_HEAD, 2)
    reconciliation.run()
    assert ingest.ledger.open_erasures() == []
    assert ingest.store.exists(history_key(CANARY))


@pytest.mark.usefixtures("lived")
def test_with_another_secret_everybody_is_a_stranger_and_nothing_is_touched(ingest: Any) -> None:
    before = bystander(ingest)
    projection = type(ingest.projection)(ingest.store, "another secret")
    assert Reconciliation(ingest.lake, ingest.store, ingest.log, projection, ingest.consents).run() == 0
    assert bystander(ingest) == before


@pytest.mark.usefixtures("lived")
def test_who_withdrew_stays_in_the_log_and_does_not_withdraw_again_by_that(
    ingest: Any, reconciliation: Reconciliation
) -> None:
    ingest.consents.withdraw(CANARY, "1", "test")
    forgotten_everywhere(ingest)
    assert reconciliation.run() == 0
    ingest.store.set(list_key(1, CANARY), b"put back")
    assert reconciliation.run() == 1
    forgotten_everywhere(ingest)
    assert not ingest.store.exists(list_key(1, CANARY))


def test_a_log_that_cannot_remove_records_is_not_looked_through(
    ingest: Any, reconciliation: Reconciliation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RedisStreamsEventLog, "keeps_seconds", lambda self: 1.0)
    monkeypatch.setattr(RedisStreamsEventLog, "consumer", None)
    assert reconciliation.run() == 0


@pytest.mark.parametrize("person", ["a:b", "{a}", "}", "a\nb"])
def test_keys_that_name_people_are_where_the_stages_write_them(person: str) -> None:
    keys = [history_key(person), list_key(7, person), live_key(7, person)]
    for found, pattern in zip(keys, PATTERNS, strict=True):
        assert fnmatchcase(found, pattern)
        named = NAMED.fullmatch(found)
        assert named
        assert person in (named["history"], named["list"])
    assert not NAMED.fullmatch(bundle_key(7))
    assert HISTORIES == WRITTEN


@pytest.mark.usefixtures("lived")
def test_it_is_tried_again_while_a_store_is_down_and_ends_when_it_is_told_to(
    ingest: Any, reconciliation: Reconciliation, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    stop = threading.Event()

    def run() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise ConsentUnavailable("down")
        stop.set()
        return 0

    monkeypatch.setattr("ingest.reconciliation.AFTER_SECONDS", 0.01)
    monkeypatch.setattr(reconciliation, "run", run)
    reconciliation.keep(stop)
    assert len(calls) == 2
