"""Reads people's stored lists from a Redis Cluster: a reader a master, so that one that is down holds up no other's.

Both lists of a person are in one slot, and what is asked of a master meanwhile shares its next read. Which master has
which slot is looked up again when one does not answer, or says that a slot is not there any more.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import structlog

from infra.online_store import AsyncOnlineStore, MasterReader, connect_async
from infra.transport import Cluster, is_cluster
from serving.fallback import StoredLists
from serving.metrics import RecommendationMetrics
from serving.patience import patience
from serving.stored_lists import PROBE_SECONDS, TIMEOUT_SECONDS, ListKeys, ListReader, ReadsLists, Values


def open_list_reader(url: str, metrics: RecommendationMetrics, timeout: float = TIMEOUT_SECONDS) -> ReadsLists:
    """What reads the lists of the store at a URL. The arguments are those of `ClusterListReader`."""
    if is_cluster(url):
        return ClusterListReader(url, metrics, timeout)
    return ListReader(connect_async(url, None), metrics, timeout)


class _Master:
    """What reads from one master."""

    def __init__(self, store: AsyncOnlineStore, metrics: RecommendationMetrics, timeout: float) -> None:
        self._reader = MasterReader(store)
        self.lists = ListReader(store, metrics, timeout, self._reader)

    def doubtful(self) -> bool:
        """Whether it may be the master of other slots by now, or of none."""
        astray, self._reader.astray = self._reader.astray, False
        return astray or self.lists.down


class ClusterListReader:
    """Reads lists as `ListReader` does, master by master.

    Args:
        url: of the cluster.
        metrics: where failures are counted.
        timeout: seconds that a read may take.
    """

    def __init__(self, url: str, metrics: RecommendationMetrics, timeout: float = TIMEOUT_SECONDS) -> None:
        self._cluster: Any = connect_async(url)
        self._node_url = Cluster.of(url).node
        self._metrics = metrics
        self._timeout = timeout
        self._keys = ListKeys()
        self._values = Values(self._read_apart, metrics, timeout)
        self._masters: dict[str, _Master] = {}
        self._by_slot: dict[int, _Master] = {}
        self._looked = asyncio.Event()
        self._unread = False
        self._following: asyncio.Task[None] | None = None
        self._log = structlog.get_logger()

    def ask(self, version: int, user_id: bytes) -> "asyncio.Future[StoredLists | None] | None":
        """Read a person's lists of one version with the next read of their master; None where that does not answer.

        Args:
            version: of the lists.
            user_id: in UTF-8.
        """
        self._begin_to_follow()
        if not self._looked.is_set():
            return asyncio.ensure_future(self._ask_once_looked(version, user_id))
        master = self._by_slot.get(self._keys.slot(version, user_id))
        return None if master is None else master.lists.ask_for(self._keys.of(version, user_id))

    @property
    def waiting(self) -> int:
        """How many wait for the next read, of all masters."""
        return sum(master.lists.waiting for master in self._masters.values())

    async def values(self, keys: Sequence[str]) -> list[bytes | None] | None:
        """What stands under other keys, on whatever masters; None when one of them does not answer."""
        self._begin_to_follow()
        found = await self._values.read(keys)
        self._unread |= found is None
        return found

    async def close(self) -> None:
        """Stop what runs in the background and give back the connections."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await asyncio.gather(*(master.lists.close() for master in self._masters.values()))
        await self._cluster.aclose()

    async def _ask_once_looked(self, version: int, user_id: bytes) -> StoredLists | None:
        try:
            async with patience(self._timeout):
                await self._looked.wait()
        except TimeoutError:
            return None
        reading = self.ask(version, user_id)
        return None if reading is None else await reading

    async def _read_apart(self, keys: Sequence[str]) -> object:
        return await self._cluster.mget_nonatomic(keys)

    def _begin_to_follow(self) -> None:
        if self._following is None:
            self._following = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        """Keep the map of the slots: look it up at first, and while some master is doubtful."""
        while True:
            doubts = [self._unread, *(master.doubtful() for master in self._masters.values())]
            self._unread = False
            if not self._by_slot or True in doubts:
                with suppress(Exception):  # whatever it is, it is tried again
                    await self._look_up()
                self._looked.set()
            await asyncio.sleep(PROBE_SECONDS)

    async def _look_up(self) -> None:
        nodes = self._cluster.nodes_manager
        await nodes.initialize()
        found = {slot: replicas[0] for slot, replicas in nodes.slots_cache.items()}
        names = {node.name: node for node in found.values()}
        if names.keys() != self._masters.keys():
            self._log.info("masters_of_the_store", masters=sorted(names))
        gone = [self._masters.pop(name) for name in self._masters.keys() - names.keys()]
        for name in names.keys() - self._masters.keys():
            store = connect_async(self._node_url(names[name].host, names[name].port), None)
            self._masters[name] = _Master(store, self._metrics, self._timeout)
        self._by_slot = {slot: self._masters[node.name] for slot, node in found.items()}
        for master in gone:
            await master.lists.close()
