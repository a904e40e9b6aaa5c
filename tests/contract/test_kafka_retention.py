"""What cannot be removed from Kafka ends there, and the log says how long that takes at most."""

import gc
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource
from structlog.testing import capture_logs

from infra.event_log.kafka import KafkaEventLog
from infra.event_log.kafka_topic import DELETION_SECONDS

pytestmark = [pytest.mark.kafka, pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")]
DAY = 86400


@pytest.fixture
def topic() -> Iterator[str]:
    """A topic of this test alone."""
    yield f"test.{uuid.uuid4().hex}"
    gc.collect()


@pytest.fixture
def admin(kafka_url: str) -> Iterator[Any]:
    """Who administers the broker."""
    client = KafkaAdminClient(bootstrap_servers=[kafka_url.removeprefix("kafka://")])
    yield client
    client.close()


def test_a_topic_that_the_log_makes_keeps_records_for_as_long_as_the_setting_says(kafka_url: str, topic: str) -> None:
    log = KafkaEventLog(kafka_url, topic, 1, 8 * DAY)
    assert log.keeps_seconds() == 8 * DAY + DELETION_SECONDS
    log.close()


def test_a_topic_without_a_retention_of_its_own_gets_one(kafka_url: str, topic: str) -> None:
    """Some process that does not bound it was there first."""
    KafkaEventLog(kafka_url, topic, 1).close()
    log = KafkaEventLog(kafka_url, topic, 1, 8 * DAY)
    deadline = time.monotonic() + 20
    while log.keeps_seconds() != 8 * DAY + DELETION_SECONDS:  # The broker tells what it was told a little later.
        assert time.monotonic() < deadline, log.keeps_seconds()
        time.sleep(0.1)
    log.close()


def test_a_topic_with_a_retention_of_its_own_keeps_it_and_says_so(kafka_url: str, topic: str, admin: Any) -> None:
    KafkaEventLog(kafka_url, topic, 1, 8 * DAY).close()
    admin.alter_configs([ConfigResource("TOPIC", topic, {"retention.ms": "-1"})])
    with capture_logs() as said:
        log = KafkaEventLog(kafka_url, topic, 1, 8 * DAY)
    assert [line["event"] for line in said] == ["the topic keeps its own retention"]
    assert log.keeps_seconds() == float("inf")
    log.close()


def test_when_its_time_is_over_no_byte_of_a_forgotten_person_is_in_the_broker_s_files(start_kafka: Any) -> None:
    """Kafka removes no single record. The files are looked through, and held it before."""
    server = start_kafka(KAFKA_CHECK_MS="500")
    log = KafkaEventLog(server.url, "short", 1, 8)
    admin = KafkaAdminClient(bootstrap_servers=[server.url.removeprefix("kafka://")])
    admin.alter_configs([ConfigResource("TOPIC", "short", {"file.delete.delay.ms": "100"})])
    at = log.append([(b"the-canary", b"an act of the-canary"), (b"other", b"an act of another")])[0]
    assert log.forget(at) is None
    assert holding(server.folder, b"the-canary")
    deadline = time.monotonic() + 120
    while holding(server.folder, b"the-canary"):
        assert time.monotonic() < deadline
        log.append([(b"other", b"life goes on")])
        time.sleep(0.5)
    admin.close()
    log.close()
    server.stop()


def holding(folder: Path, needle: bytes) -> list[Path]:
    """Files with records that have it in them, those that are about to be deleted too."""
    found = []
    for path in folder.rglob("*.log*"):
        with suppress(FileNotFoundError):  # The broker takes them away meanwhile.
            found += [path] if needle in path.read_bytes() else []
    return found
