"""The watch: versions swapped whole, items hidden within a second, everything kept when anything fails."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from infra.online_store import OnlineStore, connect
from ingest.events import Domain
from serving.catalogue import Catalogue
from serving.catalogue_watch import CatalogueWatch
from serving.static_list import StaticList
from training.bundle import CURRENT, EXPIRING, HIDDEN, POPULAR, TRENDING, Bundle, bundle_key

MakeBundle = Callable[..., Bundle]
Publish = Callable[[OnlineStore, int, Bundle], None]
WatchOver = Callable[..., CatalogueWatch]


def _shown(items: bytes) -> list[str]:
    return [item["item_id"] for item in orjson.loads(b"[%b]" % items)]


@pytest.fixture
def watch_over(domain: Domain, tmp_path: Path) -> WatchOver:
    """Make a watch over a store; all of a test share one static list."""

    def over(store: OnlineStore, registry: Any = None) -> CatalogueWatch:
        return CatalogueWatch(
            store, registry or CollectorRegistry(), domain.items, StaticList(tmp_path / "static.json")
        )

    return over


def test_a_new_version_is_swapped_in_whole(
    store: OnlineStore, watch_over: WatchOver, make_bundle: MakeBundle, publish: Publish
) -> None:
    """A catalogue that a request holds keeps its items; the next request sees the new ones, hidden ones included."""
    watch = watch_over(store)
    publish(store, 1, make_bundle())
    watch.poll()
    held = watch.current
    store.sadd(HIDDEN, "n0")
    publish(store, 2, make_bundle([f"n{index}" for index in range(8)]))
    watch.poll()
    assert (held.version, _shown(held.popular(2))) == (1, ["m0", "m1"])
    assert (watch.current.version, _shown(watch.current.popular(2))) == (2, ["n1", "n2"])
    assert set(watch.manifests) == {1, 2}


def test_hidden_items_are_taken_over_without_a_new_version(
    store: OnlineStore, watch_over: WatchOver, make_bundle: MakeBundle, publish: Publish
) -> None:
    """An item that is hidden leaves the catalogue at the next look, and comes back when it is shown again."""
    watch = watch_over(store)
    publish(store, 1, make_bundle())
    store.sadd(HIDDEN, "m0")
    watch.poll()
    assert _shown(watch.current.popular(1)) == ["m1"]
    store.srem(HIDDEN, "m0")
    watch.poll()
    assert _shown(watch.current.popular(1)) == ["m0"]


def test_a_bad_bundle_leaves_the_old_version(
    store: OnlineStore, watch_over: WatchOver, make_bundle: MakeBundle, publish: Publish
) -> None:
    """Missing, altered or numbered in words: the version in memory stays, and the refusal is counted."""
    registry = CollectorRegistry()
    watch = watch_over(store, registry)
    publish(store, 1, make_bundle())
    watch.poll()
    store.set(bundle_key(2), b"no bundle")
    for pointer in ("2", "3", "four"):
        store.set(CURRENT, pointer)
        watch.poll()
        assert watch.current.version == 1
    assert registry.get_sample_value("marquee_bundles_refused_total") == 3
    store.delete(CURRENT)
    watch.poll()
    assert watch.current.version == 1


def test_a_rollback_is_followed(
    store: OnlineStore, watch_over: WatchOver, make_bundle: MakeBundle, publish: Publish
) -> None:
    """The pointer may go back."""
    watch = watch_over(store)
    publish(store, 1, make_bundle())
    publish(store, 2, make_bundle())
    watch.poll()
    store.set(CURRENT, 1)
    watch.poll()
    assert watch.current.version == 1


def test_a_silent_store_leaves_everything_as_it_is(watch_over: WatchOver, make_bundle: MakeBundle) -> None:
    """Nothing answers: the poll does not raise, and both failures are counted."""
    registry = CollectorRegistry()
    watch = watch_over(connect("unix:///nowhere/redis.sock"), registry)
    watch.current = Catalogue.of(1, make_bundle(), watch.rules)
    watch.poll()
    assert (watch.current.version, watch.looked, watch.store_answers) == (1, True, False)
    assert registry.get_sample_value("marquee_catalogue_polls_failed_total") == 2


def test_an_item_whose_time_has_come_is_hidden(
    store: OnlineStore, watch_over: WatchOver, make_bundle: MakeBundle, publish: Publish
) -> None:
    """By this process' clock: also when the store falls silent before."""
    watch = watch_over(store)
    publish(store, 1, make_bundle())
    store.hset(EXPIRING, mapping={"m0": int(time.time() * 1000) - 1, "m1": int(time.time() * 1000) + 500, "m2": 2**62})
    watch.poll()
    assert _shown(watch.current.popular(2)) == ["m1", "m2"]
    watch._store = connect("unix:///nowhere/redis.sock")
    end = time.monotonic() + 10
    while _shown(watch.current.popular(1)) == ["m1"] and time.monotonic() < end:
        watch.poll()
    assert _shown(watch.current.popular(2)) == ["m2", "m3"]


