"""A version is published whole or not at all, and never for somebody who does not allow it."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest
import redis

from infra.online_store import OnlineStore, OnlineStoreError, connect
from ingest.events import CONSENT_HEAD, ConsentProjection, ConsentUnavailable
from training import flip, publish
from training.algorithms.item_item import ItemItem
from training.algorithms.popularity import Popularity
from training.bundle import (
    ALIVE,
    CURRENT,
    KEPT,
    NEXT,
    Bundle,
    Interaction,
    ItemTable,
    Manifest,
    Snapshot,
    bundle_key,
    caught_up_key,
    decode_list,
    list_key,
    live_key,
    load,
    manifest_key,
)
from training.interactions import Interactions, histories, read_catalogue, read_events
from training.publish import BATCH, Publisher, PublishError, current, forget_lists, kept, over_items_of

Rows = Callable[..., pl.DataFrame]
Grant = Callable[..., None]
TTL = 1000
SECRET = "a secret of the tests"
LENGTH = 5
ROOT = Path(__file__).parents[3]


def bundle_of(interactions: Interactions, algorithm: Any = None) -> Bundle:
    model = algorithm or ItemItem()
    model.fit(interactions.positives)
    manifest = Manifest(
        algorithm=model.name,
        parameters=model.parameters,
        domain="films",
        history_length=100,
        snapshot=Snapshot(version=1, digest="d", watermark={}, events=1, users=1),
        code="unknown",
        run_id="r",
        trained_at=datetime(2024, 1, 1, tzinfo=UTC),
        metrics={},
    )
    catalogue = interactions.catalogue
    items = ItemTable(catalogue.items.ids, catalogue.attributes, interactions.popularity)
    return Bundle(manifest, items, model, model.arrays())


@pytest.fixture(scope="module")
def interactions(viewers: Rows) -> Interactions:
    """Histories of sixty viewers."""
    events = read_events(viewers().lazy(), {"play": 1.0})
    return histories(events.rows, read_catalogue(None, events), 100)


@pytest.fixture(scope="module")
def bundle(interactions: Interactions) -> Bundle:
    """A model of theirs."""
    return bundle_of(interactions)


@pytest.fixture
def publisher(store: OnlineStore, consents: ConsentProjection, grant: Grant, interactions: Interactions) -> Publisher:
    """A publisher; everybody allows personalization."""
    grant(interactions.users.ids)
    return Publisher(store, consents, LENGTH, TTL)


def versions_with_keys(store: OnlineStore) -> set[int]:
    return {int(key.split(b":")[1]) for name in ("list", "live", "bundle") for key in store.scan_iter(f"{name}:*")}


def lists(store: OnlineStore, version: int) -> dict[str, list[int]]:
    found = {}
    for key in store.scan_iter(list_key(version, "*")):
        found[key.decode().split(":", 2)[2][1:-1]] = decode_list(cast(bytes, store.get(key))).tolist()
    return found


def test_everybody_gets_the_list_that_the_bundle_makes_of_their_history(
    publisher: Publisher, store: OnlineStore, bundle: Bundle, interactions: Interactions
) -> None:
    assert publisher.publish(1, bundle, interactions) == 60
    published = lists(store, 1)
    assert published.keys() == set(interactions.users.ids)
    for row, user in enumerate(interactions.users.ids):
        held = interactions.user_items[row].indices
        history = {interactions.catalogue.items.ids[i]: Interaction(1, 1.0) for i in held}
        assert published[user] == bundle.recommend([history], LENGTH)[0][0].tolist()
        assert not set(published[user]) & set(held.tolist())


def test_the_version_is_current_its_bundle_can_be_loaded_and_every_key_expires(
    publisher: Publisher, store: OnlineStore, bundle: Bundle, interactions: Interactions
) -> None:
    publisher.publish(7, bundle, interactions)
    assert (current(store), kept(store)) == (7, {7})
    assert load(cast(bytes, store.get(bundle_key(7)))).digest() == bundle.digest()
    keys = [*store.scan_iter("list:*"), *store.scan_iter("bundle:*")]
    assert len(keys) == 61
    assert all(0 < store.ttl(key) <= TTL for key in keys)


def test_the_version_before_stays_for_a_rollback_and_older_ones_go(
    publisher: Publisher, store: OnlineStore, bundle: Bundle, interactions: Interactions
) -> None:
    for version in (1, 2, 3):
        publisher.publish(version, bundle, interactions)
        store.set(live_key(version, "u001"), b"")
    assert kept(store) == versions_with_keys(store) == {2, 3}
    assert publisher.serve_again(2)
    publisher.publish(4, bundle, interactions)
    assert kept(store) == versions_with_keys(store) == {2, 4}


def test_publishing_the_current_version_again_removes_nothing(
    publisher: Publisher, store: OnlineStore, bundle: Bundle, interactions: Interactions
) -> None:
    publisher.publish(1, bundle, interactions)
    publisher.publish(2, bundle, interactions)
    publisher.publish(2, bundle, interactions)
    assert kept(store) == {1, 2}
    assert len(lists(store, 1)) == 60


def test_only_a_whole_version_is_served_again(
    publisher: Publisher, store: OnlineStore, bundle: Bundle, interactions: Interactions
) -> None:
    publisher.publish(1, bundle, interactions)
    assert not publisher.serve_again(2)
    assert current(store) == 1


# --- consent ---------------------------------------------------------------------------------------------------------


def test_nobody_who_does_not_allow_it_gets_a_list(
    publisher: Publisher, store: OnlineStore, grant: Grant, bundle: Bundle, interactions: Interactions
) -> None:
    grant(["u001"], revoked=5)
    grant(["u002"], granted=9, revoked=5)  # allowed again, but what the history rests on was withdrawn
    grant(["u003"], granted=9, purpose="analytics")
    assert publisher.publish(1, bundle, interactions) == 57
    assert lists(store, 1).keys() == set(interactions.users.ids) - {"u001", "u002", "u003"}


def test_who_withdraws_while_lists_are_written_loses_the_list(
    store: OnlineStore, grant: Grant, bundle: Bundle, interactions: Interactions
) -> None:
    """The first answer is still a yes; the second, after all lists are written, a no."""
    grant(interactions.users.ids)

    class Withdrawing(ConsentProjection):
        def read(self, user_ids: Any) -> Any:
            answer = super().read(user_ids)
            grant(["u001", "u030"], revoked=5)
            return answer

    publisher = Publisher(store, Withdrawing(store, SECRET), LENGTH, TTL)
    assert publisher.publish(1, bundle, interactions) == 58
    assert lists(store, 1).keys() == set(interactions.users.ids) - {"u001", "u030"}


@pytest.mark.parametrize("asked", range(6))
def test_who_withdraws_at_any_moment_while_batches_are_written_loses_the_list(
    store: OnlineStore,
    grant: Grant,
    bundle: Bundle,
    interactions: Interactions,
    asked: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of people in three batches, each asked about twice: one of the batch in hand, after the answer is given.

    After the second answer the withdrawal is the schedule's affair: its mark comes when the list stands.
    """
    monkeypatch.setattr(publish, "BATCH", 20)
    grant(interactions.users.ids)
    answers: list[list[str]] = []

    class Withdrawing(ConsentProjection):
        def read(self, user_ids: Any) -> Any:
            answer = super().read(user_ids)
            answers.append(list(user_ids))
            if len(answers) == asked + 1:
                grant([answers[-1][7]], revoked=5)
            return answer

    publisher = Publisher(store, Withdrawing(store, SECRET), LENGTH, TTL)
    publisher.publish(1, bundle, interactions)
    assert len(answers) == 6
    gone = answers[asked][7]
    listed = gone in lists(store, 1)
    asked_again = [number for number, people in enumerate(answers) if gone in people and number > asked]
    assert listed == (not asked_again)
    forget_lists(store, gone)
    assert lists(store, 1).keys() == set(interactions.users.ids) - {gone}


