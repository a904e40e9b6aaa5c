"""The event log on Apache Kafka: an idempotent producer that waits for all in-sync replicas, and consumer groups.

Kafka's transactions are not used: what must be counted once keeps its own offsets (`port.StartAt`).
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import structlog
from kafka import (
    ConsumerRebalanceListener,
    KafkaAdminClient,
    KafkaConsumer,
    KafkaProducer,
    OffsetAndMetadata,
    OffsetSpec,
    TopicPartition,
)
from kafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    KafkaError,
    RebalanceInProgressError,
    TopicAlreadyExistsError,
    UnknownMemberIdError,
    UnknownTopicOrPartitionError,
)

from infra.event_log.port import Consumer, EventLogUnavailable, Guard, PartitionsLost, Position, Record, StartAt

APPEND_SECONDS = 2.0
REQUEST_MILLISECONDS = 1500
OPEN_MILLISECONDS = 5000
SESSION_MILLISECONDS = 6000
REPLICAS = 3
_LOST = (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)


class KafkaEventLog:
    """See `port.EventLog`.

    Args:
        url: `kafka://host:port[,host:port]`.
        topic: the log's one topic. Where it does not exist it is made, with three replicas if there are brokers for it.
        partitions: how many the topic gets where it does not exist; else the number it was made with stays.

    Raises:
        EventLogUnavailable: nothing answers there.
    """

    def __init__(self, url: str, topic: str, partitions: int) -> None:
        self._brokers = url.removeprefix("kafka://").rstrip("/").split(",")
        self._topic = topic
        with _answering():
            self._admin = KafkaAdminClient(request_timeout_ms=REQUEST_MILLISECONDS, **_connection(self._brokers))
            has = _partitions(self._admin, topic) or _create(self._admin, topic, partitions)
            self._producer = _new_producer(self._brokers)
        self._producer_since = time.monotonic()
        self._replacing = threading.Lock()
        self._partitions = [TopicPartition(topic, partition) for partition in range(has)]
        if has != partitions:
            log = structlog.get_logger(__name__)
            log.warning("the topic keeps its partitions", topic=topic, has=has, asked=partitions)

    def append(self, records: Sequence[tuple[bytes, bytes]], guard: Guard | None = None) -> list[Position]:
        """See `port.EventLog.append`. Kafka knows nothing of the online store: the guard is passed over."""
        deadline = time.monotonic() + APPEND_SECONDS
        producer = self._producer
        with _answering():
            try:
                sent = [producer.send(self._topic, key=key, value=value) for key, value in records]
                taken = [each.get(timeout=max(0.0, deadline - time.monotonic())) for each in sent]
            except KafkaError:
                self._replace(producer)
                raise
        return [Position(each.partition, each.offset) for each in taken]

    def consumer(self, group: str, start_at: StartAt | None = None) -> Consumer:
        """See `port.EventLog.consumer`.

        Raises:
            EventLogUnavailable: the log does not answer.
        """
        return KafkaGroupConsumer(self._brokers, self._topic, group, start_at)

    def end_offsets(self) -> dict[int, int]:
        """See `port.EventLog.end_offsets`."""
        with _answering():
            ends = self._admin.list_partition_offsets(dict.fromkeys(self._partitions, OffsetSpec.LATEST))
        return {each.partition: end.offset for each, end in ends.items()}

    def forget(self, at: Position) -> None:
        """See `port.EventLog.forget`: Kafka removes no single record, the topic's retention ends its life."""
        return

    def close(self) -> None:
        """See `port.EventLog.close`."""
        _stop(self._producer)
        self._admin.close()

    def _replace(self, producer: Any) -> None:
        """Go on with a new producer.

        An idempotent producer of kafka-python that had to give a batch up may lose its producer id and never ask for
        another: it would refuse all that follows, for ever. What others wait for in the old one may still arrive.
        """
        with self._replacing:
            if producer is not self._producer or time.monotonic() - self._producer_since < 1.0:
                return
            self._producer = _new_producer(self._brokers, producer.config["api_version"])
            self._producer_since = time.monotonic()
        stopping = threading.Timer(APPEND_SECONDS, _stop, [producer])
        stopping.daemon = True
        stopping.start()