def test_votes_come_before_the_models_own_count(
    store: OnlineStore, watch_over: WatchOver, make_bundle: MakeBundle, publish: Publish
) -> None:
    """What people watch now leads the popular list; what nobody voted for follows in the model's order."""
    watch = watch_over(store)
    publish(store, 1, make_bundle())
    store.zadd(POPULAR, {"m5": 3.0, "m3": 9.5, "unknown": 99.0})
    store.zadd(TRENDING, {"m7": 1.0, "m6": 2.0})
    store.sadd(HIDDEN, "m7")
    watch.poll()
    assert _shown(watch.current.popular(4)) == ["m3", "m5", "m0", "m1"]
    assert list(watch.current.trending) == [6]


def test_votes_are_asked_for_only_now_and_then(
    store: OnlineStore, watch_over: WatchOver, make_bundle: MakeBundle, publish: Publish
) -> None:
    """Looks that follow at once leave them out, and the catalogue as it is."""
    watch = watch_over(store)
    publish(store, 1, make_bundle())
    watch.poll()
    before = watch.current
    store.zadd(POPULAR, {"m5": 3.0})
    store.config_resetstat()
    watch.poll()
    assert "cmdstat_zrange" not in store.info("commandstats")
    assert watch.current is before


def test_a_store_that_lost_its_data_shows_nothing_that_was_hidden(
    store: OnlineStore, watch_over: WatchOver, make_bundle: MakeBundle, publish: Publish
) -> None:
    """Without a pointer the set of hidden items is no answer either."""
    watch = watch_over(store)
    publish(store, 1, make_bundle())
    store.sadd(HIDDEN, "m0")
    watch.poll()
    store.flushdb()
    watch.poll()
    assert _shown(watch.current.popular(1)) == ["m1"]


def test_a_process_that_starts_while_the_store_is_down_serves_what_the_last_one_did(
    store: OnlineStore, watch_over: WatchOver, make_bundle: MakeBundle, publish: Publish
) -> None:
    """From the static list, without what was hidden; as soon as the store answers, the version."""
    publish(store, 1, make_bundle())
    first = watch_over(store)
    first.poll()
    store.sadd(HIDDEN, "m0")
    first.poll()
    second = watch_over(connect("unix:///nowhere/redis.sock"))
    second.poll()
    assert (second.current.version, _shown(second.current.popular(2))) == (0, ["m1", "m2"])
    second._store = second._versions._store = store
    second.poll()
    assert second.current.version == 1


def test_hiding_does_not_wait_for_a_bundle_that_loads(
    store: OnlineStore, watch_over: WatchOver, make_bundle: MakeBundle, publish: Publish
) -> None:
    """The two looks run beside each other; a version that comes later hides what was hidden meanwhile."""
    watch = watch_over(store)
    publish(store, 1, make_bundle())
    watch.poll()
    publish(store, 2, make_bundle())
    store.sadd(HIDDEN, "m0")
    watch.look()
    assert (watch.current.version, _shown(watch.current.popular(1))) == (1, ["m1"])
    watch.take_over()
    assert (watch.current.version, _shown(watch.current.popular(1))) == (2, ["m1"])