def test_who_withdraws_after_that_is_found_by_the_schedule_under_a_version_that_is_not_served_yet(
    publisher: Publisher, store: OnlineStore, bundle: Bundle, interactions: Interactions
) -> None:
    """The version is kept before its first list: a mark that is met now removes the list all the same."""
    publisher.publish(1, bundle, interactions)
    store.sadd(KEPT, 2)
    store.set(list_key(2, "u001"), b"")
    assert forget_lists(store, "u001") == 2
    assert forget_lists(store, "u001") == 0
    assert "u001" not in lists(store, 1)
    assert len(lists(store, 1)) == 59


def test_without_the_projection_nothing_is_published(
    publisher: Publisher, store: OnlineStore, bundle: Bundle, interactions: Interactions
) -> None:
    store.delete(CONSENT_HEAD)
    with pytest.raises(ConsentUnavailable):
        publisher.publish(1, bundle, interactions)
    assert current(store) is None
    assert lists(store, 1) == {}


def test_with_nobody_left_the_version_is_published_for_strangers(
    store: OnlineStore, consents: ConsentProjection, grant: Grant, bundle: Bundle, interactions: Interactions
) -> None:
    grant(interactions.users.ids, revoked=5)
    assert Publisher(store, consents, LENGTH, TTL).publish(1, bundle, interactions) == 0
    assert current(store) == 1
    assert store.exists(bundle_key(1))


