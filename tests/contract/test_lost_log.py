"""A log that lost records, or all of them: what it takes afterwards stands above all that was landed, or is refused."""

import gc
import threading
import time
import uuid
from collections.abc import Iterator

import pytest
from kafka import KafkaAdminClient

from infra.event_log import open_event_log
from infra.event_log.port import EventLog, EventLogBehind, EventLogUnavailable, Record
from infra.online_store import connect

KAFKA_LEAVES_SOCKETS = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
PATIENCE = 30.0
SKIP = 500
"""Instead of the product's, which takes Kafka seconds to fill."""


@pytest.fixture(autouse=True)
def small_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.event_log.kafka.SKIP", SKIP)
    monkeypatch.setattr("infra.event_log.redis_streams.SKIP", SKIP)


@pytest.fixture(params=["redis", pytest.param("kafka", marks=[pytest.mark.kafka, KAFKA_LEAVES_SOCKETS])])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a log that this session shares."""
    yield str(request.getfixturevalue(f"{request.param}_url"))
    gc.collect()


@pytest.fixture
def topic() -> str:
    """A topic of this test alone."""
    return f"test.{uuid.uuid4().hex}"


def lose(url: str, topic: str) -> None:
    """The topic is gone, and everything in it."""
    if url.startswith("kafka"):
        admin = KafkaAdminClient(bootstrap_servers=url.removeprefix("kafka://"))
        admin.delete_topics([topic])
        admin.close()
    else:
        with connect(url) as store:
            store.delete(*store.scan_iter(f"log:{topic}:*"))


def read(log: EventLog, start: int, count: int) -> list[Record]:
    """So many records of partition 0 from an offset on, as a lander reads them."""
    consumer, found, deadline = log.consumer(uuid.uuid4().hex, lambda _: start), [], time.monotonic() + PATIENCE
    while len(found) < count and time.monotonic() < deadline:
        found += consumer.poll(0.5)
    consumer.close()
    return found


def test_a_topic_that_is_made_goes_on_above_what_was_landed_and_holds_nothing_else(url: str, topic: str) -> None:
    log = open_event_log(url, topic, 2, fences=lambda: {1: 5})
    assert log.end_offsets() == {0: SKIP, 1: 5 + SKIP}
    [at] = log.append([(b"u1", b"first")])
    assert at.offset >= SKIP
    records = read(log, 5, 1)
    assert [(record.partition, record.offset, record.value) for record in records] == [(*at, b"first")]
    log.close()


def test_a_topic_that_is_made_where_nothing_was_landed_begins_at_0(url: str, topic: str) -> None:
    log = open_event_log(url, topic, 2, fences=dict)
    assert log.end_offsets() == {0: 0, 1: 0}
    log.close()


def test_after_the_topic_was_lost_nothing_is_taken_until_it_goes_on_above_what_was_known(url: str, topic: str) -> None:
    log = open_event_log(url, topic, 1)
    log.append([(b"u1", b"x")] * 10)
    lose(url, topic)
    with pytest.raises(EventLogUnavailable):
        log.append([(b"u1", b"lost")])
    log.keep(lambda: {0: 7})
    assert log.end_offsets() == {0: 10 + SKIP}
    [at] = take(log)
    assert at.offset == 10 + SKIP
    log.close()


def take(log: EventLog) -> list[tuple[int, int]]:
    """What is appended once the log answers again."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return list(log.append([(b"u1", b"kept")]))
        except EventLogUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_a_topic_that_ends_before_what_was_landed_goes_on_above_it_or_is_refused(url: str, topic: str) -> None:
    open_event_log(url, topic, 1).close()
    if url.startswith("kafka"):
        with pytest.raises(EventLogBehind, match="MARQUEE_TOPIC"):
            open_event_log(url, topic, 1, fences=lambda: {0: 100})
        return
    log = open_event_log(url, topic, 1, fences=lambda: {0: 100})
    assert log.append([(b"u1", b"x")]) == [(0, 100 + SKIP)]
    log.close()


def test_what_is_appended_to_another_s_new_topic_where_others_stood_is_not_called_accepted(
    url: str, topic: str
) -> None:
    """The topic was lost and made anew by somebody who did not know, between two looks of ours."""
    log = open_event_log(url, topic, 1)
    log.append([(b"u1", b"x")] * 10)
    lose(url, topic)
    made_anew(url, topic)
    refused = set()
    for _ in range(20):
        try:
            log.append([(b"u1", b"lost")])
        except EventLogUnavailable as error:
            refused.add(type(error))
        else:
            refused.add(type(None))
    assert EventLogBehind in refused
    assert type(None) not in refused
    if url.startswith("kafka"):
        with pytest.raises(EventLogBehind):
            log.keep(dict)
    else:
        log.keep(dict)
        assert log.append([(b"u1", b"kept")])[0].offset >= 10 + SKIP
    log.close()


def made_anew(url: str, topic: str) -> None:
    """Kafka takes a moment to forget the name."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            open_event_log(url, topic, 1).close()
        except EventLogUnavailable:
            assert time.monotonic() < deadline
        else:
            return


def test_who_cannot_know_what_was_landed_waits_until_another_has_made_the_topic(url: str, topic: str) -> None:
    maker = threading.Timer(0.5, lambda: open_event_log(url, topic, 1, fences=lambda: {0: 3}).close())
    maker.start()
    log = open_event_log(url, topic, 1, fences=None)
    maker.join()
    assert log.end_offsets() == {0: 3 + SKIP}
    log.close()
