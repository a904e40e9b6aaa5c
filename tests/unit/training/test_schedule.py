"""The schedule forgets lists at once, signs erasures, and retrains when it is due, over a real log."""

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import redis
from prometheus_client import CollectorRegistry

from infra.event_log import open_event_log
from infra.event_log.port import Consumer, EventLog, EventLogUnavailable, PartitionsLost
from infra.online_store import OnlineStore
from ingest.events import (
    ERASURES,
    AcceptedEvent,
    ConsentMark,
    ErasureMark,
    Erasures,
    ErasureStep,
    LogRecord,
    decode,
    encode,
    key,
    now,
)
from training.bundle import ATTEMPTS, KEPT, LOCK, RUN, list_key, live_key
from training.job import Outcome
from training.metrics import TrainingMetrics
from training.progress import ask, read_training
from training.restoration import Restoration
from training.schedule import AFTER_MARK_SECONDS, GROUP, Due, Schedule

NEVER = Due(1e9, 10**9, 1e9)
OUTCOME = Outcome(
    result="published",
    version=3,
    algorithm="als",
    reasons=("passed",),
    metrics={"ndcg_at_10": 0.25},
    seconds={"fit": 1.5},
    users_published=42,
)


@pytest.fixture
def topic() -> str:
    """A name that nobody else uses."""
    return f"t-{uuid.uuid4().hex}"


@pytest.fixture
def log(redis_url: str, store: OnlineStore, topic: str) -> Iterator[EventLog]:
    """An empty log of two partitions."""
    del store
    opened = open_event_log(redis_url, topic, 2)
    yield opened
    opened.close()


@pytest.fixture
def metrics() -> CollectorRegistry:
    """Where the schedule shows itself."""
    return CollectorRegistry()


Make = Callable[..., Schedule]


@pytest.fixture
def schedule(log: EventLog, store: OnlineStore, metrics: CollectorRegistry) -> Make:
    """Makes a schedule; its retrainings are the given Python code."""

    def make(due: Due = NEVER, code: str = "", **parts: Any) -> Schedule:
        def start() -> "subprocess.Popen[str]":
            return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)

        shown = TrainingMetrics(parts.pop("shown", metrics))
        parts.setdefault("restoration", Restoration(store, lambda: None, never))
        words: dict[str, Any] = {"log": log, "store": store, "due": due, "start": start, "metrics": shown}
        return Schedule(**(words | parts))

    return make


def never(version: int) -> "subprocess.Popen[str]":
    raise AssertionError(f"version {version} was served again")


def append(log: EventLog, *records: LogRecord) -> None:
    log.append([(key(record), encode(record)) for record in records])


def event(user: str = "u1") -> AcceptedEvent:
    return AcceptedEvent(
        event_id=uuid.uuid4().hex,
        type="play",
        user_id=user,
        item_id="m1",
        occurred_at=now(),
        receipt=1,
        accepted_at=now(),
    )


def withdrawal(user: str) -> ConsentMark:
    return ConsentMark(user_id=user, receipt=5, purposes=(), at=now())


def erasure(user: str) -> ErasureMark:
    return ErasureMark(user_id=user, receipt=5, erasure_id=f"erase-{user}", at=now())


def turns(schedule: Schedule, log: EventLog, until: Callable[[], bool], most: int = 200) -> None:
    consumer = log.consumer(GROUP)
    try:
        for _ in range(most):
            schedule.turn(consumer, threading.Event())
            if until():
                return
        raise AssertionError("it never came to that")
    finally:
        consumer.close()


def publish_lists(store: OnlineStore, *users: str) -> None:
    store.sadd(KEPT, 1, 2)
    for user in users:
        store.set(list_key(1, user), b"1")
        store.set(list_key(2, user), b"2")
        store.set(live_key(2, user), b"nearline's")


def steps(log: EventLog) -> list[ErasureStep]:
    consumer = log.consumer(uuid.uuid4().hex)
    found: list[ErasureStep] = []
    for _ in range(20):
        said = [decode(record.value) for record in consumer.poll(0.05)]
        found += [record for record in said if isinstance(record, ErasureStep)]
    consumer.close()
    return found


def test_who_withdraws_loses_the_lists_of_every_version_and_nobody_else_does(
    schedule: Make, log: EventLog, store: OnlineStore, metrics: CollectorRegistry
) -> None:
    publish_lists(store, "gone", "stays")
    allowed = ConsentMark(user_id="stays", receipt=6, purposes=("personalization",), at=now())
    append(log, event("gone"), withdrawal("gone"), allowed)
    turns(schedule(), log, lambda: not store.exists(list_key(1, "gone")))
    assert not store.exists(list_key(2, "gone"))
    assert store.exists(live_key(2, "gone")), "live lists are nearline's to remove"
    assert store.exists(list_key(1, "stays"), list_key(2, "stays")) == 2
    assert metrics.get_sample_value("marquee_forgotten_lists_total") == 2


