"""What every event log promises, asked of a real Redis and of a real Kafka broker."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from infra.event_log import open_event_log
from infra.event_log.port import (
    Consumer,
    EventLog,
    EventLogUnavailable,
    GuardChanged,
    PartitionsLost,
    Position,
    Record,
    StartAt,
)
from infra.online_store import connect

PARTITIONS = 4
PATIENCE = 120.0
WORKER = """
import sys
from infra.event_log import open_event_log

url, topic, group, count = sys.argv[1:]
consumer = open_event_log(url, topic, 1).consumer(group)
done = 0
while done < int(count):
    records = consumer.poll(1.0, max_records=10)
    for record in records:
        print(record.value.decode())
    done += len(records)
    if records:
        consumer.commit({records[-1].partition: records[-1].offset + 1})
print("committed", flush=True)
while True:
    consumer.poll(1.0, max_records=1)
"""

Join = Callable[..., Consumer]
Result = TypeVar("Result")


class Server(Protocol):
    """A log's server that a test may kill."""

    url: str

    def start(self) -> None: ...
    def kill(self, number: int = signal.SIGKILL) -> None: ...


KAFKA_LEAVES_SOCKETS = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
BACKENDS = ["redis", pytest.param("kafka", marks=[pytest.mark.kafka, KAFKA_LEAVES_SOCKETS])]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Which log is asked."""
    yield str(request.param)
    gc.collect()  # The sockets that kafka-python leaves go here, where their warning is let pass, not in a later test.


@pytest.fixture
def url(backend: str, request: pytest.FixtureRequest) -> str:
    """URL of a log that this session shares."""
    return str(request.getfixturevalue(f"{backend}_url"))


@pytest.fixture
def topic() -> str:
    """A topic of this test alone."""
    return f"test.{uuid.uuid4().hex}"


@pytest.fixture
def log(url: str, topic: str) -> Iterator[EventLog]:
    """An empty log."""
    opened = open_event_log(url, topic, PARTITIONS)
    yield opened
    opened.close()


@pytest.fixture
def join(log: EventLog) -> Iterator[Join]:
    """Join a group of the log; left at the end of the test."""
    joined: list[Consumer] = []

    def join_group(group: str = "readers", start_at: StartAt | None = None) -> Consumer:
        joined.append(log.consumer(group, start_at))
        return joined[-1]

    yield join_group
    for consumer in joined:
        consumer.close()


def pairs(count: int, keys: int = 8) -> list[tuple[bytes, bytes]]:
    """Records of some keys, their values numbered."""
    return [(f"u{number % keys}".encode(), f"{number}".encode()) for number in range(count)]


def read(consumer: Consumer, count: int) -> list[Record]:
    """The next `count` records, with patience."""
    records: list[Record] = []
    deadline = time.monotonic() + PATIENCE
    while len(records) < count and time.monotonic() < deadline:
        records += consumer.poll(0.5)
    assert len(records) == count
    return records


def poll_until(condition: Callable[[], bool], consumers: Sequence[Consumer]) -> list[Record]:
    """Poll all consumers by turns until `condition` holds; what they read meanwhile."""
    records: list[Record] = []
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        for consumer in consumers:
            records += consumer.poll(0.2)
    return records


def eventually(action: Callable[[], Sequence[Result]]) -> Sequence[Result]:
    """The result of `action` once the log answers again."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return action()
        except EventLogUnavailable:
            assert time.monotonic() < deadline


def next_offsets(records: Sequence[Record]) -> dict[int, int]:
    """partition → offset after the last of these records."""
    return {record.partition: record.offset + 1 for record in records}


def test_append_returns_positions_that_rise_by_one_in_each_partition(log: EventLog) -> None:
    positions = log.append(pairs(50)) + log.append(pairs(50))
    for partition in range(PARTITIONS):
        offsets = [position.offset for position in positions if position.partition == partition]
        assert offsets == list(range(len(offsets)))
    assert {position.partition for position in positions} <= set(range(PARTITIONS))


def test_append_of_nothing_returns_nothing(log: EventLog) -> None:
    assert log.append([]) == []


def test_end_offsets_are_the_offsets_that_come_next(log: EventLog) -> None:
    assert log.end_offsets() == dict.fromkeys(range(PARTITIONS), 0)
    positions = log.append(pairs(40))
    ends = log.end_offsets()
    assert sum(ends.values()) == 40
    for partition, offset in positions:
        assert offset < ends[partition]