class KafkaGroupConsumer:
    """See `port.Consumer`."""

    def __init__(self, brokers: list[str], topic: str, group: str, start_at: StartAt | None) -> None:
        self._topic = topic
        self._start_at = start_at
        self._assigned = _Assigned()
        self._last_answer = time.monotonic()
        with _answering():
            self._kafka = KafkaConsumer(
                group_id=group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                session_timeout_ms=SESSION_MILLISECONDS,
                heartbeat_interval_ms=SESSION_MILLISECONDS // 3,
                fetch_max_bytes=16 * 1024 * 1024,
                **_connection(brokers),
            )
        self._kafka.subscribe([topic], listener=self._assigned)

    def poll(self, timeout: float, max_records: int = 5000) -> list[Record]:
        """See `port.Consumer.poll`."""
        with _answering():
            fetched = self._kafka.poll(timeout_ms=int(timeout * 1000), max_records=max_records)
        moved = self._begin_where_asked(fetched)
        if fetched:
            self._last_answer = time.monotonic()
        else:
            self._check_that_it_answers()
        return [
            Record(each.partition, record.offset, record.key or b"", record.value or b"")
            for each, records in fetched.items()
            if each not in moved
            for record in records
        ]

    def seek(self, partition: int, offset: int) -> None:
        """See `port.Consumer.seek`."""
        try:
            self._kafka.seek(TopicPartition(self._topic, partition), offset)
        except ValueError:
            raise PartitionsLost(f"partition {partition} is not ours: poll again") from None

    def commit(self, offsets: Mapping[int, int]) -> None:
        """See `port.Consumer.commit`."""
        if not offsets.keys() <= self.assigned():
            raise PartitionsLost("another member of the group owns these partitions by now: poll again")
        marks = {TopicPartition(self._topic, p): OffsetAndMetadata(offset, "", -1) for p, offset in offsets.items()}
        with _answering():
            try:
                self._kafka.commit(marks, timeout_ms=REQUEST_MILLISECONDS)
            except _LOST as error:
                raise PartitionsLost(f"the group has moved on ({type(error).__name__}): poll again") from error

    def assigned(self) -> set[int]:
        """See `port.Consumer.assigned`."""
        return {each.partition for each in self._kafka.assignment()}

    def lag(self) -> dict[int, int]:
        """See `port.Consumer.lag`."""
        ours = list(self._kafka.assignment())
        with _answering():
            ends = self._kafka.end_offsets(ours, timeout_ms=REQUEST_MILLISECONDS) if ours else {}
            positions = {each: self._kafka.position(each, timeout_ms=REQUEST_MILLISECONDS) for each in ours}
        return {each.partition: max(0, end - (positions[each] or 0)) for each, end in ends.items()}

    def close(self) -> None:
        """See `port.Consumer.close`."""
        self._kafka.close(autocommit=False, timeout_ms=REQUEST_MILLISECONDS)

    def _begin_where_asked(self, fetched: Mapping[Any, Sequence[Any]]) -> set[Any]:
        """Seek in the partitions that are newly ours; return those whose fetched records are not to be handed out."""
        if self._start_at is None:
            self._assigned.fresh.clear()
        moved = set()
        try:
            for each in sorted(self._assigned.fresh & self._kafka.assignment()):
                wanted = self._start_at(each.partition) if self._start_at else None
                if wanted is not None:
                    self._kafka.seek(each, wanted)
                    moved.add(each)
                self._assigned.fresh.discard(each)
        except Exception:
            # The caller gets no records now, so none may count as read.
            for each in set(fetched) - moved:
                self._kafka.seek(each, fetched[each][0].offset)
            raise
        return moved

    def _check_that_it_answers(self) -> None:
        """Ask for something: a poll of a dead broker finds nothing, in silence."""
        ours = list(self._kafka.assignment())
        if ours and time.monotonic() - self._last_answer > 1.0:
            with _answering():
                self._kafka.end_offsets(ours, timeout_ms=REQUEST_MILLISECONDS)
            self._last_answer = time.monotonic()


class _Assigned(ConsumerRebalanceListener):  # type: ignore[misc]  # the library carries no types
    """Keeps which partitions are newly ours, until the consumer's own thread has asked where to begin in them.

    Attributes:
        fresh: partitions whose beginning is still to be asked for.
    """

    def __init__(self) -> None:
        self.fresh: set[Any] = set()

    def on_partitions_revoked(self, revoked: Sequence[Any]) -> None:
        self.fresh.difference_update(revoked)

    def on_partitions_assigned(self, assigned: Sequence[Any]) -> None:
        self.fresh.update(assigned)


@contextmanager
def _answering() -> Iterator[None]:
    """Turn what the client raises into the port's error, without the client's message: it may quote a record."""
    try:
        yield
    except (KafkaError, OSError) as error:
        raise EventLogUnavailable(f"Kafka does not answer: {type(error).__name__}") from None


def _new_producer(brokers: list[str], api_version: tuple[int, ...] | None = None) -> Any:
    """A producer. With `api_version` it is made without asking the brokers."""
    return KafkaProducer(
        api_version=api_version,
        enable_idempotence=True,
        acks="all",
        linger_ms=2,
        batch_size=128 * 1024,
        max_block_ms=REQUEST_MILLISECONDS,
        request_timeout_ms=REQUEST_MILLISECONDS,
        delivery_timeout_ms=int(APPEND_SECONDS * 1000),
        **_connection(brokers),
    )


def _stop(producer: Any) -> None:
    """End a producer without waiting for what it could not send: its own `close` waits for that, and gives up."""
    producer._sender.force_close()
    producer._sender.join(APPEND_SECONDS)
    with suppress(KafkaError):
        producer.close(timeout=0)


def _connection(brokers: list[str]) -> dict[str, Any]:
    return {
        "bootstrap_servers": brokers,
        "bootstrap_timeout_ms": OPEN_MILLISECONDS,
        "reconnect_backoff_max_ms": 1000,
    }


def _partitions(admin: Any, topic: str) -> int:
    """Number of the topic's partitions; 0 where there is no such topic."""
    described = admin.describe_topics([topic])[0]
    if described["error_code"] == UnknownTopicOrPartitionError.errno:
        return 0
    return len(described["partitions"])


def _create(admin: Any, topic: str, partitions: int) -> int:
    replicated = len(admin.describe_cluster()["brokers"]) >= REPLICAS
    wanted = {
        "num_partitions": partitions,
        "replication_factor": REPLICAS if replicated else 1,
        "configs": {"min.insync.replicas": "2" if replicated else "1"},
    }
    try:
        admin.create_topics({topic: wanted}, wait_for_metadata=True)
    except TopicAlreadyExistsError:
        return _partitions(admin, topic)
    return partitions