# --- whole or not at all ---------------------------------------------------------------------------------------------


class Killed:
    """The online store, from which the publisher is cut off at the n-th command."""

    def __init__(self, store: Any, at: int) -> None:
        self.store = store
        self.left = at

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.store, name)
        if name == "pipeline":
            return lambda **options: KilledPipeline(self, real(**options))

        def command(*args: Any, **kwargs: Any) -> Any:
            self.step()
            return real(*args, **kwargs)

        return command

    def step(self) -> None:
        if self.left == 0:
            raise redis.ConnectionError("killed")
        self.left -= 1


class KilledPipeline:
    """A pipeline of it: one command when it is executed."""

    def __init__(self, killed: "Killed", real: Any) -> None:
        self.killed = killed
        self.real = real

    def __getattr__(self, name: str) -> Any:
        if name == "execute":
            self.killed.step()
        return getattr(self.real, name)


def killed_at_every_command(
    store: OnlineStore, consents: ConsentProjection, bundle: Bundle, interactions: Interactions
) -> Iterator[bool]:
    """Publish version 3 over 1 and 2, killed one command later each time; whether the publish was complete."""
    for at in range(200):
        killed = cast(OnlineStore, Killed(store, at))
        publisher = Publisher(killed, ConsentProjection(killed, SECRET), LENGTH, TTL)
        try:
            publisher.publish(3, bundle, interactions)
        except (ConsentUnavailable, *OnlineStoreError):
            yield False
        else:
            yield True
            return
    raise AssertionError("it never came to an end")


