"""The nearline worker: what just happened enters histories and live lists, and what must be forgotten leaves them.

The group's offsets move on only when a whole batch is written. The live lists of a version that is published, of one
that becomes current and of a partition that becomes ours are written from the version's watermark on: its published
lists know nothing of what came after. A store that lost its data is rebuilt: see `serving.rebuilding`.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import cast

import structlog

from infra.event_log.port import EventLog, EventLogUnavailable, PartitionsLost, Record
from infra.online_store import OnlineStore, OnlineStoreError
from infra.transport import reason
from ingest.events import AcceptedEvent, ConsentUnavailable, InvalidRecord, decode
from serving.folding import Folding, Met
from serving.following import Following
from serving.histories import Histories
from serving.metrics import NearlineMetrics
from serving.rebuilding import Rebuilding, watermark_of
from training.bundle import ALIVE, COMPLETE, CURRENT, NEXT

GROUP = "nearline"
BATCH = 2000
POLL_SECONDS = 0.25
REFRESHED_AT_ONCE = 200
"""Lists between two polls while a version is caught up with: what happens now does not wait for all of them."""
LOOK_SECONDS = 1.0
ALIVE_SECONDS = 10
LONGEST_WAIT_SECONDS = 2.0
QUIET_POLLS = 4
"""After so many polls without a record the log's end is reached, though its last records may have been forgotten."""


