"""Takes over the version that `{version}:current` names; what cannot be is refused, and the old one stays."""

import time
from typing import NamedTuple, cast

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from infra.online_store import OnlineStore
from training.bundle import Bundle, BundleError, bundle_key, load

RETRY_SECONDS = 5.0
LARGEST_VERSION = 2**24 - 1
"""Recommendation ids have room for no larger number."""


class Published(NamedTuple):
    """A version and its bundle."""

    version: int
    bundle: Bundle


class Versions:
    """Loads published versions.

    Args:
        store: the online store; its time-out lets a whole bundle through.
        registry: where the version and the refusals are shown.
    """

    def __init__(self, store: OnlineStore, registry: CollectorRegistry) -> None:
        self._store = store
        self._refused: dict[bytes, float] = {}
        self._current = Gauge("marquee_version", "Version of the model in use.", registry=registry)
        self._refusals = Counter("marquee_bundles_refused", "Published bundles not taken over.", registry=registry)
        self._log = structlog.get_logger()

    def follow(self, pointer: bytes | None, current: int) -> Published | None:
        """The version that `pointer` names, when it is another than `current` and whole.

        Args:
            pointer: value of `{version}:current`; None: whatever is in use stays.
            current: version in use, 0 for none.

        Raises:
            infra.online_store.OnlineStoreError: the store does not answer.
        """
        if pointer is None and current and not self._refused_lately(b""):
            self._refuse(b"", "{version}:current is gone: publish or roll back")
        if pointer is None or pointer == b"%d" % current:
            return None
        if published := self.read(pointer):
            self.use(published)
        return published

    def read(self, pointer: bytes) -> Published | None:
        """The version that `pointer` names; None where it is not whole, and for a while after that was seen.

        Raises:
            infra.online_store.OnlineStoreError: the store does not answer.
        """
        if self._refused_lately(pointer):
            return None
        try:
            published = self._read(pointer)
        except BundleError as error:
            self._refuse(pointer, str(error))
            return None
        return published

    def use(self, published: Published) -> None:
        """Show that this version is the one in use."""
        self._current.set(published.version)
        self._log.info("version_taken_over", version=published.version, items=len(published.bundle.items.item_ids))

    def _read(self, pointer: bytes) -> Published:
        if not pointer.isdigit():
            raise BundleError("{version}:current is no number: publish again")
        version = int(pointer)
        if version > LARGEST_VERSION:
            raise BundleError(f"version {version} is beyond {LARGEST_VERSION}: publish under a smaller number")
        value = cast("bytes | None", self._store.get(bundle_key(version)))
        if value is None:
            raise BundleError(f"version {version} has no bundle in the online store: publish it again")
        return Published(version, load(value))

    def _refuse(self, pointer: bytes, reason: str) -> None:
        self._refused = {**dict(list(self._refused.items())[-1:]), pointer: time.monotonic()}
        self._refusals.inc()
        self._log.error("bundle_refused", version=pointer[:20].decode("ascii", "replace"), reason=reason)

    def _refused_lately(self, pointer: bytes) -> bool:
        return time.monotonic() - self._refused.get(pointer, -RETRY_SECONDS) < RETRY_SECONDS
