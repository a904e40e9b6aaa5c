"""The schedule: retrains when it is due or asked for, and removes the lists of people who withdraw, at once.

It also has the champion served again where the online store has lost it: see `training.restoration`.

It reads the log as the group `trainer`. A retraining runs in a child process, so that nobody's withdrawal waits for it.
"""

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import structlog
from pydantic import ValidationError

from infra.event_log.port import Consumer, EventLog, EventLogError, PartitionsLost, Record
from infra.online_store import OnlineStore, OnlineStoreError
from ingest.events import (
    ERASURES,
    AcceptedEvent,
    ConsentMark,
    ErasureMark,
    Erasures,
    ErasureStep,
    InvalidRecord,
    decode,
    encode,
    is_mark,
    key,
    now,
)
from training.bundle import ATTEMPTS
from training.job import Outcome
from training.lock import SECONDS as LOCK_SECONDS
from training.metrics import TrainingMetrics
from training.progress import SCHEDULE_SECONDS, LastRun, end, taken_up, tell_of_schedule
from training.publish import forget_lists
from training.restoration import Restoration

GROUP = "trainer"
POLL_SECONDS = 1.0
RETRY_SECONDS = 1.0
STOP_SECONDS = 10.0
AFTER_MARK_SECONDS = 300.0
"""After a withdrawal or an erasure the next retraining is due when the last one began so long ago."""


@dataclass(frozen=True)
class Due:
    """When to retrain.

    Attributes:
        every_seconds: at least so often, when anything is new.
        after_events: after so many new events.
        renew_seconds: so often even when nothing is new: published lists expire.
        retry_seconds: so long after a retraining that failed, twice as long after a second one, and so on: by then
            the lock of one that was killed has run out.
    """

    every_seconds: float
    after_events: int
    renew_seconds: float
    retry_seconds: float = LOCK_SECONDS

    def now(self, waited: float, events: int, marks: int) -> bool:
        """Whether it is time.

        Args:
            waited: seconds since the last retraining began.
            events: met since then.
            marks: withdrawals and erasures met since then.
        """
        if events >= self.after_events or waited >= self.renew_seconds:
            return True
        if marks and waited >= min(AFTER_MARK_SECONDS, self.every_seconds):
            return True
        return events > 0 and waited >= self.every_seconds

    def again(self, waited: float, failures: int) -> bool:
        """Whether it is time to try again.

        Args:
            waited: seconds since the last retraining failed.
            failures: in a row.
        """
        return failures > 0 and waited >= min(self.retry_seconds * 2 ** (failures - 1), self.every_seconds)


