"""A store that has lost its data: one member rebuilds the histories, then every partition is read again from there on.

`{histories}:complete` is the store's own word that nothing is missing: a hash whose field `lake` holds the offsets up
to which the histories were rebuilt from the lake, and which has a field for each partition that was taken back to them.
A store that lost its data has lost the word too. What the lake tells is the same whoever adds it, and when: folding
goes on meanwhile.
"""

import time
import uuid
from collections.abc import Callable, Generator, Mapping
from typing import cast

import orjson
import structlog

from infra.online_store import OnlineStore
from training.bundle import COMPLETE, REBUILDING

LAKE = b"lake"
LOCK_SECONDS = 60
RETRY_SECONDS = 5.0

Source = Callable[[], Generator[int, None, dict[int, int]]]
"""Restores histories and items, some people at a time, and says how many; returns the offsets that they are from."""


class CannotRebuild(Exception):
    """The source does not answer now: try again later."""


def from_the_log_alone() -> Generator[int, None, dict[int, int]]:
    """Nothing is restored: every partition is read from its beginning."""
    structlog.get_logger().warning(
        "no lake here: histories are made of what the log holds, and a store that lost its data stays without the "
        "rest; to rebuild it install marquee[lake], set MARQUEE_LAKE and delete the key {histories}:complete"
    )
    yield from ()
    return {}


class Rebuilding:
    """Rebuilds what is not complete.

    Args:
        store: the online store.
        source: where histories and items are restored from.
    """

    def __init__(self, store: OnlineStore, source: Source) -> None:
        self._store = store
        self._source = source
        self._running: Generator[int, None, dict[int, int]] | None = None
        self._name = uuid.uuid4().hex
        self._not_before = 0.0
        self._log = structlog.get_logger()

    def step(self, complete: Mapping[bytes, bytes]) -> tuple[Mapping[bytes, bytes], int]:
        """Restore some people's histories, unless all are there or another member does it.

        Args:
            complete: `{histories}:complete`.

        Returns:
            The same as it is afterwards, and the number of people restored.

        Raises:
            ingest.events.ConsentUnavailable, infra.online_store.OnlineStoreError: begun again at the next step.
        """
        if LAKE in complete or time.monotonic() < self._not_before or not self._is_ours():
            self._running = None
            return complete, 0
        if self._running is None:
            self._log.warning("the online store has no histories, or not all of them: they are rebuilt")
            self._running = self._source()
        restored = self._restore_some(self._running)
        return cast("dict[bytes, bytes]", self._store.hgetall(COMPLETE)), restored

    def _restore_some(self, running: Generator[int, None, dict[int, int]]) -> int:
        try:
            return next(running)
        except StopIteration as end:
            self._finish(cast("dict[int, int]", end.value))
        except CannotRebuild as error:
            self._log.warning("the rebuilding of histories waits", reason=str(error))
            self._not_before = time.monotonic() + RETRY_SECONDS
            self._running = None
        except BaseException:
            self._running = None
            raise
        return 0

    def _is_ours(self) -> bool:
        """Whether it is we who rebuild. Who was taken for dead, or lost the store once more, begins again."""
        name = self._name.encode()
        if self._running is None:
            self._store.set(REBUILDING, name, nx=True, ex=LOCK_SECONDS)
        ours = bool(self._store.get(REBUILDING) == name)
        if ours:
            self._store.expire(REBUILDING, LOCK_SECONDS)
        return ours

    def _finish(self, watermark: Mapping[int, int]) -> None:
        self._running = None
        writes = self._store.pipeline(transaction=True)
        writes.hset(COMPLETE, LAKE.decode(), orjson.dumps(watermark, option=orjson.OPT_NON_STR_KEYS).decode())
        writes.delete(REBUILDING)
        writes.execute()
        self._log.info("histories are rebuilt", watermark=watermark)


def watermark_of(complete: Mapping[bytes, bytes]) -> dict[int, int] | None:
    """partition → offset up to which histories were rebuilt; None while they are not."""
    if LAKE not in complete:
        return None
    return {int(partition): offset for partition, offset in orjson.loads(complete[LAKE]).items()}
