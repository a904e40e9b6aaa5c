"""Reads people's stored lists: many requests, one read at a time, and none that waits for a store that is down."""

import asyncio
from typing import cast

import structlog

from infra.online_store import AsyncOnlineStore
from serving.fallback import StoredLists
from serving.metrics import RecommendationMetrics
from training.bundle import CURRENT, list_key, live_key

TIMEOUT_SECONDS = 0.12
PROBE_SECONDS = 0.25
MOST_AT_ONCE = 256
"""People in one read: enough to carry any load, few enough that decoding it does not hold up the others."""

_Waiting = tuple[str, str, "asyncio.Future[StoredLists | None]"]


class ListReader:
    """Reads lists with one MGET at a time; what is asked for while one is under way shares the next.

    After a failed read every answer is None at once, until a probe in the background has had an answer again: an
    outage costs one time-out, not one a request.

    Args:
        store: a client of its own. Belongs to one event loop.
        metrics: where failures are counted.
        timeout: seconds that a read may take.
    """

    def __init__(
        self, store: AsyncOnlineStore, metrics: RecommendationMetrics, timeout: float = TIMEOUT_SECONDS
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._timeout = timeout
        self._waiting: list[_Waiting] = []
        self._reading: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._log = structlog.get_logger()

    async def read(self, version: int, user_id: str) -> StoredLists | None:
        """A person's lists of one version; None when the store does not answer."""
        if self._probing is not None:
            return None
        answer: asyncio.Future[StoredLists | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((live_key(version, user_id), list_key(version, user_id), answer))
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_all())
        return await answer

    async def close(self) -> None:
        """Stop what runs in the background and give back the connection."""
        tasks = [task for task in (self._reading, self._probing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._answer_none(self._waiting)
        await self._store.aclose()

    async def _read_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
                await self._read_batch(batch)
        finally:
            self._reading = None

    async def _read_batch(self, batch: list[_Waiting]) -> None:
        keys = [key for live, personal, _ in batch for key in (live, personal)]
        try:
            async with asyncio.timeout(self._timeout):
                values = cast("list[bytes | None]", await self._store.mget(keys))
        except asyncio.CancelledError:
            self._answer_none(batch)
            raise
        except Exception as error:  # whatever it is, the requests are answered
            self._fail(batch, type(error).__name__)
            return
        for (_, _, answer), live, personal in zip(batch, values[::2], values[1::2], strict=True):
            if not answer.done():
                answer.set_result(StoredLists(live, personal))

    def _fail(self, batch: list[_Waiting], error: str) -> None:
        self._metrics.store_errors[error] += 1
        self._log.warning("lists_unreadable", error=error, served="from memory")
        self._probing = asyncio.create_task(self._probe())
        self._answer_none(batch + self._waiting)
        self._waiting = []

    async def _probe(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._timeout):
                    await self._store.mget([CURRENT])
                break
            except Exception:
                await asyncio.sleep(PROBE_SECONDS)
        self._log.info("lists_readable_again")
        self._probing = None

    @staticmethod
    def _answer_none(batch: list[_Waiting]) -> None:
        for _, _, answer in batch:
            if not answer.done():
                answer.set_result(None)
