"""The nearline worker: what just happened enters histories and live lists, and what must be forgotten leaves them.

The group's offsets move on only when a whole batch is written. A version that becomes current is replayed from its
watermark, since its published lists know nothing of what came after; so is a partition that becomes ours.
"""

import threading
import time
from collections.abc import Sequence
from typing import cast

import structlog

from infra.event_log.port import EventLog, EventLogUnavailable, PartitionsLost, Record
from infra.online_store import OnlineStore, OnlineStoreError
from ingest.events import ConsentUnavailable, InvalidRecord, decode
from serving.folding import Folding, Met
from serving.metrics import NearlineMetrics
from serving.versions import Published, Versions
from training.bundle import CURRENT

GROUP = "nearline"
BATCH = 2000
POLL_SECONDS = 0.25
LAG_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 2.0


class Nearline:
    """One member of the group `nearline`. Belongs to one thread.

    Args:
        log: the event log.
        store: the online store.
        versions: loads the published ones.
        folding: what is done with a batch.
        metrics: where it is counted.
    """

    def __init__(
        self, log: EventLog, store: OnlineStore, versions: Versions, folding: Folding, metrics: NearlineMetrics
    ) -> None:
        self._event_log = log
        self._consumer = log.consumer(GROUP)
        self._store = store
        self._folding = folding
        self._metrics = metrics
        self._versions = versions
        self._published: Published | None = None
        self._next: dict[int, int] = {}
        self._done: dict[int, int] = {}
        self._lag_at = 0.0
        self._log = structlog.get_logger()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`. What is down is waited for; nothing is skipped meanwhile."""
        wait = 0.1
        while not stop.is_set():
            try:
                self.step()
                wait = 0.1
            except (EventLogUnavailable, OnlineStoreError, ConsentUnavailable) as error:
                self._log.warning("nearline_waits", error=type(error).__name__, seconds=wait)
                stop.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)
        self._consumer.close()

    def step(self, timeout: float = POLL_SECONDS) -> int:
        """One poll and all that follows from it; returns the number of records.

        Raises:
            EventLogUnavailable, OnlineStoreError, ConsentUnavailable: nothing is lost, step again later.
        """
        self._follow_version()
        records = self._consumer.poll(timeout, BATCH)
        try:
            records = self._begin_partitions(records)
            if records:
                self._apply(records)
        except Exception:
            self._go_back({record.partition: record.offset for record in reversed(records)})
            raise
        self._show_lag()
        return len(records)

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _apply(self, records: Sequence[Record]) -> None:
        # 1. everything is written  2. the group moves on  3. so do we
        consents = self._folding.apply(self._decode(records), self._published)
        after = {record.partition: record.offset + 1 for record in records}
        try:
            self._consumer.commit({p: max(offset, self._done[p]) for p, offset in after.items()})
        except PartitionsLost:
            self._log.warning("partitions_lost", partitions=sorted(after))
            self._folding.retract(consents, self._published)
            self._next.clear()
            return
        self._next |= after
        self._done |= {p: max(offset, self._done[p]) for p, offset in after.items()}

    def _decode(self, records: Sequence[Record]) -> list[Met]:
        batch = []
        for record in records:
            try:
                batch.append(Met(decode(record.value), record.offset >= self._done[record.partition]))
            except InvalidRecord as error:
                self._metrics.undecodable.inc()
                where = {"partition": record.partition, "offset": record.offset}
                self._log.warning("record_passed_over", reason=str(error), **where)
        return batch

    def _follow_version(self) -> None:
        pointer = cast("bytes | None", self._store.get(CURRENT))
        current = self._published.version if self._published else 0
        if published := self._versions.follow(pointer, current):
            self._published = published
            self._go_back({p: start for p in self._next if (start := self._start(p)) < self._next[p]})

    def _begin_partitions(self, records: list[Record]) -> list[Record]:
        """Note the partitions that are newly ours; replay them from the watermark where that is further back."""
        ours = self._consumer.assigned()
        self._next = {p: offset for p, offset in self._next.items() if p in ours}
        for partition in ours - self._next.keys():
            self._next[partition] = self._done[partition] = self._position(partition, records)
            if self._start(partition) < self._next[partition]:
                self._go_back({partition: self._start(partition)})
                records = [record for record in records if record.partition != partition]
        return records

    def _position(self, partition: int, records: Sequence[Record]) -> int:
        """Where the group stood when the partition became ours."""
        for record in records:
            if record.partition == partition:
                return record.offset
        return self._event_log.end_offsets()[partition] - self._consumer.lag()[partition]

    def _start(self, partition: int) -> int:
        """Offset from which the version's lists need the log."""
        if self._published is None:
            return self._next[partition]
        return self._published.bundle.manifest.snapshot.watermark.get(partition, 0)

    def _go_back(self, offsets: dict[int, int]) -> None:
        for partition, offset in offsets.items():
            try:
                self._consumer.seek(partition, offset)
            except PartitionsLost:
                self._next.pop(partition, None)
            else:
                self._next |= {partition: offset} if partition in self._next else {}

    def _show_lag(self) -> None:
        if time.monotonic() >= self._lag_at:
            self._lag_at = time.monotonic() + LAG_SECONDS
            self._metrics.lag.show(self._consumer.lag())
