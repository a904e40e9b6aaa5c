"""Batches that are put into kafka-python's producer past its `send` end as records of `send` do, on a real broker."""

import gc
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from infra.event_log import kafka_batches
from infra.event_log.kafka import KafkaEventLog
from infra.event_log.kafka_connection import connection
from infra.event_log.port import EventLogUnavailable, Position

PARTITIONS = 4
pytestmark = [pytest.mark.kafka, pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")]


@pytest.fixture
def log(kafka_url: str) -> Iterator[KafkaEventLog]:
    """An empty log."""
    opened = KafkaEventLog(kafka_url, f"test.{uuid.uuid4().hex}", PARTITIONS)
    yield opened
    opened.close()
    gc.collect()


def stored(log: KafkaEventLog) -> dict[Position, tuple[bytes, bytes]]:
    """Everything in the topic, as a reader of its own sees it."""
    reader = KafkaConsumer(check_crcs=True, **connection(log._brokers))
    every = [TopicPartition(log._topic, partition) for partition in range(PARTITIONS)]
    reader.assign(every)
    reader.seek_to_beginning(*every)
    found: dict[Position, tuple[bytes, bytes]] = {}
    while len(found) < sum(log.end_offsets().values()):
        for records in reader.poll(timeout_ms=500).values():
            found |= {Position(each.partition, each.offset): (each.key, each.value) for each in records}
    reader.close()
    return found


def records_of(count: int, length: int) -> list[tuple[bytes, bytes]]:
    return [(f"viewer-{n % 37}é".encode(), b"%0*d" % (length, n)) for n in range(count)]


def test_a_key_has_the_partition_that_the_client_itself_chooses(log: KafkaEventLog) -> None:
    """So that what one person did stands in one partition, whichever version of this code appended it."""
    keys = [f"{'x' * length}-{number}".encode() for length in range(5) for number in range(20)]
    ours = log.append([(key, b"1") for key in keys])
    sent = [log._producer.send(log._topic, key=key, value=b"2") for key in keys]
    assert [each.get(timeout=20).partition for each in sent] == [position.partition for position in ours]


@pytest.mark.parametrize(("count", "length"), [(1, 10), (300, 300), (40, 30_000), (3, 999_900)])
def test_whatever_fits_in_a_batch_or_does_not_is_where_it_is_said_to_be(
    log: KafkaEventLog, count: int, length: int
) -> None:
    """Among it a partition of several batches, and records that are larger than a batch."""
    records = records_of(count, length)
    positions = log.append(records)
    assert stored(log) == dict(zip(positions, records, strict=True))
    offsets = sorted(positions)
    assert offsets == [Position(p, o) for p in range(PARTITIONS) for o in range(log.end_offsets()[p])]


def test_positions_that_forget_in_which_batch_a_record_is_would_be_found(
    log: KafkaEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check catches offsets that are counted from the partition's first batch."""
    begins: dict[int, int] = {}
    first_offset = kafka_batches._first_offset

    def of_the_first(batch: Any, deadline: float) -> int:
        return begins.setdefault(batch.topic_partition.partition, first_offset(batch, deadline))

    monkeypatch.setattr(kafka_batches, "_first_offset", of_the_first)
    records = records_of(40, 30_000)
    assert stored(log) != dict(zip(log.append(records), records, strict=False))


def test_the_broker_is_told_who_sends_and_in_which_order(log: KafkaEventLog) -> None:
    """The batches carry the client's producer id and its sequence numbers, without which a retry could count twice."""
    packed: list[Any] = []

    def noting(producer: Any, batches: Any) -> None:
        packed.extend(batches)
        hand_over(producer, batches)

    hand_over = kafka_batches._hand_over
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kafka_batches, "_hand_over", noting)
        log.append([(b"u1", b"1")] * 3)
        log.append([(b"u1", b"2")])
    assert [(batch.base_sequence, batch.producer_id >= 0) for batch in packed] == [(0, True), (3, True)]


def test_a_record_that_is_too_long_for_a_broker_is_refused_before_it_and_the_log_goes_on(log: KafkaEventLog) -> None:
    """The broker's own refusal would end the producer."""
    with pytest.raises(EventLogUnavailable):
        log.append([(b"u1", b"x" * 1_100_000), (b"u2", b"small")])
    [position] = log.append([(b"u1", b"small")])
    assert stored(log) == {position: (b"u1", b"small")}


def test_a_producer_that_was_ended_takes_nothing(log: KafkaEventLog) -> None:
    """Instead of leaving it where nobody sends it."""
    log.append([(b"u1", b"1")])
    log._producer._sender.force_close()
    log._producer._sender.join(10)
    with pytest.raises(EventLogUnavailable):
        log.append([(b"u1", b"1")])
