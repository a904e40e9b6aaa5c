"""How Kafka is reached, and what it means when it does not answer: for producer, admin client and consumers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kafka.errors import KafkaError

from infra.event_log.port import EventLogUnavailable
from infra.transport import Brokers

REQUEST_MILLISECONDS = 1200
OPEN_MILLISECONDS = 5000


@contextmanager
def answering(fault: Callable[[], str] = str) -> Iterator[None]:
    """Turn what the client raises into the port's error, without the client's message: it may quote a record.

    The client does not tell why it cannot connect; `fault` finds out.
    """
    try:
        yield
    except (KafkaError, OSError) as error:
        what = ": ".join(filter(None, [type(error).__name__, fault()]))
        raise EventLogUnavailable(f"Kafka does not answer: {what}") from None


def connection(brokers: Brokers) -> dict[str, Any]:
    """What every client of kafka-python is made with."""
    return {
        "bootstrap_servers": brokers.addresses,
        "bootstrap_timeout_ms": OPEN_MILLISECONDS,
        "reconnect_backoff_max_ms": 1000,
        **brokers.security(),
    }
