"""The log's topic on Redis Streams: its keys, and how far it has come.

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

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from infra.event_log.port import EventLogUnavailable
from infra.online_store import OnlineStore, OnlineStoreError
from infra.transport import reason


def partitions_key(topic: str) -> str:
    """Number of the topic's partitions."""
    return f"log:{topic}:partitions"


def stream_key(topic: str, partition: int) -> str:
    """Records of one partition."""
    return f"log:{topic}:{partition}"


def group_keys(topic: str, group: str) -> tuple[str, str, str]:
    """Committed offsets, members and partition owners of a group."""
    return (f"log:{topic}:{group}:offsets", f"log:{topic}:{group}:members", f"log:{topic}:{group}:owners")


@contextmanager
def answering() -> Iterator[None]:
    """Turn what the client raises into the port's error, without the client's message: it may quote a record."""
    try:
        yield
    except OnlineStoreError as error:
        raise EventLogUnavailable(f"the event log's Redis does not answer: {reason(error)}") from None


def offset_of(entry: bytes) -> int:
    """Of the entry of this id."""
    return int(entry.partition(b"-")[2]) - 1


def end_offsets(store: OnlineStore, topic: str, partitions: Sequence[int]) -> dict[int, int]:
    """partition → offset that the next record of it will get, of these partitions."""
    batch = store.pipeline(transaction=False)
    for partition in partitions:
        batch.exists(stream_key(topic, partition))
    with answering():
        there = [partition for partition, exists in zip(partitions, batch.execute(), strict=True) if exists]
        for partition in there:
            batch.xinfo_stream(stream_key(topic, partition))
        streams = dict(zip(there, batch.execute(), strict=True))
    return {p: offset_of(streams[p]["last-generated-id"]) + 1 if p in streams else 0 for p in partitions}
