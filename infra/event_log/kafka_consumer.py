"""One member of a group that shares the topic on Kafka."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)

from infra.event_log.kafka_connection import REQUEST_MILLISECONDS, answering, connection
from infra.event_log.port import EventLogUnavailable, PartitionsLost, Record, StartAt
from infra.transport import Brokers

KNOWN_SECONDS = 5.0
SESSION_MILLISECONDS = 6000
_LOST = (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)


class KafkaGroupConsumer:
    """See `port.Consumer`."""

    def __init__(self, brokers: Brokers, topic: str, group: str, start_at: StartAt | None) -> None:
        self._topic = topic
        self._start_at = start_at
        self._assigned = _Assigned()
        self._last_answer = time.monotonic()
        with answering():
            self._kafka = KafkaConsumer(
                group_id=group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                session_timeout_ms=SESSION_MILLISECONDS,
                heartbeat_interval_ms=SESSION_MILLISECONDS // 3,
                fetch_max_bytes=16 * 1024 * 1024,
                **connection(brokers),
            )
        try:
            # A member that joins before it knows the partitions may lead a group that has none, and does not notice.
            with answering():
                _wait_until_known(self._kafka, topic)
        except EventLogUnavailable:
            self.close()
            raise
        self._kafka.subscribe([topic], listener=self._assigned)

    def poll(self, timeout: float, max_records: int = 5000) -> list[Record]:
        """See `port.Consumer.poll`."""
        with answering():
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
        with answering():
            try:
                self._kafka.commit(marks, timeout_ms=REQUEST_MILLISECONDS)
            except _LOST as error:
                raise PartitionsLost(f"the group has moved on ({type(error).__name__}): poll again") from error

    def assigned(self) -> set[int]:
        """See `port.Consumer.assigned`."""
        return {each.partition for each in self._kafka.assignment()}

    def position(self, partition: int) -> int:
        """See `port.Consumer.position`."""
        if partition not in self.assigned():
            raise PartitionsLost(f"partition {partition} is not ours: poll again")
        with answering():
            at = self._kafka.position(TopicPartition(self._topic, partition), timeout_ms=REQUEST_MILLISECONDS)
        return int(at or 0)

    def lag(self) -> dict[int, int]:
        """See `port.Consumer.lag`."""
        ours = list(self._kafka.assignment())
        with answering():
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
            with answering():
                self._kafka.end_offsets(ours, timeout_ms=REQUEST_MILLISECONDS)
            self._last_answer = time.monotonic()


def _wait_until_known(kafka: KafkaConsumer, topic: str) -> None:
    deadline = time.monotonic() + KNOWN_SECONDS
    while not kafka.partitions_for_topic(topic) and time.monotonic() < deadline:
        time.sleep(0.05)


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
