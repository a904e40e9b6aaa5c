"""Consent: what people allow, on record. Grants, withdrawals and erasures become receipts in a hash chain.

Each is done in this order, and answered only when all of it is done; whoever gets an error asks again:

1. the receipt in the ledger: the record;
2. the person's value in the projection: from here on the gate knows;
3. after a withdrawal or an erasure, the end of the batches that had passed the gate before;
4. the mark in the event log, behind everything that was collected under older receipts.
"""

import threading
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from infra.database import Counts, Entry, ErasureState, Ledger, Receipt
from infra.event_log.port import EventLog, Position
from infra.kept import Kept
from infra.online_store import OnlineStore
from ingest.chain import seal_with
from ingest.events import (
    PERSONALIZATION,
    Consent,
    ConsentMark,
    ConsentUnavailable,
    ErasureMark,
    LogRecord,
    encode,
    key,
    now,
    subject,
)
from ingest.gate import Passage
from ingest.group_commit import GroupCommit
from ingest.projection import ProjectionWriter, fold

GRANT, WITHDRAW, ERASE = "grant", "withdraw", "erase"
COUNTED_SECONDS = 10.0


class _Statement(NamedTuple):
    """What one person says at once: its receipts are neighbours in the chain."""

    user_id: str
    entries: tuple[Entry, ...]


class Consents:
    """Gives, withdraws and erases; keeps ledger, projection and log in step. Safe to share between threads.

    Args:
        ledger: the record.
        store: where the projection is.
        log: takes the marks.
        secret: key of pseudonyms and of the chain.
        passage: the way of the batches that the collector lets through the gate.
    """

    def __init__(self, ledger: Ledger, store: OnlineStore, log: EventLog, secret: str, passage: Passage) -> None:
        self._ledger = ledger
        self._projection = ProjectionWriter(ledger, store)
        self._log = log
        self._secret = secret
        self._seal = seal_with(secret)
        self._passage = passage
        self._commit = GroupCommit(self._commit_all)
        self._erasing = threading.Lock()
        self._counts = Kept(ledger.counts, COUNTED_SECONDS)

    def grant(self, user_id: str, purposes: Sequence[str], policy_version: str, source: str) -> Receipt:
        """The person allows `purposes` from here on, and nothing else.

        Where personalization is not among them, it is withdrawn first, so that what was collected for it goes.

        Raises:
            LedgerUnavailable, ConsentUnavailable, EventLogUnavailable: ask again; asking twice does no harm.
        """
        actions = [(GRANT, tuple(sorted(set(purposes))))]
        if PERSONALIZATION not in purposes:
            actions.insert(0, (WITHDRAW, ()))
        return self._commit(self._statement(user_id, actions, policy_version, source))

    def withdraw(self, user_id: str, policy_version: str, source: str) -> Receipt:
        """The person allows nothing from here on, and what was collected goes.

        Raises:
            LedgerUnavailable, ConsentUnavailable, EventLogUnavailable: ask again. It may hold already.
        """
        return self._commit(self._statement(user_id, [(WITHDRAW, ())], policy_version, source))

    def erase(self, user_id: str, policy_version: str, source: str) -> str:
        """Forget this person. One erasure stays open until every stage has signed it; asking again finds it.

        Returns:
            The erasure's id.

        Raises:
            LedgerUnavailable, ConsentUnavailable, EventLogUnavailable: ask again. Nothing is collected any more.
        """
        person = subject(user_id, self._secret)
        with self._erasing:
            open_one = self._ledger.open_erasure_of(person)
            if open_one is not None and open_one.mark is not None:
                return open_one.erasure_id
            receipt = self._commit(self._statement(user_id, [(ERASE, ())], policy_version, source))
            erasure_id = self._ledger.open_erasure(person, receipt.number, receipt.at)
            self._projection.tell_erasures()
            mark = ErasureMark(user_id=user_id, receipt=receipt.number, erasure_id=erasure_id, at=receipt.at)
            [position] = self._append([mark])
            self._ledger.set_mark(erasure_id, *position)
        return erasure_id

    def erasure(self, erasure_id: str, user_id: str | None = None) -> ErasureState | None:
        """How far an erasure has come; None when there is none of that id, or it is not that of `user_id`.

        Raises:
            LedgerUnavailable: the ledger does not answer.
        """
        return self._ledger.erasure(erasure_id, None if user_id is None else subject(user_id, self._secret))

    def current(self, user_id: str) -> tuple[Consent, list[Receipt]]:
        """What the person allows now, by the record, and every receipt of that person.

        Raises:
            LedgerUnavailable: the ledger does not answer.
        """
        receipts = self._ledger.receipts_of(subject(user_id, self._secret))
        return fold(receipts), receipts

    def counts(self) -> Counts:
        """How many people allow what, and are being erased; a few seconds old.

        Raises:
            LedgerUnavailable: the ledger does not answer.
        """
        return self._counts()

    def rebuild(self) -> int:
        """Bring the projection up to the ledger: see `ProjectionWriter.catch_up` and `tell_erasures`."""
        caught_up = self._projection.catch_up()
        self._projection.tell_erasures()
        return caught_up

    def close(self) -> None:
        """Finish what is under way, and take no more."""
        self._commit.close()

    def _statement(
        self, user_id: str, actions: Sequence[tuple[str, tuple[str, ...]]], policy_version: str, source: str
    ) -> _Statement:
        person, at = subject(user_id, self._secret), now()
        entries = (Entry(person, action, purposes, policy_version, source, at) for action, purposes in actions)
        return _Statement(user_id, tuple(entries))

    def _commit_all(self, statements: Sequence[_Statement]) -> list[Receipt]:
        entries = [entry for statement in statements for entry in statement.entries]
        receipts = self._ledger.append_receipts(entries, self._seal)
        self._projection.apply(receipts)
        if any(receipt.action != GRANT for receipt in receipts) and not self._passage.wait_out():
            raise ConsentUnavailable("batches that were under way did not end in time")
        people = [statement.user_id for statement in statements for _ in statement.entries]
        marks = [
            ConsentMark(user_id=user_id, receipt=receipt.number, purposes=receipt.purposes, at=receipt.at)
            for user_id, receipt in zip(people, receipts, strict=True)
            if receipt.action != ERASE
        ]
        self._append(marks)
        ends = accumulate(len(statement.entries) for statement in statements)
        return [receipts[end - 1] for end in ends]

    def _append(self, marks: Sequence[LogRecord]) -> list[Position]:
        return self._log.append([(key(mark), encode(mark)) for mark in marks]) if marks else []
