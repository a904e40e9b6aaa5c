"""One member of a group that shares the topic on Redis Streams."""

import time
import uuid
from collections.abc import Mapping
from typing import Any, cast

import structlog
from redis.typing import EncodableT

from infra.event_log import redis_scripts
from infra.event_log.port import PartitionsLost, Record, StartAt
from infra.event_log.redis_topic import answering, end_offsets, group_keys, offset_of, stream_key
from infra.online_store import OnlineStoreError, connect


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
        with answering():
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
        with answering():
            ours = self._commit(keys=[self._owners, self._offsets], args=[self._member, *pairs])
        if not ours:
            raise PartitionsLost("another member of the group owns these partitions by now: poll again")

    def assigned(self) -> set[int]:
        """See `port.Consumer.assigned`."""
        return set(self._positions)

    def position(self, partition: int) -> int:
        """See `port.Consumer.position`."""
        if partition not in self._positions:
            raise PartitionsLost(f"partition {partition} is not ours: poll again")
        return self._positions[partition]

    def lag(self) -> dict[int, int]:
        """See `port.Consumer.lag`."""
        ends = end_offsets(self._store, self._topic, sorted(self._positions))
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
            Record(streams[stream], offset_of(entry), fields[b"k"], fields[b"v"])
            for stream, pages in (found or {}).items()
            for page in pages
            for entry, fields in page
        ][:max_records]
        for record in records:
            self._positions[record.partition] = record.offset + 1
        return records