def test_an_erasure_is_signed_after_the_lists_are_gone(schedule: Make, log: EventLog, store: OnlineStore) -> None:
    publish_lists(store, "gone")
    append(log, erasure("gone"), erasure("stranger"), withdrawal("other"))
    turns(schedule(), log, lambda: len(steps(log)) == 2)
    assert {(step.erasure_id, step.stage, step.removed) for step in steps(log)} == {
        ("erase-gone", "lists", 2),
        ("erase-stranger", "lists", 0),
    }
    assert not store.exists(list_key(1, "gone"))


def test_a_mark_counts_as_handled_only_after_the_lists_are_gone(
    schedule: Make, log: EventLog, store: OnlineStore
) -> None:
    """While the online store is down the mark waits; another process that takes over meets it again."""

    class Down:
        def __getattr__(self, name: str) -> Any:
            raise redis.ConnectionError("down")

    publish_lists(store, "gone")
    append(log, withdrawal("gone"))
    stop = threading.Event()
    stop.set()
    consumer = log.consumer(GROUP)
    worker = schedule(store=Down(), shown=CollectorRegistry())
    for _ in range(3):
        worker.turn(consumer, stop)
    consumer.close()
    assert store.exists(list_key(1, "gone"))
    turns(schedule(), log, lambda: not store.exists(list_key(1, "gone")))


def test_a_signature_that_could_not_be_appended_is_tried_again_in_the_same_process(
    schedule: Make, log: EventLog, store: OnlineStore
) -> None:
    class Shaky:
        failures = 2

        def append(self, records: Any) -> Any:
            if self.failures:
                self.failures -= 1
                raise EventLogUnavailable("by the test")
            return log.append(records)

    publish_lists(store, "gone")
    append(log, erasure("gone"))
    shaky = Shaky()
    worker = schedule(log=shaky)
    consumer = log.consumer(GROUP)
    stop = threading.Event()
    stop.set()
    for _ in range(5):
        worker.turn(consumer, stop)
    consumer.close()
    assert [step.erasure_id for step in steps(log)] == ["erase-gone"]


def test_bytes_that_are_no_record_are_passed_over(schedule: Make, log: EventLog, store: OnlineStore) -> None:
    publish_lists(store, "gone")
    log.append([(b"gone", b"garbage")])
    append(log, withdrawal("gone"))
    turns(schedule(), log, lambda: not store.exists(list_key(1, "gone")))


def test_new_events_make_a_retraining_due_and_its_outcome_is_shown(
    schedule: Make, log: EventLog, metrics: CollectorRegistry
) -> None:
    append(log, *[event() for _ in range(5)])
    worker = schedule(Due(1e9, 5, 1e9), f"print('noise'); print({OUTCOME.model_dump_json()!r})")
    turns(worker, log, lambda: metrics.get_sample_value("marquee_training_runs_total", {"result": "published"}) == 1)
    values = {
        "marquee_published_users": 42,
        "marquee_published_version": 3,
    }
    assert {name: metrics.get_sample_value(name) for name in values} == values
    assert metrics.get_sample_value("marquee_log_lag", {"group": "trainer", "partition": "0"}) == 0
    assert metrics.get_sample_value("marquee_holdout", {"metric": "ndcg_at_10"}) == 0.25
    assert metrics.get_sample_value("marquee_training_phase_seconds", {"phase": "fit"}) == 1.5


def test_a_retraining_that_fails_is_counted_and_not_repeated_at_once(
    schedule: Make, log: EventLog, metrics: CollectorRegistry
) -> None:
    append(log, *[event() for _ in range(5)])
    worker = schedule(Due(1e9, 5, 1e9), "raise SystemExit(1)")
    failed = ("marquee_training_runs_total", {"result": "failed"})
    turns(worker, log, lambda: metrics.get_sample_value(*failed) == 1)
    consumer = log.consumer(GROUP)
    worker.turn(consumer, threading.Event())
    consumer.close()
    assert metrics.get_sample_value(*failed) == 1


