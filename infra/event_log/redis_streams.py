"""The event log on Redis Streams: one stream a partition, for one machine. As durable as that Redis's own file."""

import time
import uuid
import zlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import structlog
from redis.exceptions import ResponseError
from redis.typing import EncodableT

from infra.event_log import redis_scripts
from infra.event_log.ends import Ends
from infra.event_log.port import (
    SKIP,
    Consumer,
    EventLogUnavailable,
    Fences,
    Guard,
    GuardChanged,
    Position,
    StartAt,
)
from infra.event_log.redis_consumer import RedisStreamsConsumer
from infra.event_log.redis_topic import answering, end_offsets, offset_of, partitions_key, stream_key
from infra.online_store import OnlineStore, connect

APPEND_SECONDS = 1.2
FORGET_SECONDS = 60.0
MADE_SECONDS = 30.0
FORGET_PAGE = 1000
LOCK_MILLISECONDS = 10_000


class RedisStreamsEventLog:
    """See `port.EventLog`.

    Args:
        url: `redis://`, `rediss://` or `unix://`; Redis 7 or newer, or Valkey.
        topic: the log's one topic.
        partitions: how many the topic gets where it does not exist; else the number it was made with stays.

        fences: what was landed of it; None: wait until another process has made the topic.

    Raises:
        EventLogUnavailable: nothing answers there, or the topic is not made in time.
    """

    def __init__(
        self, url: str, topic: str, partitions: int, fences: Fences | None = lambda: MappingProxyType({})
    ) -> None:
        self._url = url
        self._topic = topic
        self._partitions = partitions
        self._ends = Ends()
        self._store = connect(url, APPEND_SECONDS)
        self._copy_page = self._store.register_script(redis_scripts.COPY_PAGE)
        self._append = self._store.register_script(redis_scripts.APPEND)
        self._begin = self._store.register_script(redis_scripts.BEGIN)
        if fences is not None:
            self.keep(fences)
        with answering():
            _until(lambda: self._made() is not None, "nobody has made the log's topic", MADE_SECONDS)
            self._partitions = self._made() or partitions
            durable = _persistence(self._store)["aof_enabled"]
        log = structlog.get_logger(__name__)
        if self._partitions != partitions:
            log.warning("the topic keeps its partitions", topic=topic, has=self._partitions, asked=partitions)
        if not durable:
            log.warning("the log's Redis keeps no append-only file: a restart may lose events; set appendonly yes")

    def append(self, records: Sequence[tuple[bytes, bytes]], guard: Guard | None = None) -> list[Position]:
        """See `port.EventLog.append`. All of the records are taken or none."""
        before, guard = self._ends.before_append(), guard or {}
        partitions = [self._partition(key) for key, _ in records]
        streams = (stream_key(self._topic, partition) for partition in partitions)
        arguments: list[EncodableT] = [len(guard), *guard.values(), *(word for record in records for word in record)]
        with answering():
            ids = self._append(keys=[partitions_key(self._topic), *guard, *streams], args=arguments)
        if ids is None:
            raise GuardChanged("what the records rest on has changed meanwhile")
        if ids == 0:
            raise EventLogUnavailable("the log has lost its topic: it has to be made anew, above what was landed")
        taken = [Position(p, offset_of(entry)) for p, entry in zip(partitions, cast("list[bytes]", ids), strict=True)]
        self._ends.check(taken, before)
        return taken

    def keep(self, fences: Fences) -> None:
        """See `port.EventLog.keep`. A stream can be made to go on anywhere, so this log is never left behind."""
        with answering():
            made = self._made()
        if made is None or not self._ends.agree(self.end_offsets()):
            self._go_on_above(fences(), made or self._partitions)
        self._ends.met(self.end_offsets())
        self._ends.behind = False

    def consumer(self, group: str, start_at: StartAt | None = None) -> Consumer:
        """See `port.EventLog.consumer`."""
        return RedisStreamsConsumer(self._url, self._topic, self._partitions, group, start_at)

    def end_offsets(self) -> dict[int, int]:
        """See `port.EventLog.end_offsets`."""
        return end_offsets(self._store, self._topic, range(self._partitions))

    def forget(self, at: Position) -> int:
        """See `port.EventLog.forget`.

        An entry deleted by XDEL keeps its bytes in the stream's memory and in the file. So the partition is copied
        without these records and swapped in one step, and the file is written anew.
        """
        entry = f"0-{at.offset + 1}"
        with answering():
            found = self._store.xrange(stream_key(self._topic, at.partition), entry, entry)
            removed = self._copy_without(at, cast("list[Any]", found)[0][1][b"k"]) if found else 0
            _rewrite_file(self._store)
        return removed

    def keeps_seconds(self) -> None:
        """See `port.EventLog.keeps_seconds`: whatever is to be forgotten can be removed."""

    def close(self) -> None:
        """See `port.EventLog.close`."""
        self._store.close()

    def _made(self) -> int | None:
        """Number of the topic's partitions; None where there is no topic."""
        found = cast("bytes | None", self._store.get(partitions_key(self._topic)))
        return None if found is None else int(found)

    def _go_on_above(self, landed: Mapping[int, int], partitions: int) -> None:
        known = self._ends.now()
        fences = [max(landed.get(partition, 0), known.get(partition, 0)) for partition in range(partitions)]
        streams = (stream_key(self._topic, partition) for partition in range(partitions))
        with answering():
            if not self._begin(keys=[partitions_key(self._topic), *streams], args=[partitions, SKIP, *fences]):
                raise EventLogUnavailable("another process made the topic just now, with other partitions: try again")
        self._partitions = partitions

    def _partition(self, key: bytes) -> int:
        return zlib.crc32(key) % self._partitions

    def _copy_without(self, at: Position, key: bytes) -> int:
        stream = stream_key(self._topic, at.partition)
        keys, token = [stream, f"{stream}:copy", f"{stream}:lock"], uuid.uuid4().hex
        _until(lambda: bool(self._store.set(keys[2], token, nx=True, px=LOCK_MILLISECONDS)), "another forget() runs")
        self._store.delete(keys[1])
        removed, after = 0, b"-"
        while after != b"+":
            arguments: list[EncodableT] = [token, LOCK_MILLISECONDS, after, FORGET_PAGE, key, at.offset]
            found, after = self._copy_page(keys=keys, args=arguments)
            if found < 0:
                raise EventLogUnavailable("forgetting took too long and was given up; nothing changed: try again")
            removed += found
        return removed


def _persistence(store: OnlineStore) -> dict[str, Any]:
    return store.info("persistence")


def _rewrite_file(store: OnlineStore) -> None:
    """Have the append-only file written anew, so that what is no longer in memory is no longer in it."""

    def idle() -> bool:
        state = _persistence(store)
        return not (state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"])

    def begun() -> bool:
        """A rewrite that began before may have missed what was just forgotten: ours has to begin after it."""
        if not idle():
            return False
        try:
            store.bgrewriteaof()
        except ResponseError as error:
            if "in progress" not in str(error):
                raise
            return False
        return True

    if not _persistence(store)["aof_enabled"]:
        return
    _until(begun, "the append-only file is being written anew")
    _until(idle, "the append-only file is being written anew")
    if _persistence(store)["aof_last_bgrewrite_status"] != "ok":
        raise EventLogUnavailable("the append-only file could not be written anew: see Redis's own log, then try again")


def _until(condition: Callable[[], bool], waiting_for: str, seconds: float = FORGET_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise EventLogUnavailable(f"{waiting_for} for more than {seconds:.0f} s: try again later")
        time.sleep(0.02)
