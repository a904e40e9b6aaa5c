"""Takes over the version that `version:current` names; what cannot be taken over is refused, and the old one stays."""

import time
from typing import NamedTuple, cast

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from infra.online_store import OnlineStore
from training.bundle import Bundle, BundleError, bundle_key, load

RETRY_SECONDS = 5.0


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
        self._refused: tuple[bytes, float] = (b"", 0.0)
        self._current = Gauge("marquee_version", "Version of the model in use.", registry=registry)
        self._refusals = Counter("marquee_bundles_refused", "Published bundles not taken over.", registry=registry)
        self._log = structlog.get_logger()

    def follow(self, pointer: bytes | None, current: int) -> Published | None:
        """The version that `pointer` names, when it is another than `current` and whole.

        Args:
            pointer: value of `version:current`; None: whatever is in use stays.
            current: version in use, 0 for none.

        Raises:
            infra.online_store.OnlineStoreError: the store does not answer.
        """
        if pointer is None or pointer == b"%d" % current or self._refused_lately(pointer):
            return None
        try:
            published = self._read(pointer)
        except BundleError as error:
            self._refused = (pointer, time.monotonic())
            self._refusals.inc()
            self._log.error("bundle_refused", kept=current, reason=str(error))
            return None
        self._current.set(published.version)
        self._log.info("version_taken_over", version=published.version, items=len(published.bundle.items.item_ids))
        return published

    def _read(self, pointer: bytes) -> Published:
        if not pointer.isdigit():
            raise BundleError("version:current is no number: publish again")
        version = int(pointer)
        value = cast("bytes | None", self._store.get(bundle_key(version)))
        if value is None:
            raise BundleError(f"version {version} has no bundle in the online store: publish it again")
        return Published(version, load(value))

    def _refused_lately(self, pointer: bytes) -> bool:
        refused, at = self._refused
        return refused == pointer and time.monotonic() - at < RETRY_SECONDS
