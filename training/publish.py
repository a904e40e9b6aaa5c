"""A version's lists to the online store, whole or not at all, and never for somebody who does not allow it.

1. `version:kept` gets the version, so that whoever forgets a person from here on knows of these keys.
2. The lists are written in batches, each after asking what its people allow.
3. Everybody is asked again: who withdrew meanwhile loses the list. Who withdraws later is the schedule's affair.
4. The lists are counted, and only then `bundle:{version}` is written: where it stands, the version is whole.
5. `version:current` is set: one key, so readers see the old version or the new one.
6. Of the other versions, all but the one that was current are removed.

A failure before step 5 leaves the old version whole. What was written ends with its lifetime or with the next publish.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from scipy import sparse

from infra.online_store import OnlineStore
from ingest.events import PERSONALIZATION, ConsentProjection
from training.bundle import CURRENT, KEPT, Bundle, bundle_key, encode_list, list_key, live_key, recommend
from training.interactions import Interactions
from training.recency import Histories

BATCH = 1000


class PublishError(Exception):
    """The version could not be published whole. The old one is still served: run it again."""


class Publisher:
    """Writes versions to the online store.

    Args:
        store: the online store, with a time-out that lets a whole bundle through.
        consents: what people allow.
        list_length: length of the lists.
        ttl_seconds: lifetime of lists and bundles.
    """

    def __init__(self, store: OnlineStore, consents: ConsentProjection, list_length: int, ttl_seconds: int) -> None:
        self._store = store
        self._consents = consents
        self._length = list_length
        self._ttl = ttl_seconds

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
        written = self._write_lists(version, bundle, interactions)
        written = self._remove_withdrawn(version, written)
        self._check(version, written)
        self._store.set(bundle_key(version), bundle.dump(), ex=self._ttl)
        previous = current(self._store)
        self._store.set(CURRENT, version)
        if previous != version:
            self._remove_others({version, previous})
        return len(written)

    def serve_again(self, version: int) -> bool:
        """Serve a version that is still whole in the store.

        Returns:
            Whether it is; if not, nothing was changed.
        """
        whole = bool(self._store.exists(bundle_key(version)))
        if whole:
            self._store.set(CURRENT, version)
        return whole

    def _write_lists(self, version: int, bundle: Bundle, interactions: Interactions) -> dict[str, int]:
        """user_id → oldest receipt of the history, for those who now have a list."""
        histories = over_items_of(bundle, interactions)
        written: dict[str, int] = {}
        for rows in _batches(len(interactions.users)):
            people = {interactions.users.ids[row]: int(interactions.oldest_receipts[row]) for row in rows}
            allowed = self._allowed(people)
            asked = np.array([row for row in rows if interactions.users.ids[row] in allowed], np.int64)
            if len(asked):
                user_items = histories[asked].weighted(bundle.manifest.recency)
                lists, _ = recommend(bundle.model, bundle.popular, user_items, self._length)
                self._write(version, list(allowed), lists)
                written |= allowed
        return written

    def _allowed(self, people: dict[str, int]) -> dict[str, int]:
        """Those of `people` (user_id → oldest receipt) of whom everything may be used, in their order."""
        consents = self._consents.read(list(people))
        return {
            user: receipt
            for user, receipt in people.items()
            if consents[user].allows(PERSONALIZATION) and consents[user].covers(receipt)
        }

    def _write(self, version: int, users: Sequence[str], lists: npt.NDArray[np.int32]) -> None:
        pipeline = self._store.pipeline(transaction=False)
        for user, items in zip(users, lists, strict=True):
            pipeline.set(list_key(version, user), encode_list(items), ex=self._ttl)
        pipeline.execute()

    def _remove_withdrawn(self, version: int, written: dict[str, int]) -> dict[str, int]:
        still: dict[str, int] = {}
        for people in _parts(written):
            allowed = self._allowed(people)
            withdrawn = [list_key(version, user) for user in people if user not in allowed]
            if withdrawn:
                self._store.unlink(*withdrawn)
            still |= allowed
        return still

    def _check(self, version: int, written: dict[str, int]) -> None:
        """Every list stands, but for those of people who withdrew since they were asked."""
        for people in _parts(written):
            pipeline = self._store.pipeline(transaction=False)
            for user in people:
                pipeline.exists(list_key(version, user))
            there = pipeline.execute()
            missing = {user: people[user] for user, found in zip(people, there, strict=True) if not found}
            if missing and self._allowed(missing):
                raise PublishError(
                    f"lists of version {version} vanished while it was published: give the online store more memory, "
                    "or turn eviction off, and train again"
                )

    def _remove_others(self, keep: set[int | None]) -> None:
        for other in sorted(kept(self._store) - keep):
            for pattern in (list_key(other, "*"), live_key(other, "*")):
                for keys in _chunks(self._store.scan_iter(pattern, count=BATCH)):
                    self._store.unlink(*keys)
            self._store.unlink(bundle_key(other))
            self._store.srem(KEPT, other)


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


def over_items_of(bundle: Bundle, interactions: Interactions) -> Histories:
    """(users, items of the bundle): the histories in the bundle's item indices, without items it does not know."""
    user_items = interactions.user_items
    columns = np.array([bundle.item_index.get(item, -1) for item in interactions.catalogue.items.ids], np.int32)
    rows = np.repeat(np.arange(user_items.shape[0]), np.diff(user_items.indptr))
    indices = columns[user_items.indices]
    known = indices >= 0
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows[known], minlength=user_items.shape[0]))])
    shape = (user_items.shape[0], len(bundle.items.item_ids))
    over = sparse.csr_matrix((user_items.data[known], indices[known], indptr.astype(np.int32)), shape=shape)
    return Histories(over, interactions.histories.at_ms[known])


def _batches(people: int) -> Iterable[range]:
    console = Console(stderr=True)
    starts = range(0, people, BATCH)
    shown = track(starts, "Publishing lists", console=console, disable=not console.is_terminal)
    return (range(start, min(start + BATCH, people)) for start in shown)


def _parts(people: dict[str, int]) -> Iterator[dict[str, int]]:
    users = list(people)
    for start in range(0, len(users), BATCH):
        yield {user: people[user] for user in users[start : start + BATCH]}


def _chunks(keys: Iterator[bytes]) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    for key in keys:
        chunk.append(key)
        if len(chunk) == BATCH:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
