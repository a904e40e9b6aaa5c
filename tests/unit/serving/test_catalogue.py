"""The catalogue: rendered once a version, swapped whole, kept when anything fails."""

from collections.abc import Callable

import numpy as np
import orjson
import pytest
from prometheus_client import CollectorRegistry

from infra.online_store import OnlineStore, connect
from serving.catalogue import Catalogue, CatalogueWatch, CorruptList
from training.bundle import CURRENT, HIDDEN, Bundle, bundle_key, encode_list

MakeBundle = Callable[..., Bundle]
Publish = Callable[[OnlineStore, int, Bundle], None]


def _shown(items: bytes) -> list[str]:
    return [item["item_id"] for item in orjson.loads(b"[%b]" % items)]


def test_items_are_rendered_with_their_attributes(make_bundle: MakeBundle) -> None:
    """A fragment is the item's id and what was said of it."""
    items = Catalogue.of(1, make_bundle()).render(encode_list(np.array([2])), 1)
    assert orjson.loads(items) == {"item_id": "m2", "title": "Film m2"}


def test_hidden_items_are_left_out_and_the_next_ones_take_their_place(make_bundle: MakeBundle) -> None:
    """A list of k stays a list of k while it has further items; so does the popular list."""
    catalogue = Catalogue.of(1, make_bundle()).hiding(frozenset({"m1", "unknown"}))
    assert _shown(catalogue.render(encode_list(np.array([0, 1, 2, 3])), 3)) == ["m0", "m2", "m3"]
    assert _shown(catalogue.popular(2)) == ["m0", "m2"]


@pytest.mark.parametrize("packed", [b"abc", b"abcde", encode_list(np.array([8])), b"\xff" * 4])
def test_what_cannot_be_a_list_is_corrupt(make_bundle: MakeBundle, packed: bytes) -> None:
    """A wrong length and an index outside the version are both noticed."""
    with pytest.raises(CorruptList):
        Catalogue.of(1, make_bundle()).render(packed, 20)


def test_a_new_version_is_swapped_in_whole(store: OnlineStore, make_bundle: MakeBundle, publish: Publish) -> None:
    """A catalogue that a request holds keeps its items; the next request sees the new ones, hidden ones included."""
    watch = CatalogueWatch(store, CollectorRegistry())
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
    store: OnlineStore, make_bundle: MakeBundle, publish: Publish
) -> None:
    """An item that is hidden leaves the catalogue at the next look, and comes back when it is shown again."""
    watch = CatalogueWatch(store, CollectorRegistry())
    publish(store, 1, make_bundle())
    store.sadd(HIDDEN, "m0")
    watch.poll()
    assert _shown(watch.current.popular(1)) == ["m1"]
    store.srem(HIDDEN, "m0")
    watch.poll()
    assert _shown(watch.current.popular(1)) == ["m0"]


def test_a_bad_bundle_leaves_the_old_version(store: OnlineStore, make_bundle: MakeBundle, publish: Publish) -> None:
    """Missing, altered or numbered in words: the version in memory stays, and the refusal is counted."""
    registry = CollectorRegistry()
    watch = CatalogueWatch(store, registry)
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


def test_a_rollback_is_followed(store: OnlineStore, make_bundle: MakeBundle, publish: Publish) -> None:
    """The pointer may go back."""
    watch = CatalogueWatch(store, CollectorRegistry())
    publish(store, 1, make_bundle())
    publish(store, 2, make_bundle())
    watch.poll()
    store.set(CURRENT, 1)
    watch.poll()
    assert watch.current.version == 1


def test_a_silent_store_leaves_everything_as_it_is(make_bundle: MakeBundle) -> None:
    """Nothing answers: the poll does not raise, and the failure is counted."""
    registry = CollectorRegistry()
    watch = CatalogueWatch(connect("unix:///nowhere/redis.sock"), registry)
    watch.current = Catalogue.of(1, make_bundle())
    watch.poll()
    assert (watch.current.version, watch.looked, watch.store_answers) == (1, True, False)
    assert registry.get_sample_value("marquee_catalogue_polls_failed_total") == 1