def test_records_come_back_as_they_were_appended_and_in_order_for_each_key(log: EventLog, join: Join) -> None:
    appended = pairs(200)
    positions = log.append(appended)
    records = read(join(), 200)
    found = {(r.partition, r.offset): (r.key, r.value) for r in records}
    assert found == dict(zip(positions, appended, strict=True))
    for key in {key for key, _ in appended}:
        values = [int(record.value) for record in records if record.key == key]
        assert values == sorted(values)
        assert len({record.partition for record in records if record.key == key}) == 1


def test_a_poll_returns_no_more_records_than_asked_for_and_the_rest_later(log: EventLog, join: Join) -> None:
    log.append(pairs(60))
    consumer = join()
    records: list[Record] = []
    deadline = time.monotonic() + PATIENCE
    while len(records) < 60 and time.monotonic() < deadline:
        page = consumer.poll(0.5, max_records=7)
        assert len(page) <= 7
        records += page
    assert sorted(int(record.value) for record in records) == list(range(60))


def test_a_poll_of_nothing_new_returns_nothing(log: EventLog, join: Join) -> None:
    log.append(pairs(3))
    consumer = join()
    read(consumer, 3)
    assert consumer.poll(0.3) == []


def test_a_group_goes_on_where_it_committed(log: EventLog, join: Join) -> None:
    log.append(pairs(30))
    first = join()
    records = read(first, 30)
    first.commit(next_offsets(records[:10]))
    first.close()
    again = {(record.partition, record.offset) for record in read(join(), 20)}
    assert again == {(record.partition, record.offset) for record in records[10:]}


def test_groups_do_not_disturb_each_other(log: EventLog, join: Join) -> None:
    log.append(pairs(10))
    one = join("one")
    one.commit(next_offsets(read(one, 10)))
    assert len(read(join("other"), 10)) == 10


def test_seek_goes_back_and_forth(log: EventLog, join: Join) -> None:
    log.append([(b"u1", f"{number}".encode()) for number in range(10)])
    consumer = join()
    partition = read(consumer, 10)[0].partition
    consumer.seek(partition, 3)
    assert [record.offset for record in read(consumer, 7)] == list(range(3, 10))
    consumer.seek(partition, 8)
    assert [record.offset for record in read(consumer, 2)] == [8, 9]


def test_start_at_wins_over_what_the_group_committed(log: EventLog, join: Join) -> None:
    ((partition, _),) = {(p, 0) for p, _ in log.append([(b"u1", b"x")] * 10)}
    before = join()
    before.commit(next_offsets(read(before, 10)))
    before.close()
    consumer = join(start_at=lambda number: 4 if number == partition else None)
    assert [record.offset for record in read(consumer, 6)] == list(range(4, 10))


def test_a_start_at_that_fails_is_asked_again_and_nothing_is_passed_over(log: EventLog, join: Join) -> None:
    log.append(pairs(40))
    failures = iter([True, True])

    def start_at(partition: int) -> int | None:
        if partition == 2 and next(failures, False):
            raise ConnectionError("the lake does not answer")
        return None

    consumer = join(start_at=start_at)
    records: list[Record] = []
    refused = 0
    deadline = time.monotonic() + PATIENCE
    while len(records) < 40 and time.monotonic() < deadline:
        try:
            records += consumer.poll(0.5)
        except ConnectionError:
            refused += 1
    assert refused == 2
    assert sorted(int(record.value) for record in records) == list(range(40))


def test_lag_counts_what_was_not_polled_yet(log: EventLog, join: Join) -> None:
    log.append(pairs(20))
    consumer = join()
    read(consumer, 20)
    assert consumer.assigned() == set(range(PARTITIONS))
    assert sum(consumer.lag().values()) == 0
    log.append(pairs(5))
    assert sum(consumer.lag().values()) == 5


def test_the_position_is_what_is_read_next_whatever_is_appended_meanwhile(log: EventLog, join: Join) -> None:
    log.append(pairs(20))
    consumer = join()
    records = read(consumer, 20)
    after = {p: 1 + max((r.offset for r in records if r.partition == p), default=-1) for p in consumer.assigned()}
    log.append(pairs(5))
    assert {partition: consumer.position(partition) for partition in after} == after
    with pytest.raises(PartitionsLost):
        consumer.position(PARTITIONS)


