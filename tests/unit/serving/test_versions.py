"""Which versions are taken over."""

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from infra.online_store import OnlineStore
from serving.versions import LARGEST_VERSION, Versions
from training.bundle import Bundle, bundle_key

MakeBundle = Callable[..., Bundle]


@pytest.mark.parametrize(("version", "taken"), [(LARGEST_VERSION, True), (LARGEST_VERSION + 1, False)])
def test_a_version_that_recommendation_ids_have_no_room_for_is_refused(
    store: OnlineStore, make_bundle: MakeBundle, version: int, taken: bool
) -> None:
    """An id would name another version; so the one in use stays, and the metric says so."""
    store.set(bundle_key(version), make_bundle().dump())
    registry = CollectorRegistry()
    published = Versions(store, registry).follow(b"%d" % version, 1)
    assert (published is not None) == taken
    assert registry.get_sample_value("marquee_bundles_refused_total") == (0 if taken else 1)
