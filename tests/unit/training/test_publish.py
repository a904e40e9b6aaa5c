"""A version is published whole or not at all, and never for somebody who does not allow it."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, cast

import polars as pl
import pytest

from infra.online_store import OnlineStore, OnlineStoreError
from ingest.events import CONSENT_HEAD, ConsentProjection, ConsentUnavailable
from training import publish
from training.algorithms.item_item import ItemItem
from training.algorithms.popularity import Popularity
from training.bundle import (
    CURRENT,
    KEPT,
    Bundle,
    Interaction,
    ItemTable,
    Manifest,
    Snapshot,
    bundle_key,
    decode_list,
    list_key,
    live_key,
    load,
)
from training.interactions import Interactions, histories, read_catalogue, read_events
from training.publish import BATCH, Publisher, PublishError, current, forget_lists, kept, over_items_of

Rows = Callable[..., pl.DataFrame]
Grant = Callable[..., None]
TTL = 1000
SECRET = "a secret of the tests"
LENGTH = 5


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
        found[key.decode().split(":", 2)[2]] = decode_list(cast(bytes, store.get(key))).tolist()
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
            raise OnlineStoreError("killed")
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
        except (OnlineStoreError, ConsentUnavailable):
            yield False
        else:
            yield True
            return
    raise AssertionError("it never came to an end")


@pytest.mark.parametrize("batch", [BATCH, 25])
def test_killed_at_any_command_the_store_serves_one_whole_version(
    publisher: Publisher,
    store: OnlineStore,
    consents: ConsentProjection,
    bundle: Bundle,
    interactions: Interactions,
    batch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With one batch, and with three of which one is computed while the others are asked about and written."""
    monkeypatch.setattr(publish, "BATCH", batch)
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