def test_two_consumers_share_the_partitions_and_the_group_sees_each_record(log: EventLog, join: Join) -> None:
    one, two = join(), join()
    poll_until(lambda: len(one.assigned()) == len(two.assigned()) == PARTITIONS // 2, [one, two])
    assert one.assigned() | two.assigned() == set(range(PARTITIONS))
    positions = log.append(pairs(100, keys=40))
    seen: dict[Consumer, list[Record]] = {one: [], two: []}
    deadline = time.monotonic() + PATIENCE
    while sum(map(len, seen.values())) < 100 and time.monotonic() < deadline:
        for consumer in seen:
            seen[consumer] += consumer.poll(0.2)
    for consumer, records in seen.items():
        assert {record.partition for record in records} <= consumer.assigned()
    assert sorted((r.partition, r.offset) for records in seen.values() for r in records) == sorted(positions)


def test_when_one_consumer_leaves_the_other_takes_over_where_it_committed(log: EventLog, join: Join) -> None:
    one, two = join(), join()
    poll_until(lambda: len(one.assigned()) == len(two.assigned()) == PARTITIONS // 2, [one, two])
    log.append(pairs(100, keys=40))
    records: list[Record] = []
    while not records:
        records = one.poll(0.5, max_records=5)
    one.commit(next_offsets(records))
    one.close()
    theirs = read(two, 100 - len(records))
    assert not {(r.partition, r.offset) for r in theirs} & {(r.partition, r.offset) for r in records}
    assert two.assigned() == set(range(PARTITIONS))


def test_a_commit_after_the_partition_went_to_another_is_refused(log: EventLog, join: Join) -> None:
    log.append(pairs(40, keys=40))
    one = join()
    late = next_offsets(read(one, 40))
    two = join()
    poll_until(lambda: len(one.assigned()) == len(two.assigned()) == PARTITIONS // 2, [one, two])
    lost = min(two.assigned())
    with pytest.raises(PartitionsLost):
        one.commit(late)
    with pytest.raises(PartitionsLost):
        one.seek(lost, 0)
    two.close()
    records = poll_until(lambda: one.assigned() == set(range(PARTITIONS)), [one]) + one.poll(1.0)
    assert 0 in {record.offset for record in records if record.partition == lost}


def test_a_consumer_killed_by_signal_9_is_replaced_by_one_that_goes_on_where_it_committed(url: str, topic: str) -> None:
    log = open_event_log(url, topic, 1)
    log.append(pairs(50))
    command = [sys.executable, "-c", WORKER, url, topic, "readers", "20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout
        done = list(iter(worker.stdout.readline, "committed\n"))
        os.kill(worker.pid, signal.SIGKILL)
    consumer = log.consumer("readers")
    rest = [record.value.decode() for record in read(consumer, 50 - len(done))]
    assert [line.strip() for line in done] + rest == [str(number) for number in range(50)]
    consumer.close()
    log.close()


def test_the_topic_keeps_the_partitions_it_was_made_with(log: EventLog, url: str, topic: str) -> None:
    log.append(pairs(40, keys=40))
    other = open_event_log(url, topic, PARTITIONS + 3)
    assert set(other.end_offsets()) == set(range(PARTITIONS))
    other.append(pairs(40, keys=40))
    assert sum(log.end_offsets().values()) == 80
    other.close()


def test_forgetting_removes_one_persons_records_up_to_a_position_or_says_that_it_cannot(
    log: EventLog, join: Join, backend: str
) -> None:
    positions = log.append(pairs(80))
    mark = positions[64]  # of u0; one more record of u0 stands behind it
    removed = log.forget(mark)
    left = {Position(r.partition, r.offset) for r in read(join(), 80 - (removed or 0))}
    if backend == "kafka":
        assert removed is None
        assert left == set(positions)
    else:
        gone = set(positions[:65:8])
        assert removed == len(gone) == 9
        assert left == set(positions) - gone
        assert log.forget(mark) == 0


def test_offsets_go_on_after_all_of_a_partition_was_forgotten(redis_url: str, topic: str) -> None:
    log = open_event_log(redis_url, topic, 1)
    positions = log.append([(b"u1", b"x")] * 3)
    assert log.forget(positions[-1]) == 3
    assert log.end_offsets() == {0: 3}
    assert log.append([(b"u2", b"y")]) == [Position(0, 3)]
    log.close()


def test_forgetting_while_others_append_loses_nothing(redis_url: str, topic: str) -> None:
    log = open_event_log(redis_url, topic, 1)
    log.append(pairs(3000))
    marks = {key: position for position, (key, _) in zip(log.append(pairs(8)), pairs(8), strict=True)}
    appended: list[Position] = []

    def keep_appending() -> None:
        while len(appended) < 2000:
            appended.extend(log.append([(b"other", b"z")] * 5))

    writer = threading.Thread(target=keep_appending)
    writer.start()
    forgetting = [threading.Thread(target=log.forget, args=(mark,)) for mark in list(marks.values())[:4]]
    for each in forgetting:
        each.start()
    for each in [*forgetting, writer]:
        each.join()
    consumer = log.consumer("readers")
    records = read(consumer, 1500 + 4 + len(appended))
    assert {record.key for record in records} == {b"u4", b"u5", b"u6", b"u7", b"other"}
    assert [record.offset for record in records if record.key == b"other"] == [offset for _, offset in appended]
    assert log.end_offsets() == {0: 3008 + len(appended)}
    consumer.close()
    log.close()


class RedisServer(Server, Protocol):
    """A Redis whose files a test may read."""

    folder: Path


def test_forgotten_bytes_are_in_no_file_of_redis_and_others_stay(own_redis: RedisServer, topic: str) -> None:
    log = open_event_log(own_redis.url, topic, 1)
    positions = log.append([(b"canary-7f3a" if n % 3 else b"bystander", b"v") for n in range(2500)])
    assert "canary-7f3a" in contents(own_redis.folder)
    assert log.forget(positions[-2]) == sum(1 for n in range(2499) if n % 3)
    log.close()
    after = contents(own_redis.folder)
    assert "canary-7f3a" not in after
    assert "bystander" in after
    own_redis.kill()
    own_redis.start()
    log = open_event_log(own_redis.url, topic, 1)
    assert log.end_offsets() == {0: 2500}
    log.close()


def contents(folder: Path) -> str:
    """All files below a folder."""
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def own_server(backend: str, request: pytest.FixtureRequest) -> Server:
    """A server of this test alone."""
    server: Server = request.getfixturevalue(f"own_{backend}")
    return server


def test_a_log_that_hangs_is_unavailable_soon_and_works_again_by_itself(own_server: Server, topic: str) -> None:
    log = open_event_log(own_server.url, topic, PARTITIONS)
    log.append(pairs(10))
    own_server.kill(signal.SIGSTOP)
    for _ in range(2):
        started = time.monotonic()
        with pytest.raises(EventLogUnavailable):
            log.append(pairs(10))
        assert time.monotonic() - started < 4
    own_server.kill(signal.SIGCONT)
    assert len(eventually(lambda: log.append(pairs(10)))) == 10
    log.close()


def test_a_log_that_is_killed_is_unavailable_soon_and_keeps_what_it_took(own_server: Server, topic: str) -> None:
    log = open_event_log(own_server.url, topic, PARTITIONS)
    consumer = log.consumer("readers")
    taken = log.append(pairs(100))
    consumer.commit(next_offsets(read(consumer, 100)))
    own_server.kill()
    started = time.monotonic()
    with pytest.raises(EventLogUnavailable):
        log.append(pairs(10))
    assert time.monotonic() - started < 4
    with pytest.raises(EventLogUnavailable):
        log.end_offsets()
    with pytest.raises(EventLogUnavailable):
        read(consumer, 1)
    own_server.start()
    more = eventually(lambda: log.append([(b"later", b"later")]))
    assert more[0].offset >= sum(1 for position in taken if position.partition == more[0].partition)
    deadline = time.monotonic() + PATIENCE
    records: list[Record] = []
    while b"later" not in {record.value for record in records}:
        assert time.monotonic() < deadline
        records += eventually(lambda: consumer.poll(0.5))
    assert not {Position(record.partition, record.offset) for record in records} & set(taken)
    consumer.close()
    log.close()


def test_a_log_that_is_not_there_cannot_be_opened() -> None:
    with pytest.raises(EventLogUnavailable):
        open_event_log("unix:///nowhere/redis.sock", "topic", 1)


def test_an_unknown_kind_of_log_is_named() -> None:
    with pytest.raises(ValueError, match="amqp:// is no event log"):
        open_event_log("amqp://localhost", "topic", 1)


def test_a_guard_that_has_changed_keeps_the_records_out_where_the_log_can_tell(
    url: str, backend: str, topic: str, join: Join, log: EventLog
) -> None:
    """Redis looks at it in the step that appends, for all of the records or none; Kafka knows nothing of it."""
    guard = {f"guard:{topic}": b"1", f"guard:{topic}:too": b"\x002"}
    if backend == "kafka":
        assert log.append(pairs(2), guard)
        return
    store = connect(url)
    store.mset(guard)  # type: ignore[arg-type]
    positions = log.append(pairs(3), guard)
    for change in (lambda: store.set(f"guard:{topic}", 2), lambda: store.delete(f"guard:{topic}:too")):
        store.mset(guard)  # type: ignore[arg-type]
        change()
        with pytest.raises(GuardChanged):
            log.append(pairs(3), guard)
    store.mset(guard)  # type: ignore[arg-type]
    positions += log.append(pairs(500), guard)
    found = read(join(), 503)
    assert {(each.partition, each.offset) for each in found} == set(positions)
    assert sorted((each.key, each.value) for each in found) == sorted(pairs(3) + pairs(500))
    store.close()