def test_a_run_that_is_asked_for_begins_at_once_and_once(schedule: Make, log: EventLog, store: OnlineStore) -> None:
    """Nothing is due. Who asks learns first that somebody is there."""
    printed = f"print({OUTCOME.model_dump_json()!r})"
    begun = schedule(NEVER, printed)
    turns(begun, log, lambda: read_training(store).schedule)
    assert store.get(ATTEMPTS) is None
    for _ in range(2):
        assert ask(store).state == "asked"
    turns(begun, log, lambda: begun._child is not None)
    assert read_training(store).state == "idle"
    turns(begun, log, lambda: begun._child is None)
    turns(begun, log, lambda: True)
    assert begun._child is None


def test_a_run_that_is_killed_is_told_to_have_failed(schedule: Make, log: EventLog, store: OnlineStore) -> None:
    killed = schedule(Due(0, 1, 1e9), "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    store.set(RUN, "{}")
    turns(killed, log, lambda: read_training(store).last is not None)
    last = read_training(store).last
    assert last is not None
    assert (last.result, last.reason) == ("failed", "it was ended by SIGKILL")
    assert not store.exists(RUN)


def test_marks_are_handled_while_a_retraining_runs_and_stopping_ends_it(
    schedule: Make, log: EventLog, store: OnlineStore
) -> None:
    children: list[subprocess.Popen[str]] = []

    def start() -> "subprocess.Popen[str]":
        child = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(600)"], stdout=subprocess.PIPE, text=True
        )
        children.append(child)
        return child

    publish_lists(store, "gone")
    stop = threading.Event()
    worker = schedule(Due(1e9, 1, 1e9), start=start)
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    try:
        for _ in range(200):
            if children:
                break
            stop.wait(0.05)
        append(log, withdrawal("gone"))
        for _ in range(200):
            if not store.exists(list_key(1, "gone")):
                break
            stop.wait(0.05)
        assert not store.exists(list_key(1, "gone"))
        assert len(children) == 1
        assert children[0].poll() is None
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
    assert children[0].poll() is not None


@pytest.mark.parametrize(
    ("waited", "events", "marks", "due"),
    [
        (10, 99, 0, False),
        (0, 100, 0, True),
        (3600, 1, 0, True),
        (3600, 0, 0, False),
        (7200, 0, 0, True),
        (AFTER_MARK_SECONDS, 0, 1, True),
        (AFTER_MARK_SECONDS - 1, 0, 1, False),
    ],
)
def test_a_retraining_is_due(waited: float, events: int, marks: int, due: bool) -> None:
    """After enough events, after enough time if anything is new, soon after a mark, and before lists expire."""
    assert Due(3600, 100, 7200).now(waited, events, marks) is due


@pytest.mark.parametrize("waiting", [False, True])
def test_while_the_models_have_not_followed_an_erasure_there_is_something_to_retrain_for(
    schedule: Make, log: EventLog, store: OnlineStore, metrics: CollectorRegistry, waiting: bool
) -> None:
    """Whether or not this process met the mark, or an event since."""
    if waiting:
        store.set(ERASURES, Erasures(5, {"e1": 5}).encode())
    worker = schedule(Due(0.05, 10**9, 1e9), f"print({OUTCOME.model_dump_json()!r})")
    runs = ("marquee_training_runs_total", {"result": "published"})
    turns(worker, log, lambda: metrics.get_sample_value(*runs) == 1)
    consumer = log.consumer(GROUP)
    for _ in range(4):
        worker.turn(consumer, threading.Event())
    consumer.close()
    assert (worker._child is not None or metrics.get_sample_value(*runs) != 1) is waiting
    worker._end_child()


def test_a_consumer_that_lost_its_partitions_goes_on(schedule: Make, log: EventLog) -> None:
    """The partition's new owner handles the records again."""

    class Losing:
        def __init__(self, consumer: Consumer) -> None:
            self.consumer = consumer

        def __getattr__(self, name: str) -> Any:
            if name == "commit":
                raise PartitionsLost("by the test")
            return getattr(self.consumer, name)

    append(log, event())
    consumer = log.consumer(GROUP)
    schedule().turn(cast("Consumer", Losing(consumer)), threading.Event())
    consumer.close()


# --- a retraining that is killed -------------------------------------------------------------------------------------

TRAINING = f"""
import sys, time
from infra.online_store import connect
from training.lock import one_at_a_time
store = connect(sys.argv[1])
with one_at_a_time(store, seconds=1.0):
    if store.incr("t:runs") == 1:
        time.sleep(600)
    print({OUTCOME.model_dump_json()!r})
"""
"""A retraining of which the first one never ends."""

