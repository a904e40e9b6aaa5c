"""A version's lists to the online store, whole or not at all, and never for somebody who does not allow it.

1. `{version}:kept` gets the version, so that whoever forgets a person from here on knows of these keys.
2. The lists are written in batches, each after asking what its people allow.
3. The people of a batch are asked again when their lists stand: who withdrew meanwhile loses the list. Who withdraws
   later is the schedule's affair: a withdrawal is in the projection before its mark is in the log, so either the second
   answer is a no, or the mark is met when the list stands.
4. The lists are counted, and only then `manifest:{version}` and `bundle:{version}` are written: where the bundle
   stands, the version is whole.
5. Nearline, where it is alive, writes the version's live lists of everybody who acted since its snapshot, so that what
   they watched since does not come back: see `training.flip`.
6. `{version}:current` is set: one key, so readers see the old version or the new one.
7. Of the other versions, all but the one that was current are removed.

While the lists of one batch are computed, a second thread writes those of the batch before it and asks for the one
after it. A failure before step 6 leaves the old version whole. What was written ends with its lifetime or with the next
publish.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from scipy import sparse

from infra.ahead import ahead
from infra.online_store import OnlineStore, set_all
from ingest.events import PERSONALIZATION, ConsentProjection
from training.bundle import (
    CURRENT,
    KEPT,
    Bundle,
    Indices,
    bundle_key,
    caught_up_key,
    encode_list,
    list_key,
    live_key,
    manifest_key,
    published_parts_key,
    recommend,
)
from training.flip import flip, let_nearline_catch_up
from training.interactions import Interactions
from training.recency import Histories

BATCH = 1000

Users = npt.NDArray[np.int64]
"""Numbers of people: `user_index`."""


class PublishError(Exception):
    """The version could not be published whole. The old one is still served: run it again."""


WriteLists = Callable[[int, Bundle, Interactions], int]
"""version, model, histories → the number of lists that were written, of everybody who allows it. Raises as `Lists`."""


class Publisher:
    """Writes versions to the online store.

    Args:
        store: the online store, with a time-out that lets a whole bundle through.
        consents: what people allow.
        list_length: length of the lists.
        ttl_seconds: lifetime of lists and bundles.
        write: writes the lists; None: `Lists`, here.
    """

    def __init__(
        self,
        store: OnlineStore,
        consents: ConsentProjection,
        list_length: int,
        ttl_seconds: int,
        write: WriteLists | None = None,
    ) -> None:
        self._store = store
        self._ttl = ttl_seconds
        self._write = write or Lists(store, consents, list_length, ttl_seconds).write

    def publish(self, version: int, bundle: Bundle, interactions: Interactions) -> int:
        """Publish a version with the lists of everybody who allows it, and serve it.

        Returns:
            The number of lists.

        Raises:
            PublishError: lists were lost on the way.
            ingest.events.ConsentUnavailable: nobody can tell what people allow.
            infra.online_store.OnlineStoreError: the store does not answer.
        """
        self._store.sadd(KEPT, version)
        written = self._write(version, bundle, interactions)
        self._store.set(manifest_key(version), bundle.manifest.model_dump_json())
        self._store.set(bundle_key(version), bundle.dump(), ex=self._ttl)
        previous = current(self._store)
        if previous != version:
            let_nearline_catch_up(self._store, version)
        flip(self._store, version)
        if previous != version:
            self._remove_others({version, previous})
        return written

    def serve_again(self, version: int) -> bool:
        """Serve a version that is still whole in the store, at once.

        Returns:
            Whether it is; if not, nothing was changed.
        """
        whole = bool(self._store.exists(bundle_key(version)))
        if whole:
            flip(self._store, version)
        return whole

    def _remove_others(self, keep: set[int | None]) -> None:
        for other in sorted(kept(self._store) - keep):
            remove_version(self._store, other)


class Lists:
    """Writes the lists of a version.

    Args:
        store: the online store.
        consents: what people allow.
        list_length: length of the lists.
        ttl_seconds: lifetime of the lists.
    """

    def __init__(self, store: OnlineStore, consents: ConsentProjection, list_length: int, ttl_seconds: int) -> None:
        self._store = store
        self._consents = consents
        self._length = list_length
        self._ttl = ttl_seconds

    def write(self, version: int, bundle: Bundle, interactions: Interactions) -> int:
        """Write the lists of everybody of `interactions` who allows it, and see that they stand.

        Returns:
            The number of lists.

        Raises:
            PublishError: lists were lost on the way.
            ingest.events.ConsentUnavailable: nobody can tell what people allow.
            infra.online_store.OnlineStoreError: the store does not answer.
        """
        written = self._write_all(version, bundle, interactions)
        self._check(version, interactions, written)
        return len(written)

    def _write_all(self, version: int, bundle: Bundle, interactions: Interactions) -> Users:
        """Write everybody's list. Returns those who have one now."""
        histories = over_items_of(bundle, interactions)
        batches = _shown(_batches(np.arange(len(interactions.users))))
        written = [np.empty(0, np.int64)]
        with ThreadPoolExecutor(1, "publish") as beside:
            writing: Future[Users] | None = None
            for asked in ahead(beside.submit(self._allowed, interactions, users) for users in batches):
                users = asked.result()
                user_items = histories[users].weighted(bundle.manifest.recency)
                lists, _ = recommend(bundle.model, bundle.popular, user_items, self._length)
                if writing is not None:
                    written.append(writing.result())
                writing = beside.submit(self._write, version, interactions, users, lists)
            if writing is not None:
                written.append(writing.result())
        return np.concatenate(written)

    def _allowed(self, interactions: Interactions, users: Users) -> Users:
        """Those of the people of whom everything may be used."""
        names = [interactions.users.ids[user] for user in users]
        consents, receipts = self._consents.read(names), interactions.oldest_receipts[users].tolist()
        allowed = (
            consents[name].allows(PERSONALIZATION) and consents[name].covers(receipt)
            for name, receipt in zip(names, receipts, strict=True)
        )
        return users[np.fromiter(allowed, np.bool_, len(users))]

    def _write(self, version: int, interactions: Interactions, users: Users, lists: Indices) -> Users:
        """Write lists, then ask again. Returns those who keep theirs."""
        keys = _list_keys(version, interactions, users)
        set_all(self._store, dict(zip(keys, map(encode_list, lists), strict=True)), self._ttl)
        still = self._allowed(interactions, users)
        withdrawn = _list_keys(version, interactions, np.setdiff1d(users, still))
        if withdrawn:
            self._store.unlink(*withdrawn)
        return still

    def _check(self, version: int, interactions: Interactions, written: Users) -> None:
        """Every list stands, but for those of people who withdrew since they were asked."""
        for users in _batches(written):
            keys = _list_keys(version, interactions, users)
            if self._store.exists(*keys) == len(keys):
                continue
            missing = users[[not self._store.exists(key) for key in keys]]
            if len(self._allowed(interactions, missing)):
                raise PublishError(
                    f"lists of version {version} vanished while it was published: give the online store more memory, "
                    "or turn eviction off, and train again"
                )


