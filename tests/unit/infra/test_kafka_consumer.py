"""What a member of a group on Kafka does before it joins; the rest is in tests/contract, on a real broker."""

from typing import Any

import pytest

from infra.event_log import kafka_consumer
from infra.event_log.kafka_consumer import KafkaGroupConsumer
from infra.transport import Brokers


class SlowlyKnown:
    """A client that is told of a topic's partitions when it asks for the third time."""

    def __init__(self, **_: Any) -> None:
        self.asked = 0
        self.knew = False

    def partitions_for_topic(self, _: str) -> set[int]:
        self.asked += 1
        return {0, 1} if self.asked >= 3 else set()

    def subscribe(self, *_: Any, **__: Any) -> None:
        self.knew = self.asked >= 3


def test_a_member_knows_the_partitions_before_it_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader that does not deals none out, and kafka-python does not notice: the group would read nothing."""
    monkeypatch.setattr(kafka_consumer, "KafkaConsumer", SlowlyKnown)
    assert KafkaGroupConsumer(Brokers.of("kafka://localhost:1"), "topic", "group", None)._kafka.knew


def test_a_topic_that_nobody_knows_is_waited_for_no_longer_than_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_consumer, "KafkaConsumer", SlowlyKnown)
    monkeypatch.setattr(SlowlyKnown, "partitions_for_topic", lambda *_: set())
    monkeypatch.setattr(kafka_consumer, "KNOWN_SECONDS", 0.1)
    assert not KafkaGroupConsumer(Brokers.of("kafka://localhost:1"), "topic", "group", None)._kafka.knew
