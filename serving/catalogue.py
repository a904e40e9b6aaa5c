"""The items of the version that is served, in memory and ready to send; swapped whole when the version changes."""

import asyncio
import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import cast

import orjson
import structlog
from prometheus_client import CollectorRegistry, Counter

from infra.online_store import OnlineStore, OnlineStoreError
from serving.versions import Versions
from training.bundle import CURRENT, HIDDEN, Bundle, Manifest

LONGEST = 100
"""Items in the longest list that is served."""

POLL_SECONDS = 0.25


class CorruptList(Exception):
    """A stored list that cannot be one of this version."""


class Catalogue:
    """One version's items. It never changes: another version or another set of hidden items is another catalogue.

    Args:
        version: number of the version; 0 where none was published yet.
        bundle: its model; None where none was published yet.
        fragments: (items,) JSON of each item.
        hidden: ids of items that must not be shown.
    """

    def __init__(
        self, version: int, bundle: Bundle | None, fragments: Sequence[bytes], hidden: frozenset[str] = frozenset()
    ) -> None:
        self.version = version
        self.bundle = bundle
        self.hidden = hidden
        self._fragments = fragments
        self._shown: list[bytes | None] = list(fragments)
        self._popular: list[bytes] = []
        if bundle is not None:
            for item_id in hidden & bundle.item_index.keys():
                self._shown[bundle.item_index[item_id]] = None
            self._popular = self._first(bundle.popular, LONGEST)
        self._popular_of_length: dict[int, bytes] = {}

    @classmethod
    def of(cls, version: int, bundle: Bundle, hidden: frozenset[str] = frozenset()) -> "Catalogue":
        """The catalogue of a published bundle; its items are rendered here, once."""
        rows = zip(bundle.items.item_ids, bundle.items.attributes, strict=True)
        return cls(version, bundle, [orjson.dumps({"item_id": i, **attributes}) for i, attributes in rows], hidden)

    def hiding(self, hidden: frozenset[str]) -> "Catalogue":
        """The same version with other items hidden."""
        return Catalogue(self.version, self.bundle, self._fragments, hidden)

    def render(self, packed: bytes, k: int) -> bytes:
        """The first `k` items of a stored list that may be shown, as JSON joined by commas.

        Args:
            packed: the list, as `training.bundle.encode_list` made it.
            k: 1 to 100.

        Raises:
            CorruptList: it is no list of this version.
        """
        length, rest = divmod(len(packed), 4)
        if rest:
            raise CorruptList(f"a list of {len(packed)} bytes is no list of 32-bit numbers")
        shown = self._shown
        try:
            found = [shown[index] for index in _unpack(min(k, length)).unpack_from(packed)]
            if None not in found:
                return b",".join(cast("list[bytes]", found))
            return b",".join(self._first(_unpack(length).unpack(packed), k))
        except IndexError:
            raise CorruptList(f"a list names items that version {self.version} does not have") from None

    def render_indices(self, indices: Iterable[int], k: int) -> bytes:
        """The first `k` of `indices` that may be shown, as JSON joined by commas; padding (-1) is left out."""
        return b",".join(self._first((index for index in indices if index >= 0), k))

    def popular(self, k: int) -> bytes:
        """The `k` most popular items that may be shown, as JSON joined by commas."""
        if k not in self._popular_of_length:
            self._popular_of_length[k] = b",".join(self._popular[:k])
        return self._popular_of_length[k]

    def _first(self, indices: Iterable[int], k: int) -> list[bytes]:
        found: list[bytes] = []
        for index in indices:
            if (fragment := self._shown[index]) is not None:
                found.append(fragment)
                if len(found) == k:
                    break
        return found


def empty_catalogue() -> Catalogue:
    """What is served before any version was published."""
    return Catalogue(0, None, [])


class CatalogueWatch:
    """Keeps the current catalogue in step with the online store. Whatever fails, the one in memory stays.

    Args:
        store: a client of its own, with a time-out that lets a whole bundle through.
        registry: where the version and the failures are shown.
    """

    def __init__(self, store: OnlineStore, registry: CollectorRegistry) -> None:
        self.current = empty_catalogue()
        self.manifests: dict[int, Manifest] = {}
        self.looked = False
        self.store_answers = True
        self._store = store
        self._versions = Versions(store, registry)
        self._polls_failed = Counter(
            "marquee_catalogue_polls_failed", "Polls of the version that the store did not answer.", registry=registry
        )
        self._log = structlog.get_logger()

    async def follow(self) -> None:
        """Poll until cancelled, in a thread: loading a bundle does not hold up the requests."""
        while True:
            await asyncio.to_thread(self.poll)
            await asyncio.sleep(POLL_SECONDS)

    def poll(self) -> None:
        """Look once at the current version and the hidden items, and take over what changed."""
        try:
            self._take_over(*self._read())
            self._note_store(answers=True)
        except OnlineStoreError as error:
            self._note_store(answers=False, reason=type(error).__name__)
        except Exception:
            self._log.exception("catalogue kept, poll failed")
        self.looked = True

    def _read(self) -> tuple[bytes | None, frozenset[str]]:
        reads = self._store.pipeline(transaction=False)
        reads.get(CURRENT)
        reads.smembers(HIDDEN)
        version, hidden = reads.execute()
        return version, frozenset(item.decode() for item in hidden)

    def _take_over(self, pointer: bytes | None, hidden: frozenset[str]) -> None:
        if published := self._versions.follow(pointer, self.current.version):
            self.manifests[published.version] = published.bundle.manifest
            self.current = Catalogue.of(published.version, published.bundle, hidden)
        elif self.current.hidden != hidden:
            self.current = self.current.hiding(hidden)

    def _note_store(self, *, answers: bool, reason: str = "") -> None:
        if not answers:
            self._polls_failed.inc()
        if answers != self.store_answers:
            self._log.warning("online_store_answers" if answers else "online_store_silent", reason=reason)
        self.store_answers = answers


@lru_cache(1024)
def _unpack(length: int) -> struct.Struct:
    return struct.Struct(f"<{length}I")