@dataclass(frozen=True)
class OverItems:
    """Histories in the item indices of another version, without items that it does not know.

    Attributes:
        interactions: the histories.
        index: (items of the interactions,) each item's index in the version, or -1.
        items: number of items of the version.
    """

    interactions: Interactions
    index: npt.NDArray[np.int32]
    items: int

    def __getitem__(self, users: slice | npt.NDArray[np.integer]) -> Histories:
        """Some people's: (people, items of the version)."""
        some = self.interactions.histories_of(users)
        indices, lengths = self.index[some.user_items.indices], np.diff(some.user_items.indptr)
        known = indices >= 0
        rows = np.repeat(np.arange(len(some)), lengths)[known]
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(some)))]).astype(np.int32)
        shape = (len(some), self.items)
        over = sparse.csr_matrix((some.user_items.data[known], indices[known], indptr), shape=shape)
        return Histories(over, some.at_ms[known])


def over_items_of(bundle: Bundle, interactions: Interactions) -> OverItems:
    """The histories over the items of a bundle."""
    index = [bundle.item_index.get(item, -1) for item in interactions.catalogue.items.ids]
    return OverItems(interactions, np.array(index, np.int32), len(bundle.items.item_ids))


def current(store: OnlineStore) -> int | None:
    """The version that is served; None before the first."""
    value = cast("bytes | None", store.get(CURRENT))
    return None if value is None else int(value)


def kept(store: OnlineStore) -> set[int]:
    """The versions that may have keys in the store."""
    return {int(version) for version in cast("set[bytes]", store.smembers(KEPT))}


def forget_lists(store: OnlineStore, user_id: str) -> int:
    """Remove a person's published lists, of every version.

    Returns:
        The number of lists removed.
    """
    keys = [list_key(version, user_id) for version in kept(store)]
    return store.unlink(*keys) if keys else 0


def remove_version(store: OnlineStore, version: int) -> None:
    """Remove a version that is not served: its bundle, everybody's lists. The manifest stays, for lists handed out."""
    for pattern in (list_key(version, "*"), live_key(version, "*")):
        for keys in _chunks(store.scan_iter(pattern, count=BATCH)):
            store.unlink(*keys)
    store.unlink(bundle_key(version), caught_up_key(version), published_parts_key(version))
    store.srem(KEPT, version)


def _list_keys(version: int, interactions: Interactions, users: Users) -> list[str]:
    return [list_key(version, interactions.users.ids[user]) for user in users]


def _batches(users: Users) -> list[Users]:
    return [users[start : start + BATCH] for start in range(0, len(users), BATCH)]


def _shown(batches: list[Users]) -> Iterable[Users]:
    """The batches, with a progress bar on a terminal."""
    console = Console(stderr=True)
    return track(batches, "Publishing lists", console=console, disable=not console.is_terminal)


def _chunks(keys: Iterator[bytes]) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    for key in keys:
        chunk.append(key)
        if len(chunk) == BATCH:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
