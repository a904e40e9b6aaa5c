"""What a restored store brings back is forgotten again.

An erasure's mark leaves the embedded log when it is complete, so a lake, a Redis or a log that is put back to an
earlier day does not meet it again. The ledger knows who said no, though by pseudonym only. So whoever is found in a
store is looked up there. In the lake, what is not covered is deleted on the spot. Who is in the online store or the log
withdraws or is erased once more, on the road that every stage knows; it is on record, with `found again` as its source.

Nobody is touched of whom the ledger has no word: with another secret, everybody would be a stranger.
"""

import re
import threading
import uuid
from collections.abc import Collection, Iterable, Iterator
from itertools import islice

import polars as pl
import structlog

from infra.database import LedgerUnavailable
from infra.event_log.port import EventLog, EventLogError, Position
from infra.lake import DEAD_LETTERS, EVENTS, Lake, LakeEmpty, LakeError, LakeTable
from infra.online_store import OnlineStore, OnlineStoreError
from ingest.consent import ERASE, GRANT, WITHDRAW, Consents
from ingest.events import PERSONALIZATION, Consent, ConsentProjection, ConsentUnavailable

SOURCE = "found again"
AT_ONCE = 1000
AFTER_SECONDS = 30.0
EVERY_SECONDS = 3600.0
PATTERNS = ("{histories}:of:*", "list:*", "live:*")
NAMED = re.compile(r"\{histories\}:of:(?P<history>.*)|(?:list|live):\d+:\{(?P<list>.*)\}", re.DOTALL)
"""Keys of the online store that name a person, as `training.bundle` has them."""
HISTORIES = "{histories}:written"
"""Its set of those who have a history."""


class Reconciliation:
    """Compares who is in the stores with what they allow.

    Args:
        lake: what was collected.
        store: the online store.
        log: the event log.
        projection: what people allow, as far as Redis knows.
        consents: what they allow, on record; withdraws and erases again.
    """

    def __init__(
        self, lake: Lake, store: OnlineStore, log: EventLog, projection: ConsentProjection, consents: Consents
    ) -> None:
        self._lake = lake
        self._store = store
        self._log = log
        self._projection = projection
        self._consents = consents

    def keep(self, stop: threading.Event) -> None:
        """Run soon after the start, when marks that waited have been met, and now and then, until `stop` is set."""
        wait = AFTER_SECONDS
        while not stop.wait(wait):
            try:
                self.run()
                wait = EVERY_SECONDS
            except (LakeError, EventLogError, LedgerUnavailable, ConsentUnavailable, *OnlineStoreError) as error:
                structlog.get_logger(__name__).warning("not reconciled", error=type(error).__name__)
                wait = AFTER_SECONDS

    def run(self) -> int:
        """Look through all stores once.

        Returns:
            Rows deleted, and people who withdraw or are erased again.

        Raises:
            Exception: what the stores raise. What was found is forgotten already; the rest by the next run.
        """
        deleted = self._clear_lake()
        # A log keeps the records of who withdrew, only not of who was erased.
        found = {person: {ERASE} for person in self._in_log()} | {p: {ERASE, WITHDRAW} for p in self._in_store()}
        again = [p for p, consent in self._consents_of(found) if _said_no(consent) and self._once_more(p, found[p])]
        if deleted or again:
            structlog.get_logger(__name__).warning("found again and forgotten", rows=deleted, people=len(again))
        return deleted + len(again)

    def _clear_lake(self) -> int:
        """Delete what no receipt covers any more, and take the bytes of all that was deleted out of the files."""
        oldest = self._oldest_receipts()
        revoked = {
            person: consent.revoked
            for person, consent in self._consents_of(oldest)
            if not consent.covers(oldest[person])
        }
        sent = self._dead_letters()
        letters = dict(sent[person] for person, consent in self._consents_of(sent) if _said_no(consent))
        deleted = self._lake.forget(EVENTS, revoked) + self._lake.forget_dead_letters(letters)
        self._lake.purge()  # Even of nothing: whoever deleted may have been killed before this.
        return deleted

    def _oldest_receipts(self) -> dict[str, int]:
        def read(table: LakeTable) -> pl.DataFrame:
            parts = table.batches([pl.col("user_id"), pl.col("receipt")])
            smallest = [part.group_by("user_id").agg(pl.col("receipt").min()) for part in parts]
            return pl.concat(smallest).group_by("user_id").agg(pl.col("receipt").min())

        try:
            return dict(self._lake.read(EVENTS, lambda table: read(table).rows() if len(table) else []))
        except LakeEmpty:
            return {}

    def _dead_letters(self) -> dict[str, tuple[bytes, Position]]:
        """Whoever sent any → the key, and the offset behind the last one."""
        try:
            rows = self._lake.snapshot(DEAD_LETTERS, ["key", "partition", "offset"]).rows
        except LakeEmpty:
            return {}
        last = rows.sort("offset").unique("key", keep="last").iter_rows()
        return {_text(key): (key, Position(partition, offset + 1)) for key, partition, offset in last}

    def _in_store(self) -> Iterator[str]:
        for pattern in PATTERNS:
            for key in self._store.scan_iter(pattern, count=AT_ONCE):
                if named := NAMED.fullmatch(_text(key)):
                    yield named["history"] if named["list"] is None else named["list"]
        for name, _ in self._store.zscan_iter(HISTORIES, count=AT_ONCE):
            yield _text(name)

    def _in_log(self) -> Iterator[str]:
        """Whose key the log has by now. One that cannot remove records is left to its retention."""
        if self._log.keeps_seconds() is not None:
            return
        left = {partition: end for partition, end in self._log.end_offsets().items() if end}
        consumer = self._log.consumer(f"reconciliation-{uuid.uuid4().hex}", start_at=lambda _: 0)
        try:
            while left and (records := consumer.poll(1.0)):
                yield from {_text(record.key) for record in records}
                for record in records:
                    if record.offset + 1 >= left.get(record.partition, 0):
                        left.pop(record.partition, None)
        finally:
            consumer.close()

    def _consents_of(self, people: Iterable[str]) -> Iterator[tuple[str, Consent]]:
        rest = iter(people)
        while some := list(islice(rest, AT_ONCE)):
            yield from self._projection.read(some).items()

    def _once_more(self, person: str, actions: Collection[str]) -> bool:
        """Where the last no was one of these. The projection may be as old as what was restored: the record decides."""
        consent, receipts = self._consents.current(person)
        last = next((receipt for receipt in reversed(receipts) if receipt.action != GRANT), None)
        if consent.allows(PERSONALIZATION) or last is None or last.action not in actions:
            return False
        again = self._consents.erase if last.action == ERASE else self._consents.withdraw
        again(person, last.policy_version, SOURCE)
        return True


def _text(key: bytes) -> str:
    return key.decode("utf-8", "replace")


def _said_no(consent: Consent) -> bool:
    return consent.revoked > 0 and not consent.allows(PERSONALIZATION)