class Nearline:
    """One member of the group `nearline`. Belongs to one thread.

    Args:
        log: the event log.
        store: the online store.
        following: the versions whose live lists are written.
        folding: what is done with a batch.
        histories: swept here now and then.
        rebuilding: of what the store has lost.
        metrics: where it is counted.
    """

    def __init__(
        self,
        *,
        log: EventLog,
        store: OnlineStore,
        following: Following,
        folding: Folding,
        histories: Histories,
        rebuilding: Rebuilding,
        metrics: NearlineMetrics,
    ) -> None:
        self._event_log = log
        self._consumer = log.consumer(GROUP)
        self._store = store
        self._following = following
        self._folding = folding
        self._histories = histories
        self._rebuilding = rebuilding
        self._metrics = metrics
        self._next: dict[int, int] = {}
        self._done: dict[int, int] = {}
        self._partitions = 0
        self._quiet = 0
        self._look_at = 0.0
        self._log = structlog.get_logger()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`. What is down is waited for; nothing is skipped meanwhile."""
        wait = 0.1
        while not stop.is_set():
            try:
                self.step()
                wait = 0.1
            except (EventLogUnavailable, ConsentUnavailable, *OnlineStoreError) as error:
                # What the store's client says may quote what was stored; the others' words are ours.
                why = reason(error) if isinstance(error, OnlineStoreError) else str(error)
                self._log.warning("nearline_waits", error=type(error).__name__, reason=why, seconds=wait)
                self._metrics.waits.labels(type(error).__name__).inc()
                stop.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)
        self._consumer.close()

    def step(self, timeout: float = POLL_SECONDS) -> int:
        """One poll and all that follows from it; returns the number of records, and of people restored or refreshed.

        Raises:
            EventLogUnavailable, OnlineStoreError, ConsentUnavailable: nothing is lost, step again later.
        """
        complete, restored = self._look()
        busy = restored or self._following.awaited(1)
        records = self._consumer.poll(0.0 if busy else timeout, BATCH)
        try:
            records = self._read_again(complete, self._begin_partitions(records))
            if records:
                self._apply(records)
        except Exception:
            self._go_back({record.partition: record.offset for record in reversed(records)})
            raise
        refreshed = self._refresh()
        self._quiet = 0 if records else self._quiet + 1
        self._tell(again=False)
        self._look_now_and_then()
        return len(records) + restored + refreshed

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _apply(self, records: Sequence[Record]) -> None:
        # 1. everything is written  2. the group moves on  3. so do we
        versions = [published.version for published in self._following.versions]
        consents = self._folding.apply(self._decode(records), versions)
        after = {record.partition: record.offset + 1 for record in records}
        try:
            self._consumer.commit({p: max(offset, self._done[p]) for p, offset in after.items()})
        except PartitionsLost:
            self._log.warning("partitions_lost", partitions=sorted(after))
            self._folding.retract(consents, versions)
            self._next.clear()
            return
        self._next |= after
        self._done |= {p: max(offset, self._done[p]) for p, offset in after.items()}
        self._following.wrote(after)

    def _decode(self, records: Sequence[Record]) -> list[Met]:
        """What the records say. Acts that are replayed are in the histories already: only a list is awaited."""
        batch = []
        for record in records:
            new, versions = record.offset >= self._done[record.partition], self._following.needing(record)
            try:
                said = decode(record.value)
            except InvalidRecord as error:
                self._metrics.undecodable.inc()
                where = {"partition": record.partition, "offset": record.offset}
                self._log.warning("record_passed_over", reason=str(error), **where)
                continue
            if new or not isinstance(said, AcceptedEvent):
                batch.append(Met(said, new, versions))
            elif self._folding.enters_history(said):
                self._metrics.events.labels("replayed").inc()
                self._following.await_list(said.user_id, record.partition, versions)
        return batch

    def _refresh(self) -> int:
        """Write some of the live lists that are awaited; returns how many."""
        if (awaited := self._following.awaited(REFRESHED_AT_ONCE)) is None:
            return 0
        published, people = awaited
        self._folding.refresh(published, people)
        self._following.came(published, people)
        return len(people)

    def _look(self) -> tuple[Mapping[bytes, bytes], int]:
        """Look at the versions, and at what is complete; returns that, and the number of people restored."""
        current, coming = cast("list[bytes | None]", self._store.mget(CURRENT, NEXT))
        complete = cast("dict[bytes, bytes]", self._store.hgetall(COMPLETE))
        self._following.follow(current, coming, self._done)
        self._go_back({p: start for p in self._next if (start := self._start(p)) < self._next[p]})
        return self._rebuilding.step(complete)

    def _read_again(self, complete: Mapping[bytes, bytes], records: list[Record]) -> list[Record]:
        """Take partitions back to where a lost store was rebuilt to, for whoever will own them."""
        missing = {partition for partition in self._next if b"%d" % partition not in complete}
        if not missing:
            return records
        ends, watermark = self._event_log.end_offsets(), watermark_of(complete)
        # Where it ends before what was done, the log was lost too, and its offsets have begun anew.
        again = {p: 0 for p in missing if ends.get(p, 0) < self._done[p]}
        if watermark is not None:
            again = {p: again.get(p, min(self._done[p], watermark.get(p, 0))) for p in missing}
        for partition, offset in again.items():
            if self._begin_again(partition, offset) and watermark is not None:
                self._store.hset(COMPLETE, str(partition), "1")
        return [record for record in records if record.partition not in again]

    def _begin_again(self, partition: int, offset: int) -> bool:
        """Whether it is still ours, so that its records from the offset on come again."""
        try:
            self._consumer.seek(partition, offset)
            self._consumer.commit({partition: offset})
        except PartitionsLost:
            self._next.pop(partition)
            return False
        self._next[partition] = self._done[partition] = offset
        self._following.begin(partition, offset)
        self._go_back({partition: self._start(partition)})
        return True

    def _begin_partitions(self, records: list[Record]) -> list[Record]:
        """Note the partitions that are newly ours; replay them from the watermark where that is further back."""
        ours = self._consumer.assigned()
        self._next = {p: offset for p, offset in self._next.items() if p in ours}
        if self._done.keys() - self._next.keys():
            self._done = {p: offset for p, offset in self._done.items() if p in self._next}
            self._following.keep(self._next)
        for partition in ours - self._next.keys():
            self._next[partition] = self._done[partition] = self._position(partition, records)
            self._following.begin(partition, self._done[partition])
            if self._start(partition) < self._next[partition]:
                self._go_back({partition: self._start(partition)})
                records = [record for record in records if record.partition != partition]
        return records

    def _position(self, partition: int, records: Sequence[Record]) -> int:
        """Where the group stood when the partition became ours."""
        for record in records:
            if record.partition == partition:
                return record.offset
        return self._consumer.position(partition)

    def _start(self, partition: int) -> int:
        """Offset from which the versions' lists need the log."""
        return self._following.position(partition, self._done[partition])

    def _go_back(self, offsets: dict[int, int]) -> None:
        for partition, offset in offsets.items():
            try:
                self._consumer.seek(partition, offset)
            except PartitionsLost:
                self._next.pop(partition, None)
            else:
                self._next |= {partition: offset} if partition in self._next else {}

    def _tell(self, *, again: bool) -> None:
        self._following.tell(self._done, at_end=self._quiet >= QUIET_POLLS, again=again)

    def _look_now_and_then(self) -> None:
        """Say that we live and what lies before us, and sweep histories whose time has come."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_SECONDS
            self._metrics.lag.show(self._lag())
            self._partitions = self._partitions or len(self._event_log.end_offsets())
            self._store.set(ALIVE, self._partitions, ex=ALIVE_SECONDS)
            self._tell(again=True)
            self._histories.sweep()

    def _lag(self) -> dict[int, int]:
        """partition → records that the group has not folded yet; what is replayed for a version's lists is none."""
        replayed = {p: self._done[p] - offset for p, offset in self._next.items()}
        return {p: max(0, records - replayed.get(p, 0)) for p, records in self._consumer.lag().items()}
