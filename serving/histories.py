"""What nearline keeps of people in the online store: their histories and their live lists. It alone writes them."""

from collections.abc import Collection, Mapping, Sequence
from typing import cast

from infra.online_store import OnlineStore
from training.bundle import (
    CURRENT,
    KEPT,
    History,
    Indices,
    decode_history,
    encode_history,
    encode_list,
    history_key,
    live_key,
)


class Histories:
    """Histories and live lists, many people a round trip.

    Args:
        store: the online store.
        history_ttl: seconds that a history lives without a new event.
        list_ttl: seconds that a live list lives.
    """

    def __init__(self, store: OnlineStore, history_ttl: int, list_ttl: int) -> None:
        self._store = store
        self._history_ttl = history_ttl
        self._list_ttl = list_ttl

    def read(self, people: Sequence[str]) -> dict[str, History]:
        """user_id → history; an empty one for who has none."""
        if not people:
            return {}
        values = cast("list[bytes | None]", self._store.mget([history_key(person) for person in people]))
        return {person: decode_history(value) for person, value in zip(people, values, strict=True)}

    def write(self, histories: Mapping[str, History]) -> None:
        """Keep these histories."""
        writes = self._store.pipeline(transaction=False)
        for person, history in histories.items():
            writes.set(history_key(person), encode_history(history), ex=self._history_ttl)
        writes.execute()

    def write_live(self, version: int, lists: Mapping[str, Indices]) -> None:
        """Keep these lists (item indices, best first) as the live ones of `version`."""
        writes = self._store.pipeline(transaction=False)
        for person, indices in lists.items():
            writes.set(live_key(version, person), encode_list(indices), ex=self._list_ttl)
        writes.execute()

    def forget(self, people: Collection[str], version: int) -> dict[str, int]:
        """Delete the people's histories, and their live lists of every version that may have any.

        Args:
            people: user ids.
            version: that nearline writes live lists of, whether or not it is kept any more.

        Returns:
            user_id → keys deleted.
        """
        if not people:
            return {}
        versions = self._versions() | {version}
        deletes = self._store.pipeline(transaction=False)
        for person in people:
            deletes.delete(history_key(person), *(live_key(v, person) for v in versions))
        return dict(zip(people, deletes.execute(), strict=True))

    def _versions(self) -> set[int]:
        reads = self._store.pipeline(transaction=False)
        reads.smembers(KEPT)
        reads.get(CURRENT)
        kept, current = reads.execute()
        return {int(version) for version in kept} | ({int(current)} if current else set())
