"""The event log on Redis Streams: one stream a partition, for one machine. It is as durable as that Redis's own file.

Keys, all below the topic:

| key                              | type   | holds                                                               |
|----------------------------------|--------|---------------------------------------------------------------------|
| `log:{topic}:partitions`         | string | number of partitions, fixed at creation                             |
| `log:{topic}:{partition}`        | stream | records; the entry `0-{n}` has offset n - 1                         |
| `log:{topic}:{partition}:copy`   | stream | a partition that is being written anew without somebody's records   |
| `log:{topic}:{partition}:lock`   | string | who writes it anew, expiring                                        |
| `log:{topic}:{group}:offsets`    | hash   | partition → next offset to read, as committed                       |
| `log:{topic}:{group}:members`    | zset   | member → its last heartbeat, in milliseconds by Redis's clock       |
| `log:{topic}:{group}:owners`     | hash   | partition → "deadline member": who reads it and until when for sure |
"""

import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import structlog
from redis.exceptions import ResponseError
from redis.typing import EncodableT

from infra.event_log import redis_scripts
from infra.event_log.port import (
    Consumer,
    EventLogUnavailable,
    Guard,
    GuardChanged,
    PartitionsLost,
    Position,
    Record,
    StartAt,
)
from infra.online_store import OnlineStore, OnlineStoreError, connect

FORGET_SECONDS = 60.0
FORGET_PAGE = 1000
LOCK_MILLISECONDS = 10_000


def partitions_key(topic: str) -> str:
    """Number of the topic's partitions."""
    return f"log:{topic}:partitions"


def stream_key(topic: str, partition: int) -> str:
    """Records of one partition."""
    return f"log:{topic}:{partition}"


def group_keys(topic: str, group: str) -> tuple[str, str, str]:
    """Committed offsets, members and partition owners of a group."""
    return (f"log:{topic}:{group}:offsets", f"log:{topic}:{group}:members", f"log:{topic}:{group}:owners")