TRAINER = """
import subprocess, sys, threading
from prometheus_client import CollectorRegistry
from infra.event_log import open_event_log
from infra.online_store import connect
from training.metrics import TrainingMetrics
from training.progress import ask, read_training
from training.restoration import Restoration
from training.schedule import Due, Schedule
redis, topic, training = sys.argv[1:]
def start():
    child = subprocess.Popen([sys.executable, "-c", training, redis], stdout=subprocess.PIPE, text=True)
    print(child.pid, flush=True)
    return child
Schedule(
    log=open_event_log(redis, topic, 2), store=connect(redis), due=Due(1e9, 1, 1e9), start=start,
    restoration=Restoration(connect(redis), lambda: None, None), metrics=TrainingMetrics(CollectorRegistry())
).run(threading.Event())
"""
PUBLISHED = ("marquee_training_runs_total", {"result": "published"})


def start_in(redis_url: str, begun: list["subprocess.Popen[str]"]) -> Callable[[], "subprocess.Popen[str]"]:
    def start() -> "subprocess.Popen[str]":
        begun.append(subprocess.Popen([sys.executable, "-c", TRAINING, redis_url], stdout=subprocess.PIPE, text=True))
        return begun[-1]

    return start


def test_a_retraining_that_is_killed_is_begun_again_as_soon_as_its_lock_has_run_out(
    schedule: Make, log: EventLog, store: OnlineStore, redis_url: str, metrics: CollectorRegistry
) -> None:
    """Not when the next one would have been due anyhow, which is never."""
    begun: list[subprocess.Popen[str]] = []
    append(log, event())
    worker = schedule(Due(1e9, 1, 1e9, retry_seconds=0.5), start=start_in(redis_url, begun))
    turns(worker, log, lambda: bool(store.exists("t:runs")))
    assert store.exists(LOCK)
    assert store.get(ATTEMPTS) == b"1"
    begun[0].kill()
    turns(worker, log, lambda: metrics.get_sample_value(*PUBLISHED) == 1)
    assert len(begun) >= 2
    assert not store.exists(ATTEMPTS)
    assert not store.exists(LOCK)


def test_a_trainer_that_is_killed_with_its_retraining_leaves_the_next_one_something_to_do(
    schedule: Make, log: EventLog, topic: str, store: OnlineStore, redis_url: str, metrics: CollectorRegistry
) -> None:
    """Every event was handled and counted by the first, so none is left to tell the second that it is time."""
    append(log, event())
    command = [sys.executable, "-c", TRAINER, redis_url, topic, TRAINING]
    trainer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert trainer.stdout
    retraining = int(trainer.stdout.readline())
    for _ in range(400):
        if store.exists("t:runs"):
            break
        threading.Event().wait(0.05)
    trainer.kill()
    os.kill(retraining, signal.SIGKILL)
    trainer.communicate()
    turns(
        schedule(Due(1e9, 10**9, 1e9, retry_seconds=0.5), start=start_in(redis_url, [])),
        log,
        lambda: metrics.get_sample_value(*PUBLISHED) == 1,
    )


def test_a_schedule_after_which_nothing_was_left_undone_waits_for_its_time(
    schedule: Make, log: EventLog, store: OnlineStore
) -> None:
    begun: list[subprocess.Popen[str]] = []
    worker = schedule(Due(1e9, 10**9, 1e9, retry_seconds=0.0), start=start_in("", begun))
    consumer = log.consumer(GROUP)
    for _ in range(3):
        worker.turn(consumer, threading.Event())
    consumer.close()
    assert not begun


@pytest.mark.parametrize(
    ("waited", "failures", "again"),
    [
        (1e6, 0, False),
        (59, 1, False),
        (60, 1, True),
        (119, 2, False),
        (120, 2, True),
        (3599, 9, False),
        (3600, 9, True),
    ],
)
def test_after_each_failure_it_waits_twice_as_long_but_never_longer_than_usual(
    waited: float, failures: int, again: bool
) -> None:
    assert Due(3600, 100, 7200).again(waited, failures) is again


def test_the_champion_is_served_again_where_the_store_has_lost_it(
    schedule: Make, log: EventLog, store: OnlineStore
) -> None:
    """In a process of its own, while nothing is due; what stops the schedule stops that process too."""
    children: list[subprocess.Popen[str]] = []

    def start(version: int) -> "subprocess.Popen[str]":
        code = f"import sys, time; print({version}, flush=True); time.sleep(600)"
        children.append(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True))
        return children[-1]

    worker = schedule(restoration=Restoration(store, lambda: 7, start))
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    for _ in range(200):
        if children:
            break
        stop.wait(0.05)
    assert children[0].stdout
    assert children[0].stdout.readline() == "7\n"
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    assert children[0].poll() is not None
