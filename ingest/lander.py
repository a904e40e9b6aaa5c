"""The lander: event log → lake, exactly once, without what was withdrawn.

It counts on its own fences inside the lake's commits, never on the group's offsets. Within a batch the fence of
`events` moves last, after everything else the batch asks for: whatever is cut short is done again, and each part of it
can be done again.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import polars as pl
import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram

from infra.database import LedgerUnavailable
from infra.disk import StorageLow
from infra.event_log.port import EventLog, EventLogError, Position
from infra.lake import DEAD_LETTERS, EVENTS, ITEMS, Lake, LakeConflict, LakeError, Span
from infra.telemetry import LogLag
from ingest.erasure import ErasureKeeper
from ingest.events import (
    ConsentMark,
    ConsentProjection,
    ConsentUnavailable,
    ErasureMark,
    ErasureStep,
    Stage,
    encode,
    key,
    now,
)
from ingest.landing import Batch, above, dead_letter_rows, event_rows, item_rows

GROUP = "lander"
COMMIT_SECONDS = 1.0
IDLE_SECONDS = 0.05
LARGEST_BATCH = 50_000
KEEP_EVERY_SECONDS = 2.0
COMMITS_PER_COMPACTION = 100
LONGEST_WAIT_SECONDS = 5.0

CAUSES = (EventLogError, LakeError, ConsentUnavailable, LedgerUnavailable, StorageLow)
"""What passes by itself, so that the lander waits and tries again."""


class LanderMetrics:
    """What the lander tells Prometheus."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.landed = Counter("marquee_landed_rows", "Rows landed in the lake.", ["table"], registry=registry)
        self.dropped = Counter(
            "marquee_dropped_on_withdrawal", "Records not landed because consent was withdrawn.", registry=registry
        )
        self.marks = Counter("marquee_marks", "Withdrawals and erasures obeyed.", ["kind"], registry=registry)
        self.forgotten = Counter("marquee_forgotten_rows", "Rows deleted for withdrawals, erasures.", registry=registry)
        self.erasures = Counter("marquee_erasures_completed", "Erasures completed.", registry=registry)
        self.lag = LogLag(GROUP, registry)
        self.commit = Histogram("marquee_lake_commit_seconds", "Time to land one batch.", registry=registry)
        self.conflicts = Counter("marquee_lake_conflicts", "Batches another lander was faster with.", registry=registry)
        self.failures = Counter("marquee_lander_failures", "Batches put off.", ["cause"], registry=registry)


