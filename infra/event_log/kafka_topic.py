"""The log's topic on Kafka: how it is made, and how long it keeps what it was given.

Kafka removes no single record: what was forgotten everywhere else ends here with the file that it is in. So the topic
gets a retention, and files that are short beside it.
"""

from collections.abc import Mapping
from typing import Any

import structlog
from kafka import TopicPartition
from kafka.admin import ConfigResource
from kafka.errors import TopicAlreadyExistsError, UnknownTopicOrPartitionError

from infra.event_log import kafka_batches

REPLICAS = 3
SEGMENTS = 8
"""Into so many files a retention is divided: a file goes as a whole."""
DELETION_SECONDS = 600.0
"""What a broker takes to find that a file's time is over, and to delete it: 5 minutes and 1 by default."""
OWN = "DYNAMIC_TOPIC_CONFIG"
FILLED_AT_ONCE = 10_000
FILL_SECONDS = 5.0


def partitions_of(admin: Any, topic: str) -> int:
    """Number of the topic's partitions; 0 where there is no such topic."""
    described = admin.describe_topics([topic])[0]
    if described["error_code"] == UnknownTopicOrPartitionError.errno:
        return 0
    return len(described["partitions"])


def create(admin: Any, topic: str, partitions: int) -> bool:
    """Make the topic; False where somebody else has just done so."""
    replicated = len(admin.describe_cluster()["brokers"]) >= REPLICAS
    wanted = {
        "num_partitions": partitions,
        "replication_factor": REPLICAS if replicated else 1,
        "configs": {"min.insync.replicas": "2" if replicated else "1"},
    }
    try:
        admin.create_topics({topic: wanted}, wait_for_metadata=True)
    except TopicAlreadyExistsError:
        return False
    return True


def go_on_from(admin: Any, producer: Any, topic: str, offsets: Mapping[int, int]) -> None:
    """Have the partitions of a new topic go on from these offsets, though Kafka numbers from 0.

    So many empty records are appended, and then deleted. Where this is cut short the topic is of
    no use.
    """
    log = structlog.get_logger(__name__)
    log.info("the new topic is filled up to where it goes on from", topic=topic, records=sum(offsets.values()))
    for partition, offset in offsets.items():
        for start in range(0, offset, FILLED_AT_ONCE):
            kafka_batches.fill(producer, topic, partition, min(offset - start, FILLED_AT_ONCE), FILL_SECONDS)
    admin.delete_records({TopicPartition(topic, partition): offset for partition, offset in offsets.items()})


def bound(admin: Any, topic: str, seconds: int) -> None:
    """Bound how long the topic keeps records, but for `DELETION_SECONDS`.

    Whoever has given the topic a retention of its own has decided: it is only told.
    """
    wanted, segment = (str(seconds * 1000 * part // SEGMENTS) for part in (SEGMENTS - 1, 1))
    found = _configuration(admin, topic)["retention.ms"]
    if found["config_source"] != OWN:
        admin.alter_configs([ConfigResource("TOPIC", topic, {"retention.ms": wanted, "segment.ms": segment})])
    elif found["value"] != wanted:
        log, own = structlog.get_logger(__name__), int(found["value"])
        log.warning("the topic keeps its own retention", topic=topic, milliseconds=own, asked_seconds=seconds)


def longest_life(admin: Any, topic: str) -> float:
    """Seconds that a record stays at most; infinite where the topic has no retention.

    A file is deleted when its newest record is past the retention: its oldest is older by what a file spans.
    """
    found = _configuration(admin, topic)
    retention, segment = (int(found[name]["value"]) for name in ("retention.ms", "segment.ms"))
    return float("inf") if retention < 0 else (retention + segment) / 1000 + DELETION_SECONDS


def _configuration(admin: Any, topic: str) -> dict[str, dict[str, str]]:
    found = admin.describe_configs([ConfigResource("TOPIC", topic, None)], config_filter="all")
    settings: dict[str, dict[str, str]] = found["topic"][topic]
    return settings
