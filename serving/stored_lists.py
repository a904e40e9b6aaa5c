"""Reads people's stored lists: many requests, one read at a time, and none that waits for a store that is down."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, cast

import structlog

from infra.online_store import AsyncOnlineStore, KeyReader, packed_key, slot_of
from serving.fallback import StoredLists
from serving.metrics import RecommendationMetrics
from serving.patience import patience
from training.bundle import list_key, live_key

TIMEOUT_SECONDS = 0.05
PROBE_SECONDS = 0.25
MOST_AT_ONCE = 256
"""People in one read: enough to carry any load, few enough that decoding it does not hold up the others."""

_Waiting = tuple[bytes, "asyncio.Future[StoredLists | None]"]
"""Packed keys of the live and the published list, and who waits for them."""


class ReadsLists(Protocol):
    """What serving asks of the online store: see `ListReader`."""

    def ask(self, version: int, user_id: bytes) -> "asyncio.Future[StoredLists | None] | None":
        """A person's lists of one version."""

    @property
    def waiting(self) -> int:
        """How many wait for the next read."""

    async def values(self, keys: Sequence[str]) -> list[bytes | None] | None:
        """What stands under other keys."""

    async def close(self) -> None:
        """Give back what was opened."""


class ListReader:
    """Reads lists with one MGET at a time; what is asked for while one is under way shares the next.

    After a failed read every answer is None at once, until a probe in the background has had an answer again: an
    outage costs one time-out, not one a request.

    Args:
        store: a client of its own, without a time-out. Belongs to one event loop.
        metrics: where failures are counted.
        timeout: seconds that a read may take.
        reader: what reads from the store; None: a `KeyReader`.
    """

    def __init__(
        self,
        store: AsyncOnlineStore,
        metrics: RecommendationMetrics,
        timeout: float = TIMEOUT_SECONDS,
        reader: KeyReader | None = None,
    ) -> None:
        self._store = store
        self._reader = reader or KeyReader(store)
        self._values = Values(store.mget, metrics, timeout)
        self._keys = ListKeys()
        self._metrics = metrics
        self._timeout = timeout
        self._waiting: list[_Waiting] = []
        self._reading: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._log = structlog.get_logger()

    def ask(self, version: int, user_id: bytes) -> "asyncio.Future[StoredLists | None] | None":
        """Read a person's lists of one version with the next read; None when the store does not answer.

        The future's result is None when it stops answering meanwhile. Who cancels the future is left out of the read.

        Args:
            version: of the lists.
            user_id: in UTF-8.
        """
        return self.ask_for(self._keys.of(version, user_id))

    def ask_for(self, keys: bytes) -> "asyncio.Future[StoredLists | None] | None":
        """The same, of packed keys: see `ListKeys`."""
        if self._probing is not None:
            return None
        answer: asyncio.Future[StoredLists | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((keys, answer))
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_all())
        return answer

    @property
    def waiting(self) -> int:
        """How many wait for the next read."""
        return len(self._waiting)

    @property
    def down(self) -> bool:
        """Whether the store does not answer now."""
        return self._probing is not None

    async def values(self, keys: Sequence[str]) -> list[bytes | None] | None:
        """What stands under other keys, in a read of its own; None when the store does not answer.

        A failure is not held against the lists: those who ask here have more to do, and may be late by themselves.
        """
        return None if self.down else await self._values.read(keys)

    async def close(self) -> None:
        """Stop what runs in the background and give back the connection."""
        tasks = [task for task in (self._reading, self._probing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._answer_none(self._waiting)
        await self._reader.close()
        await self._store.aclose()

    async def _read_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
                if batch := [waiting for waiting in batch if not waiting[1].done()]:
                    await self._read_batch(batch)
        finally:
            self._reading = None

    async def _read_batch(self, batch: list[_Waiting]) -> None:
        try:
            async with patience(self._timeout):
                values = await self._reader.read([keys for keys, _ in batch], 2 * len(batch))
        except asyncio.CancelledError:
            self._answer_none(batch)
            raise
        except Exception as error:  # whatever it is, the requests are answered
            self._fail(batch, type(error).__name__)
            return
        for (_, answer), live, personal in zip(batch, values[::2], values[1::2], strict=True):
            if not answer.done():
                answer.set_result(StoredLists(live, personal))

    def _fail(self, batch: list[_Waiting], error: str) -> None:
        self._metrics.store_errors[error] += 1
        self._answer_none(batch + self._waiting)
        self._waiting = []
        self._log.warning("lists_unreadable", error=error, served="from memory")
        self._probing = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        while True:
            try:
                async with patience(self._timeout):
                    await self._reader.ping()
                break
            except Exception:
                await asyncio.sleep(PROBE_SECONDS)
        self._log.info("lists_readable_again")
        self._probing = None

    @staticmethod
    def _answer_none(batch: list[_Waiting]) -> None:
        for _, answer in batch:
            if not answer.done():
                answer.set_result(None)


class Values:
    """Reads other keys than lists, and asks nobody for a while who did not answer.

    Args:
        read: the values of these keys.
        metrics: where failures are counted.
        timeout: seconds that a read may take.
    """

    def __init__(
        self, read: Callable[[Sequence[str]], Awaitable[object]], metrics: RecommendationMetrics, timeout: float
    ) -> None:
        self._read = read
        self._metrics = metrics
        self._timeout = timeout
        self._due = 0.0
        self._log = structlog.get_logger()

    async def read(self, keys: Sequence[str]) -> list[bytes | None] | None:
        """The values of these keys; None when the store does not answer."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._due:
            return None
        try:
            async with patience(self._timeout):
                return cast("list[bytes | None]", await self._read(keys))
        except Exception as error:  # whatever it is, the request is answered
            self._metrics.store_errors[type(error).__name__] += 1
            if loop.time() >= self._due:
                self._log.warning("values_unreadable", error=type(error).__name__, served="from memory")
            self._due = loop.time() + PROBE_SECONDS
            return None


class ListKeys:
    """Packed keys of a person's lists; what is the same of everybody is made once a version."""

    def __init__(self) -> None:
        self._version = -1
        self._live = self._personal = self._end = b""

    def of(self, version: int, user_id: bytes) -> bytes:
        """Those of a person's live and published list."""
        self._begin(version)
        last = user_id + self._end
        return packed_key(self._live + last) + packed_key(self._personal + last)

    def slot(self, version: int, user_id: bytes) -> int:
        """The slot of a cluster that both are in."""
        self._begin(version)
        return slot_of(self._personal + user_id + self._end)

    def _begin(self, version: int) -> None:
        if version != self._version:
            self._live, self._end = _around(live_key(version, "*"))
            self._personal, _ = _around(list_key(version, "*"))
            self._version = version


def _around(key: str) -> tuple[bytes, bytes]:
    before, _, after = key.encode().partition(b"*")
    return before, after