class Lander:
    """One lander; several share the log's partitions.

    Args:
        log: what to land, and where erasure steps are signed.
        lake: where to.
        projection: tells what may be kept.
        keeper: follows the erasures.
        registry: takes the metrics.
        room: raises `infra.disk.StorageLow` where the disk has no room for the lake to grow.
    """

    def __init__(
        self,
        log: EventLog,
        lake: Lake,
        projection: ConsentProjection,
        keeper: ErasureKeeper,
        registry: CollectorRegistry,
        *,
        room: Callable[[], None] = lambda: None,
    ) -> None:
        self._log = log
        self._room = room
        self._lake = lake
        self._projection = projection
        self._keeper = keeper
        self._metrics = LanderMetrics(registry)
        self._reached: dict[int, int] = {}
        self._consumer = log.consumer(GROUP, start_at=self._start)
        self._behind = False
        self._commits = 0
        self._keep_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Land until asked to stop, then leave the group. What fails is begun anew after a pause; none is skipped."""
        wait = 0.0
        while not stop.is_set():
            try:
                self.step()
                wait = 0.0
            except CAUSES as error:
                self._put_off(error)
                wait = min(max(2 * wait, 0.1), LONGEST_WAIT_SECONDS)
                stop.wait(wait)
        self.close()

    def step(self, timeout: float = COMMIT_SECONDS) -> int:
        """Gather one batch, land it, and look after the erasures.

        Args:
            timeout: seconds to wait for the first record.

        Returns:
            Number of records the batch covers.

        Raises:
            Exception: one of CAUSES: call again; the batch begins anew.
        """
        self._room()
        with self._begin_anew_on_failure():
            batch = self._gather(timeout)
            if batch.spans:
                with self._metrics.commit.time():
                    self._land(batch)
        if batch.spans:
            self._after_commit(batch)
        self._keep()
        return sum(span.end - span.start for span in batch.spans.values())

    def close(self) -> None:
        """Leave the group, so that other landers take over at once."""
        self._consumer.close()

    def _start(self, partition: int) -> int:
        self._reached[partition] = self._lake.landed(EVENTS).get(partition, 0)
        return self._reached[partition]

    @contextmanager
    def _begin_anew_on_failure(self) -> Iterator[None]:
        if self._behind:
            landed = self._lake.landed(EVENTS)
            for partition in self._consumer.assigned():
                self._reached[partition] = landed.get(partition, 0)
                self._consumer.seek(partition, self._reached[partition])
        self._behind = True
        yield
        self._behind = False

    def _gather(self, timeout: float) -> Batch:
        """Records of about a second while they keep coming; at once when there is a pause."""
        batch = Batch(self._reached)
        records = self._consumer.poll(timeout)
        deadline = time.monotonic() + COMMIT_SECONDS
        while records:
            batch.add(records)
            full = sum(end - start for start, end in batch.spans.values()) >= LARGEST_BATCH
            records = [] if full or time.monotonic() >= deadline else self._consumer.poll(IDLE_SECONDS)
        return batch

    def _land(self, batch: Batch) -> None:
        people = batch.people()
        dropped = batch.drop_uncovered(self._projection.read(people) if people else {})
        self._land_dead_letters(batch)
        self._land_items(batch)
        self._obey_marks(batch)
        for step in batch.steps.values():
            self._keeper.sign(step)
        # Even without rows: the fence says that all of the above was done.
        self._lake.append(EVENTS, event_rows(batch.events), batch.spans, batch.tallies)
        self._reached |= {partition: span.end for partition, span in batch.spans.items()}
        self._metrics.landed.labels(EVENTS).inc(len(batch.events))
        self._metrics.dropped.inc(dropped)

    def _land_dead_letters(self, batch: Batch) -> None:
        if batch.dead:
            fences = self._lake.landed(DEAD_LETTERS)
            rows = dead_letter_rows(batch.dead, fences)
            self._append(DEAD_LETTERS, rows, above(batch.spans, fences))

    def _land_items(self, batch: Batch) -> None:
        if batch.items:
            fences = self._lake.landed(ITEMS)
            rows = item_rows(batch.items, fences)
            self._append(ITEMS, rows, above(batch.spans, fences))

    def _append(self, table: str, rows: pl.DataFrame, spans: Mapping[int, Span]) -> None:
        if rows.height:
            self._lake.append(table, rows, spans)
            self._metrics.landed.labels(table).inc(rows.height)

    def _obey_marks(self, batch: Batch) -> None:
        erasures = [(at, mark) for at, mark in batch.marks if isinstance(mark, ErasureMark)]
        self._forget([one for one in batch.marks if not isinstance(one[1], ErasureMark)])
        removed = [self._forget([erasure]) for erasure in erasures]
        if erasures:
            self._lake.purge()
        for (at, mark), (rows, letters) in zip(erasures, removed, strict=True):
            self._keeper.met(mark, at)
            stages: dict[Stage, int] = {"dead_letters": letters, "lake": rows}
            steps = [ErasureStep(erasure_id=mark.erasure_id, stage=s, removed=n, at=now()) for s, n in stages.items()]
            self._log.append([(key(step), encode(step)) for step in steps])
        for _, obeyed in batch.marks:
            self._metrics.marks.labels(obeyed.kind).inc()

    def _forget(self, marks: Sequence[tuple[Position, ConsentMark | ErasureMark]]) -> tuple[int, int]:
        """Events and dead letters removed. The marks stand in order: of several of one person the last one counts."""
        rows = self._lake.forget(EVENTS, {mark.user_id: mark.receipt for _, mark in marks})
        letters = self._lake.forget_dead_letters({key(mark): at for at, mark in marks})
        self._metrics.forgotten.inc(rows + letters)
        return rows, letters

    def _after_commit(self, batch: Batch) -> None:
        """What is only of use to watchers, or can wait: it may fail."""
        self._commits += 1
        try:
            self._consumer.commit({partition: span.end for partition, span in batch.spans.items()})
            self._metrics.lag.show(self._consumer.lag())
            if self._commits % COMMITS_PER_COMPACTION == 0:
                self._lake.compact()
                self._lake.purge()
        except (EventLogError, LakeError) as error:
            structlog.get_logger(__name__).info("after_commit_failed", error=str(error))

    def _keep(self) -> None:
        if time.monotonic() >= self._keep_at:
            self._keep_at = time.monotonic() + KEEP_EVERY_SECONDS
            self._log.keep(lambda: self._lake.landed(EVENTS))
            self._metrics.erasures.inc(self._keeper.advance())

    def _put_off(self, error: Exception) -> None:
        if isinstance(error, LakeConflict):
            self._metrics.conflicts.inc()
        self._metrics.failures.labels(type(error).__name__).inc()
        structlog.get_logger(__name__).warning("batch_put_off", cause=type(error).__name__, error=str(error))