class Schedule:
    """Reads the log, forgets lists and starts retrainings.

    Args:
        log: the event log.
        store: the online store.
        due: when to retrain.
        start: starts a retraining; it prints its outcome as the last line of its standard output.
        restoration: serves the champion again where the store has lost it.
        metrics: what it shows of itself.
    """

    def __init__(
        self,
        *,
        log: EventLog,
        store: OnlineStore,
        due: Due,
        start: Callable[[], "subprocess.Popen[str]"],
        restoration: Restoration,
        metrics: TrainingMetrics,
    ) -> None:
        self._log = log
        self._store = store
        self._due = due
        self._start = start
        self._restoration = restoration
        self._metrics = metrics
        self._child: subprocess.Popen[str] | None = None
        # What was new when this process last stopped is not known: take it that something was.
        self._events = 1
        self._marks = 0  # Erasures that models have not followed yet are known besides: they count as news.
        # So many retrainings that did not come to an end may stand in the store: this process tries again soon.
        self._since = self._failed = self._tell_at = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; a retraining under way is then ended."""
        consumer = self._log.consumer(GROUP)
        try:
            while not stop.is_set():
                self.turn(consumer, stop)
        finally:
            consumer.close()
            self._end_child()
            self._restoration.end()

    def turn(self, consumer: Consumer, stop: threading.Event) -> None:
        """Handle one batch of records, then look after the retraining."""
        records: Sequence[Record] = ()
        try:
            records = consumer.poll(POLL_SECONDS)
            self._handle(records)
            consumer.commit({record.partition: record.offset + 1 for record in records})
            self._metrics.lag.show(consumer.lag())
        except PartitionsLost:
            pass  # Their new owner handles them again, which does no harm.
        except (EventLogError, *OnlineStoreError) as error:
            structlog.get_logger(__name__).warning("waiting for the stores", error=type(error).__name__)
            _rewind(consumer, records)
            stop.wait(RETRY_SECONDS)
        try:
            self._tell_of_us()
            self._look_after_training()
            if self._child is None:  # A retraining under way ends with a version that is served.
                self._restoration.look()
        except OnlineStoreError as error:
            structlog.get_logger(__name__).warning("waiting for the stores", error=type(error).__name__)

    def _handle(self, records: Sequence[Record]) -> None:
        for record in records:
            try:
                said = decode(record.value)
            except InvalidRecord:
                continue  # The lander puts it with the dead letters.
            if isinstance(said, AcceptedEvent):
                self._events += 1
            elif isinstance(said, ConsentMark | ErasureMark) and is_mark(said):
                self._forget(said)

    def _forget(self, mark: ConsentMark | ErasureMark) -> None:
        removed = forget_lists(self._store, mark.user_id)
        self._marks += 1
        self._metrics.forgotten_lists.inc(removed)
        if isinstance(mark, ErasureMark):
            step = ErasureStep(erasure_id=mark.erasure_id, stage="lists", removed=removed, at=now())
            self._log.append([(key(step), encode(step))])

    def _look_after_training(self) -> None:
        if self._child is not None:
            code = self._child.poll()
            if code is not None:
                child, self._child = self._child, None
                self._finished(child, code)
        elif self._is_due():
            # Counted before it begins: whatever ends this process, the next one knows that there was something to do.
            self._store.incr(ATTEMPTS)
            self._since, self._events, self._marks = time.monotonic(), 0, 0
            self._child = self._start()

    def _tell_of_us(self) -> None:
        if time.monotonic() >= self._tell_at:
            tell_of_schedule(self._store)
            self._tell_at = time.monotonic() + SCHEDULE_SECONDS / 3

    def _is_due(self) -> bool:
        moment = time.monotonic()
        if taken_up(self._store):
            return True
        owed = Erasures.decode(cast("bytes | None", self._store.get(ERASURES))).waiting
        if self._due.now(moment - self._since, self._events + len(owed), self._marks):
            return True
        return self._due.again(moment - self._failed, int(cast("bytes", self._store.get(ATTEMPTS) or b"0")))

    def _finished(self, child: "subprocess.Popen[str]", code: int) -> None:
        outcome = _outcome(child)
        self._metrics.finished(outcome)
        log = structlog.get_logger(__name__)
        if outcome is None:
            self._events += 1  # What it did not train on is still new.
            self._failed = time.monotonic()
            log.warning("retraining failed", exit_code=code)
            if code < 0:  # It was killed, and could not say so.
                end(self._store, LastRun.failed(f"it was ended by {signal.Signals(-code).name}"))
        else:
            self._store.delete(ATTEMPTS)
            log.info("retraining finished", result=outcome.result, version=outcome.version)

    def _end_child(self) -> None:
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.communicate()


def _outcome(child: "subprocess.Popen[str]") -> Outcome | None:
    printed = child.communicate()[0] or ""
    try:
        return Outcome.model_validate_json(printed.strip().rpartition("\n")[2])
    except ValidationError:
        return None


def _rewind(consumer: Consumer, records: Sequence[Record]) -> None:
    first: dict[int, int] = {}
    for record in records:
        first.setdefault(record.partition, record.offset)
    for partition in consumer.assigned() & first.keys():
        consumer.seek(partition, first[partition])
