"""Appending to Kafka by the batch, past the sending of one record at a time, which costs several times as much.

`KafkaProducer.send` takes locks and makes a future for every record. Here the records of a call are packed with the
client's own builder, one batch a partition, and put where `send` would have put them together. What matters for
durability stays the client's: sequence numbers, order, retries, time-outs, acknowledgements. This is the inside of the
client, so its version is pinned; `tests/contract/` asks a real broker whether all of it still holds.
"""

import time
from collections.abc import Sequence
from typing import Any

from kafka import TopicPartition
from kafka.errors import IllegalStateError, KafkaTimeoutError, MessageSizeTooLargeError
from kafka.partitioner import murmur2
from kafka.producer.producer_batch import ProducerBatch
from kafka.record import MemoryRecordsBuilder

from infra.event_log.port import Position

BATCH_BYTES = 128 * 1024
"""A batch is ended where another record would make it longer: far below the 1 MB that brokers take."""

MOST_BYTES = 1_000_000
"""Of a record. What a broker refuses for its length makes an idempotent producer useless, for everybody."""

_FORMAT, _UNCOMPRESSED = 2, 0


def append(
    producer: Any, topic: str, partitions: int, records: Sequence[tuple[bytes, bytes]], deadline: float
) -> list[Position]:
    """Where the records stand, in order, once all in-sync replicas have them.

    Args:
        producer: a `KafkaProducer` that waits for all acknowledgements.
        partitions: of the topic.
        deadline: until when to wait, by `time.monotonic()`.

    Raises:
        KafkaError: they are not all there in time; some may be.
    """
    producer.partitions_for(topic)  # One that is new has to learn first who leads them.
    packing = _Packing(topic)
    placed = [packing.add((murmur2(key) & 0x7FFFFFFF) % partitions, key, value) for key, value in records]
    _hand_over(producer, packing.batches)
    begins = {id(batch): _first_offset(batch, deadline) for batch in packing.batches}
    return [Position(batch.topic_partition.partition, begins[id(batch)] + index) for batch, index in placed]


def fill(producer: Any, topic: str, partition: int, count: int, seconds: float) -> None:
    """Append so many empty records to one partition.

    Raises: as `append`.
    """
    producer.partitions_for(topic)
    packing = _Packing(topic)
    for _ in range(count):
        packing.add(partition, b"", b"")
    _hand_over(producer, packing.batches)
    for batch in packing.batches:
        _first_offset(batch, time.monotonic() + seconds)


class _Packing:
    """Records on their way into batches.

    Attributes:
        batches: in the order in which they were begun.
    """

    def __init__(self, topic: str) -> None:
        self.batches: list[Any] = []
        self._topic = topic
        self._open: dict[int, Any] = {}
        self._at = int(time.time() * 1000)

    def add(self, partition: int, key: bytes, value: bytes) -> tuple[Any, int]:
        """The batch that the record is in, and its place there."""
        if len(key) + len(value) > MOST_BYTES:
            raise MessageSizeTooLargeError("a record is longer than brokers take")
        batch = self._open.get(partition)
        added = batch and batch.records.append(self._at, key, value)
        if not added:
            records = MemoryRecordsBuilder(_FORMAT, _UNCOMPRESSED, BATCH_BYTES)
            batch = self._open[partition] = ProducerBatch(TopicPartition(self._topic, partition), records)
            self.batches.append(batch)
            added = records.append(self._at, key, value)
        return batch, added.offset


def _hand_over(producer: Any, batches: Sequence[Any]) -> None:
    accumulator = producer._accumulator
    accumulator._appends_in_progress.increment()  # Whoever ends the producer waits, and gives up what we add.
    try:
        for batch in batches:
            with accumulator._tp_lock(batch.topic_partition):
                if accumulator._closed:
                    raise IllegalStateError("the producer was ended")
                accumulator._batches[batch.topic_partition].append(batch)
                accumulator._incomplete.add(batch)
    finally:
        accumulator._appends_in_progress.decrement()
    producer._sender.wakeup()


def _first_offset(batch: Any, deadline: float) -> int:
    if not batch.produce_future.wait(max(0.0, deadline - time.monotonic())):
        raise KafkaTimeoutError("not acknowledged in time")
    offset, _, error_of = batch.produce_future.value
    if error_of is not None:
        raise error_of(0)
    return int(offset)
