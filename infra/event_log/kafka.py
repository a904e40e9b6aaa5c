"""The event log on Apache Kafka: an idempotent producer that waits for all in-sync replicas, and consumer groups.

Kafka's transactions are not used: what must be counted once keeps its own offsets (`port.StartAt`).
"""

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import structlog
from kafka import KafkaAdminClient, KafkaProducer, OffsetSpec, TopicPartition
from kafka.errors import KafkaError

from infra.event_log import kafka_batches
from infra.event_log.ends import Ends
from infra.event_log.kafka_connection import REQUEST_MILLISECONDS, answering, connection
from infra.event_log.kafka_consumer import KafkaGroupConsumer
from infra.event_log.kafka_topic import bound, create, go_on_from, longest_life, partitions_of
from infra.event_log.port import (
    SKIP,
    Consumer,
    EventLogBehind,
    EventLogUnavailable,
    Fences,
    Guard,
    Position,
    StartAt,
)
from infra.transport import Brokers

APPEND_SECONDS = 1.3
MADE_SECONDS = 30.0


class KafkaEventLog:
    """See `port.EventLog`.

    Args:
        url: `kafka://host:port[,host:port]`, `kafkas://user:password@host:port` by TLS: see `transport.Brokers`.
        topic: the log's one topic. Where it does not exist it is made, with three replicas if there are brokers for it.
        partitions: how many the topic gets where it does not exist; else the number it was made with stays.
        retention_seconds: how long records stay at most, where the topic has no retention of its own; None: as it is.
        fences: what was landed of it; None: wait until another process has made the topic.

    Raises:
        EventLogBehind: see `keep`.
        EventLogUnavailable: nothing answers there, or the topic is not made in time.
    """

    def __init__(
        self,
        url: str,
        topic: str,
        partitions: int,
        retention_seconds: int | None = None,
        fences: Fences | None = lambda: MappingProxyType({}),
    ) -> None:
        self._brokers = Brokers.of(url)
        self._topic = topic
        with answering(self._brokers.fault):
            self._admin = KafkaAdminClient(request_timeout_ms=REQUEST_MILLISECONDS, **connection(self._brokers))
        with answering():
            self._producer = new_producer(self._brokers)
        self._producer_since = time.monotonic()
        self._replacing = threading.Lock()
        self._ends = Ends()
        self._wanted = partitions
        self._retention_seconds = retention_seconds
        try:
            if fences is not None:
                self.keep(fences)
            self._partitions = has = self._wait_until_made()
        except Exception:
            self.close()
            raise
        if has != partitions:
            log = structlog.get_logger(__name__)
            log.warning("the topic keeps its partitions", topic=topic, has=has, asked=partitions)

    def append(self, records: Sequence[tuple[bytes, bytes]], guard: Guard | None = None) -> list[Position]:
        """See `port.EventLog.append`. Kafka knows nothing of the online store: the guard is passed over."""
        deadline, before = time.monotonic() + APPEND_SECONDS, self._ends.before_append()
        producer = self._producer
        with answering():
            try:
                positions = kafka_batches.append(producer, self._topic, self._partitions, records, deadline)
            except KafkaError:
                self._replace(producer)
                raise
        self._ends.check(positions, before)
        return positions

    def keep(self, fences: Fences) -> None:
        """See `port.EventLog.keep`. Only a topic that is new can be made to go on above what was landed."""
        with answering():
            if not partitions_of(self._admin, self._topic):
                self._make(fences())
        ends = self.end_offsets()
        if not self._ends.agree(ends):
            landed = fences()
            self._ends.met({partition: landed.get(partition, 0) for partition in ends})
            self._ends.behind = any(ends.get(partition, 0) < end for partition, end in self._ends.now().items())
        if self._ends.behind:
            raise EventLogBehind(
                f"The topic {self._topic} ends before what was landed of it, so it has lost records, or is no topic of "
                "this lake. Nothing is appended to it. Set MARQUEE_TOPIC to a new name: that topic goes on where the "
                "lake ends."
            )
        self._ends.met(ends)

    def consumer(self, group: str, start_at: StartAt | None = None) -> Consumer:
        """See `port.EventLog.consumer`.

        Raises:
            EventLogUnavailable: the log does not answer.
        """
        return KafkaGroupConsumer(self._brokers, self._topic, group, start_at)

    def end_offsets(self) -> dict[int, int]:
        """See `port.EventLog.end_offsets`."""
        with answering():
            partitions = (TopicPartition(self._topic, p) for p in range(partitions_of(self._admin, self._topic)))
            ends = self._admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
        return {each.partition: end.offset for each, end in ends.items()}

    def forget(self, at: Position) -> None:
        """See `port.EventLog.forget`: Kafka removes no single record, the topic's retention ends its life."""
        return

    def keeps_seconds(self) -> float:
        """See `port.EventLog.keeps_seconds`."""
        with answering():
            return longest_life(self._admin, self._topic)

    def close(self) -> None:
        """See `port.EventLog.close`."""
        _stop(self._producer)
        self._admin.close()

    def _make(self, landed: Mapping[int, int]) -> None:
        known = self._ends.now()
        ends = {p: max(landed.get(p, 0), known.get(p, 0)) for p in range(self._wanted)}
        if create(self._admin, self._topic, self._wanted) and any(ends.values()):
            go_on_from(self._admin, self._producer, self._topic, {p: end + SKIP for p, end in ends.items()})

    def _wait_until_made(self) -> int:
        """Number of the topic's partitions, once there is one."""
        deadline = time.monotonic() + MADE_SECONDS
        with answering():
            while not (has := partitions_of(self._admin, self._topic)):
                if time.monotonic() > deadline:
                    raise EventLogUnavailable(f"nobody has made the log's topic {self._topic}: start ingest")
                time.sleep(0.2)
            if self._retention_seconds is not None:
                bound(self._admin, self._topic, self._retention_seconds)
        return has

    def _replace(self, producer: Any) -> None:
        """Go on with a new producer.

        An idempotent producer of kafka-python that had to give a batch up may lose its producer id and never ask for
        another: it would refuse all that follows, for ever. What others wait for in the old one may still arrive.
        """
        with self._replacing:
            if producer is not self._producer or time.monotonic() - self._producer_since < 1.0:
                return
            self._producer = new_producer(self._brokers, producer.config["api_version"])
            self._producer_since = time.monotonic()
        stopping = threading.Timer(APPEND_SECONDS, _stop, [producer])
        stopping.daemon = True
        stopping.start()


def new_producer(brokers: Brokers, api_version: tuple[int, ...] | None = None) -> Any:
    """A producer that waits for all in-sync replicas. With `api_version` it is made without asking the brokers."""
    return KafkaProducer(
        api_version=api_version,
        enable_idempotence=True,
        acks="all",
        max_block_ms=REQUEST_MILLISECONDS,
        request_timeout_ms=REQUEST_MILLISECONDS,
        delivery_timeout_ms=int(APPEND_SECONDS * 1000),
        metrics_enabled=False,  # Nobody reads them.
        **connection(brokers),
    )


def _stop(producer: Any) -> None:
    """End a producer without waiting for what it could not send: its own `close` waits for that, and gives up."""
    producer._sender.force_close()
    producer._sender.join(APPEND_SECONDS)
    with suppress(KafkaError):
        producer.close(timeout=0)