class RedisStreamsEventLog:
    """See `port.EventLog`.

    Args:
        url: `redis://`, `rediss://` or `unix://`; Redis 7 or newer, or Valkey.
        topic: the log's one topic.
        partitions: how many the topic gets where it does not exist; else the number it was made with stays.

    Raises:
        EventLogUnavailable: nothing answers there.
    """

    def __init__(self, url: str, topic: str, partitions: int) -> None:
        self._url = url
        self._topic = topic
        self._store = connect(url)
        self._copy_page = self._store.register_script(redis_scripts.COPY_PAGE)
        self._append_guarded = self._store.register_script(redis_scripts.APPEND_GUARDED)
        with _answering():
            self._store.set(partitions_key(topic), partitions, nx=True)
            self._partitions = int(cast(bytes, self._store.get(partitions_key(topic))))
            durable = _persistence(self._store)["aof_enabled"]
        log = structlog.get_logger(__name__)
        if self._partitions != partitions:
            log.warning("the topic keeps its partitions", topic=topic, has=self._partitions, asked=partitions)
        if not durable:
            log.warning("the log's Redis keeps no append-only file: a restart may lose events; set appendonly yes")

    def append(self, records: Sequence[tuple[bytes, bytes]], guard: Guard | None = None) -> list[Position]:
        """See `port.EventLog.append`. All of the records are taken or none."""
        partitions = [self._partition(key) for key, _ in records]
        with _answering():
            ids = self._guarded(partitions, records, guard) if guard else self._unguarded(partitions, records)
        return [Position(partition, _offset(entry)) for partition, entry in zip(partitions, ids, strict=True)]

    def _unguarded(self, partitions: Sequence[int], records: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        batch = self._store.pipeline(transaction=True)
        for partition, (key, value) in zip(partitions, records, strict=True):
            batch.xadd(stream_key(self._topic, partition), {b"k": key, b"v": value}, id="0-*")
        return cast("list[bytes]", batch.execute())

    def _guarded(
        self, partitions: Sequence[int], records: Sequence[tuple[bytes, bytes]], guard: Guard
    ) -> Sequence[bytes]:
        keys = [*guard, *(stream_key(self._topic, partition) for partition in partitions)]
        arguments: list[EncodableT] = [len(guard), *guard.values(), *(word for record in records for word in record)]
        ids = cast("list[bytes] | None", self._append_guarded(keys=keys, args=arguments))
        if ids is None:
            raise GuardChanged("what the records rest on has changed meanwhile")
        return ids

    def consumer(self, group: str, start_at: StartAt | None = None) -> Consumer:
        """See `port.EventLog.consumer`."""
        return RedisStreamsConsumer(self._url, self._topic, self._partitions, group, start_at)

    def end_offsets(self) -> dict[int, int]:
        """See `port.EventLog.end_offsets`."""
        return _end_offsets(self._store, self._topic, range(self._partitions))

    def forget(self, at: Position) -> int:
        """See `port.EventLog.forget`.

        An entry deleted by XDEL keeps its bytes in the stream's memory and in the file. So the partition is copied
        without these records and swapped in one step, and the file is written anew.
        """
        entry = f"0-{at.offset + 1}"
        with _answering():
            found = self._store.xrange(stream_key(self._topic, at.partition), entry, entry)
            removed = self._copy_without(at, cast("list[Any]", found)[0][1][b"k"]) if found else 0
            _rewrite_file(self._store)
        return removed

    def close(self) -> None:
        """See `port.EventLog.close`."""
        self._store.close()

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


class RedisStreamsConsumer:
    """See `port.Consumer`. The partitions are dealt to the members that polled within the lease.

    Attributes:
        lease_seconds: a member that did not poll for so long loses its partitions to the others.
        heartbeat_seconds: how often `poll` tells that the member lives, and looks at who owns what.
    """

    lease_seconds = 5.0
    heartbeat_seconds = 1.0

    def __init__(self, url: str, topic: str, partitions: int, group: str, start_at: StartAt | None) -> None:
        # A read waits in Redis for up to a heartbeat: the socket has to wait longer.
        self._store = connect(url, timeout=self.heartbeat_seconds + 2)
        self._topic = topic
        self._partitions = partitions
        self._start_at = start_at
        self._offsets, self._members, self._owners = group_keys(topic, group)
        self._share = self._store.register_script(redis_scripts.SHARE)
        self._commit = self._store.register_script(redis_scripts.COMMIT)
        self._leave = self._store.register_script(redis_scripts.LEAVE)
        self._member = uuid.uuid4().hex
        self._positions: dict[int, int] = {}
        self._next_heartbeat = 0.0

    def poll(self, timeout: float, max_records: int = 5000) -> list[Record]:
        """See `port.Consumer.poll`."""
        deadline = time.monotonic() + timeout
        with _answering():
            while True:
                if time.monotonic() >= self._next_heartbeat:
                    self._take_share()
                remaining = max(0.0, deadline - time.monotonic())
                records = self._read(min(remaining, self.heartbeat_seconds), max_records)
                if records or remaining == 0.0:
                    return records

    def seek(self, partition: int, offset: int) -> None:
        """See `port.Consumer.seek`."""
        if partition not in self._positions:
            raise PartitionsLost(f"partition {partition} is not ours: poll again")
        self._positions[partition] = offset

    def commit(self, offsets: Mapping[int, int]) -> None:
        """See `port.Consumer.commit`."""
        pairs = [number for pair in offsets.items() for number in pair]
        with _answering():
            ours = self._commit(keys=[self._owners, self._offsets], args=[self._member, *pairs])
        if not ours:
            raise PartitionsLost("another member of the group owns these partitions by now: poll again")

    def assigned(self) -> set[int]:
        """See `port.Consumer.assigned`."""
        return set(self._positions)

    def lag(self) -> dict[int, int]:
        """See `port.Consumer.lag`."""
        ends = _end_offsets(self._store, self._topic, sorted(self._positions))
        return {partition: max(0, end - self._positions[partition]) for partition, end in ends.items()}

    def close(self) -> None:
        """See `port.Consumer.close`."""
        self._positions.clear()
        try:
            self._leave(keys=[self._members, self._owners], args=[self._member])
        except OnlineStoreError:
            structlog.get_logger(__name__).warning("left the group without a word: the lease has to run out")
        self._store.close()

    def _take_share(self) -> None:
        arguments: list[EncodableT] = [self._member, int(self.lease_seconds * 1000), self._partitions]
        kept, gained = self._share(keys=[self._members, self._owners], args=arguments)
        known = {partition: self._positions[partition] for partition in kept if partition in self._positions}
        self._positions = known
        for partition in [*kept, *gained]:
            if partition not in known:
                self._positions[partition] = self._start(partition)
        self._next_heartbeat = time.monotonic() + self.heartbeat_seconds

    def _start(self, partition: int) -> int:
        wanted = self._start_at(partition) if self._start_at else None
        if wanted is not None:
            return wanted
        return int(cast("bytes | None", self._store.hget(self._offsets, str(partition))) or 0)

    def _read(self, timeout: float, max_records: int) -> list[Record]:
        if not self._positions:
            time.sleep(min(timeout, self.heartbeat_seconds / 5))
            return []
        streams = {stream_key(self._topic, p).encode(): p for p in self._positions}
        after = {stream: f"0-{self._positions[p]}" for stream, p in streams.items()}
        count = -(-max_records // len(streams))
        block = int(timeout * 1000) or None
        found = cast("dict[bytes, list[Any]] | None", self._store.xread(cast(Any, after), count=count, block=block))
        records = [
            Record(streams[stream], _offset(entry), fields[b"k"], fields[b"v"])
            for stream, pages in (found or {}).items()
            for page in pages
            for entry, fields in page
        ][:max_records]
        for record in records:
            self._positions[record.partition] = record.offset + 1
        return records


@contextmanager
def _answering() -> Iterator[None]:
    """Turn what the client raises into the port's error, without the client's message: it may quote a record."""
    try:
        yield
    except OnlineStoreError as error:
        raise EventLogUnavailable(f"the event log's Redis does not answer: {type(error).__name__}") from None


def _offset(entry: bytes) -> int:
    return int(entry.partition(b"-")[2]) - 1


def _end_offsets(store: OnlineStore, topic: str, partitions: Sequence[int]) -> dict[int, int]:
    batch = store.pipeline(transaction=False)
    for partition in partitions:
        batch.exists(stream_key(topic, partition))
    with _answering():
        there = [partition for partition, exists in zip(partitions, batch.execute(), strict=True) if exists]
        for partition in there:
            batch.xinfo_stream(stream_key(topic, partition))
        streams = dict(zip(there, batch.execute(), strict=True))
    return {p: _offset(streams[p]["last-generated-id"]) + 1 if p in streams else 0 for p in partitions}


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


def _until(condition: Callable[[], bool], waiting_for: str) -> None:
    deadline = time.monotonic() + FORGET_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise EventLogUnavailable(f"{waiting_for} for more than {FORGET_SECONDS:.0f} s: try again later")
        time.sleep(0.02)