@pytest.mark.parametrize("batch", [BATCH, 25])
@pytest.mark.parametrize("nearline", [False, True])
def test_killed_at_any_command_the_store_serves_one_whole_version(
    publisher: Publisher,
    store: OnlineStore,
    consents: ConsentProjection,
    bundle: Bundle,
    interactions: Interactions,
    batch: int,
    nearline: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With one batch, and with three of which one is computed while the others are asked about and written."""
    monkeypatch.setattr(publish, "BATCH", batch)
    if nearline:
        store.set(ALIVE, 0)
    publisher.publish(1, bundle, interactions)
    publisher.publish(2, bundle, interactions)
    before = lists(store, 2)
    kills = 0
    for complete in killed_at_every_command(store, consents, bundle, interactions):
        kills += not complete
        served = cast(int, current(store))
        assert served in (2, 3)
        assert store.exists(bundle_key(served))
        assert lists(store, served).keys() == before.keys()
        assert lists(store, 2) == before
        assert versions_with_keys(store) <= kept(store)
        store.set(CURRENT, 2)
    assert kills > 8
    assert kept(store) == {2, 3}
    assert not store.exists(NEXT, caught_up_key(3))


PUBLISHER = """
import os, signal, sys
from training.algorithms.popularity import Popularity
sys.path.insert(0, sys.argv[3])
from infra.online_store import connect
from ingest.events import ConsentProjection
from test_publish import SECRET, LENGTH, TTL, Killed, bundle_of
from training import flip, publish
from training.interactions import histories, read_catalogue, read_events
import polars as pl

class ReallyKilled(Killed):
    def step(self):
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

publish.BATCH = 25
events = read_events(pl.scan_parquet(sys.argv[4]), {"play": 1.0})
interactions = histories(events.rows, read_catalogue(None, events), 100)
store = ReallyKilled(connect(sys.argv[1]), int(sys.argv[2]))
publisher = publish.Publisher(store, ConsentProjection(store, SECRET), LENGTH, TTL)
publisher.publish(3, bundle_of(interactions), interactions)
"""


@pytest.mark.parametrize("at", [1, 9, 12, 14])
def test_a_publisher_that_is_killed_for_good_leaves_the_old_version_whole(
    publisher: Publisher,
    store: OnlineStore,
    redis_url: str,
    bundle: Bundle,
    interactions: Interactions,
    viewers: Rows,
    tmp_path: Path,
    at: int,
) -> None:
    """kill -9 before the lists, amid them, before the bundle and before the flip. The next publish clears up."""
    publisher.publish(2, bundle, interactions)
    before = lists(store, 2)
    viewers().write_parquet(tmp_path / "events.parquet")
    store.set(ALIVE, 0)
    words = [redis_url, str(at), str(Path(__file__).parent), str(tmp_path / "events.parquet")]
    killed = subprocess.run([sys.executable, "-c", PUBLISHER, *words], check=False, cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert current(store) == 2
    assert store.exists(bundle_key(2), manifest_key(2)) == 2
    assert lists(store, 2) == before
    publisher.publish(4, bundle, interactions)
    assert versions_with_keys(store) == kept(store) == {2, 4}
    assert not store.exists(NEXT)


# --- in two steps ----------------------------------------------------------------------------------------------------


class Nearline(threading.Thread):
    """Says, partition by partition, that it has caught up with whatever is announced; at last with all of them."""

    def __init__(self, store: OnlineStore, partitions: int) -> None:
        super().__init__()
        self.store = store
        self.partitions = partitions
        self.served_meanwhile: list[int | None] = []
        self.announced: list[bytes | None] = []
        store.set(ALIVE, partitions)

    def run(self) -> None:
        """Wait for the announcement; the version must not be served before the last partition was told."""
        for _ in range(400):
            if announced := cast("bytes | None", self.store.get(NEXT)):
                break
            time.sleep(0.01)
        for partition in range(self.partitions):
            time.sleep(0.15)
            self.served_meanwhile.append(current(self.store))
            self.announced.append(cast("bytes | None", self.store.get(NEXT)))
            self.store.hset(caught_up_key(int(announced or 0)), str(partition), "1")


def test_a_version_is_served_when_nearline_has_caught_up_and_not_before(
    publisher: Publisher, store: OnlineStore, bundle: Bundle, interactions: Interactions
) -> None:
    """What an earlier attempt was told counts no more."""
    publisher.publish(1, bundle, interactions)
    store.hset(caught_up_key(2), mapping={"0": "1", "1": "1", "2": "1"})
    nearline = Nearline(store, 3)
    nearline.start()
    publisher.publish(2, bundle, interactions)
    nearline.join()
    assert nearline.served_meanwhile == [1, 1, 1]
    assert nearline.announced == [b"2"] * 3
    assert current(store) == 2
    assert not store.exists(NEXT, caught_up_key(2))


@pytest.mark.parametrize("nearline", [False, True])
def test_who_reads_while_versions_are_published_never_misses_a_list_nor_reads_another_versions(
    publisher: Publisher, store: OnlineStore, redis_url: str, bundle: Bundle, interactions: Interactions, nearline: bool
) -> None:
    """A reader that looks up the version, then that version's list and item table, as serving does."""
    popular = bundle_of(interactions, Popularity())
    publisher.publish(1, bundle, interactions)
    expected = {1: lists(store, 1)}
    publisher.publish(2, popular, interactions)
    expected[0] = lists(store, 2)
    assert expected[0] != expected[1]
    if nearline:
        store.set(ALIVE, 0)
    stop, read = threading.Event(), list[tuple[int, bool, list[int]]]()

    def read_on() -> None:
        reader = connect(redis_url)
        while not stop.is_set():
            version = cast(int, current(reader))
            value, whole = reader.get(list_key(version, "u007")), reader.exists(bundle_key(version))
            read.append((version, bool(whole), decode_list(cast(bytes, value or b"")).tolist()))
        reader.close()

    thread = threading.Thread(target=read_on)
    thread.start()
    while thread.is_alive() and not read:
        time.sleep(0.01)
    for version in range(3, 11):
        publisher.publish(version, bundle if version % 2 else popular, interactions)
    while thread.is_alive() and read[-1][0] < 10:
        time.sleep(0.01)
    stop.set()
    thread.join()
    assert {version for version, *_ in read} >= {2, 10}
    assert all(whole and found == expected[version % 2]["u007"] for version, whole, found in read)


@pytest.mark.parametrize("gone", [False, True])
def test_nobody_waits_for_ever_for_nearline(
    publisher: Publisher,
    store: OnlineStore,
    bundle: Bundle,
    interactions: Interactions,
    gone: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It does not catch up in time, or dies on the way: the version is served, and the log says why it may lag."""
    monkeypatch.setattr(flip, "CATCH_UP_SECONDS", 60.0 if gone else 0.3)
    publisher.publish(1, bundle, interactions)
    store.set(ALIVE, 2, px=300 if gone else 60_000)
    publisher.publish(2, bundle, interactions)
    assert current(store) == 2
    assert not store.exists(NEXT)
    assert ("nearline is gone" if gone else "partitions=[0, 1]") in capsys.readouterr().out


def test_what_is_served_already_and_what_is_served_again_waits_for_nobody(
    publisher: Publisher, store: OnlineStore, bundle: Bundle, interactions: Interactions
) -> None:
    """Neither a champion whose lists are renewed nor a version that is whole; a stale announcement goes."""
    publisher.publish(1, bundle, interactions)
    publisher.publish(2, bundle, interactions)
    store.set(ALIVE, 2)
    store.set(NEXT, 3)
    publisher.publish(2, bundle, interactions)
    assert publisher.serve_again(1)
    assert current(store) == 1
    assert not store.exists(NEXT)


def test_the_manifest_stays_when_the_version_has_gone(
    publisher: Publisher, store: OnlineStore, bundle: Bundle, interactions: Interactions
) -> None:
    """Somebody may ask later why they saw what they saw."""
    for version in (1, 2, 3):
        publisher.publish(version, bundle, interactions)
    assert not store.exists(bundle_key(1))
    assert Manifest.model_validate_json(cast(bytes, store.get(manifest_key(1)))) == bundle.manifest
    assert store.ttl(manifest_key(1)) == -1


def test_lists_that_vanish_on_the_way_are_noticed(
    publisher: Publisher, store: OnlineStore, bundle: Bundle, interactions: Interactions
) -> None:
    """A store that evicts keys would otherwise serve half a version."""
    publisher.publish(1, bundle, interactions)

    class Evicting(Killed):
        def step(self) -> None:
            self.store.unlink(list_key(2, "u010"))

    evicting = Publisher(cast(OnlineStore, Evicting(store, 0)), ConsentProjection(store, SECRET), LENGTH, TTL)
    with pytest.raises(PublishError, match="vanished"):
        evicting.publish(2, bundle, interactions)
    assert current(store) == 1
    assert not store.exists(bundle_key(2))


# --- another version's items -----------------------------------------------------------------------------------------


def test_histories_are_carried_over_to_the_items_of_another_version(event_rows: Rows) -> None:
    def of(acts: list[Any]) -> Interactions:
        events = read_events(event_rows(acts).lazy(), {"play": 1.0, "thumbs_down": 0.0})
        return histories(events.rows, read_catalogue(None, events), 100)

    old = bundle_of(of([("u1", "b", 1), ("u1", "c", 2)]), Popularity())
    now = of([("u1", "a", 1), ("u1", "b", 2), ("u2", "c", 3, "thumbs_down"), ("u3", "d", 4)])
    carried = over_items_of(old, now)[:]
    assert carried.user_items.toarray().tolist() == [[1, 0], [0, 0], [0, 0]]
    assert carried.user_items.indptr.tolist() == [0, 1, 2, 2]


def test_more_people_than_a_batch_are_all_published(
    store: OnlineStore, consents: ConsentProjection, grant: Grant, event_rows: Rows
) -> None:
    people = BATCH + 7
    events = read_events(event_rows([(f"u{i}", f"m{i % 9}", i) for i in range(people)]).lazy(), {"play": 1.0})
    interactions = histories(events.rows, read_catalogue(None, events), 100)
    grant(interactions.users.ids)
    publisher = Publisher(store, consents, LENGTH, TTL)
    assert publisher.publish(1, bundle_of(interactions, Popularity()), interactions) == people
    assert publisher.publish(2, bundle_of(interactions, Popularity()), interactions) == people
    assert publisher.publish(3, bundle_of(interactions, Popularity()), interactions) == people
    assert versions_with_keys(store) == {2, 3}
