"""The consent ledger's store: receipts that are only ever appended, and the state of erasures. SQLite or PostgreSQL.

It knows people by their pseudonym only. What a receipt's hash is made of is the domain's business (`ingest.chain`);
that receipts are numbered 1, 2, 3 … without a gap and each is sealed upon the one before is kept here, by one lock.
"""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sql

from infra.database_tables import ADDED, ERASURES, HEAD, RECEIPTS, STEPS, TABLES, engine
from infra.transport import reason

PAGE = 1000
CREATE_LOCK = 0x6D6171
"""Number of PostgreSQL's advisory lock under which the tables are made: any, so long as it is always the same."""


class LedgerUnavailable(Exception):
    """The ledger does not answer, or its store refuses: nothing was recorded for sure. Try again."""


class Entry(NamedTuple):
    """What is to be recorded.

    Attributes:
        subject: the person's pseudonym.
        action: "grant", "withdraw" or "erase".
        purposes: what is allowed from here on.
        policy_version: of the text the person was shown.
        source: where it was said, e.g. "settings page".
        at: when.
    """

    subject: str
    action: str
    purposes: tuple[str, ...]
    policy_version: str
    source: str
    at: datetime


class Receipt(NamedTuple):
    """An entry as it was recorded: numbered from 1, and sealed upon the hash of the receipt before it."""

    number: int
    subject: str
    action: str
    purposes: tuple[str, ...]
    policy_version: str
    source: str
    at: datetime
    previous: str
    hash: str


Seal = Callable[[Receipt], str]
"""A receipt whose hash is still empty → its hash."""


class Head(NamedTuple):
    """The end of the chain: number and hash of the last receipt, and the seal of that; 0 and "" of an empty ledger."""

    number: int
    hash: str
    seal: str = ""


def head_seal(last: Receipt, seal: Seal) -> str:
    """What says that the chain ends here: the last receipt, sealed upon itself. No receipt ever gets this hash."""
    return seal(last._replace(previous=last.hash, hash=""))


class Step(NamedTuple):
    """A stage's signature under an erasure.

    Attributes:
        removed: how many things it removed; None: it cannot remove them, they end by retention.
        at: when.
        remains_until: when what it could not remove is gone; None also where that is never.
    """

    removed: int | None
    at: datetime
    remains_until: datetime | None = None


class ErasureState(NamedTuple):
    """How far an erasure has come.

    Attributes:
        mark: partition and offset of the erasure's mark in the event log; None while it is not there.
        steps: stage → its signature.
    """

    erasure_id: str
    opened_at: datetime
    completed_at: datetime | None
    mark: tuple[int, int] | None
    steps: Mapping[str, Step]


class Counts(NamedTuple):
    """How many people there are in the ledger.

    Attributes:
        allowing: purposes that are allowed now → people; of none: who have withdrawn or were erased.
        erasing: whose erasure is open.
        erased: whose erasures are all complete.
    """

    allowing: Mapping[tuple[str, ...], int]
    erasing: int
    erased: int


class Ledger:
    """The ledger's store. Safe to share between threads; several processes may write at once.

    Args:
        url: sqlite:///file or postgresql+psycopg://…; a connection is made on first use.
    """

    def __init__(self, url: str) -> None:
        self._engine = engine(url)
        self._writes = self._engine.execution_options(writes=True)

    def create_tables(self) -> None:
        """Make the tables that are missing. Safe to call from several processes at once.

        Raises:
            LedgerUnavailable: the database does not answer or does not let us.
        """
        with _answering(), self._writes.begin() as connection:
            if self._engine.dialect.name == "postgresql":
                connection.execute(sql.select(sql.func.pg_advisory_xact_lock(CREATE_LOCK)))
            TABLES.create_all(connection)
            for (table, name), kind in ADDED.items():
                if name not in {column["name"] for column in sql.inspect(connection).get_columns(table.name)}:
                    connection.execute(sql.text(f"ALTER TABLE {table.name} ADD COLUMN {name} {kind}"))
            if connection.execute(sql.select(HEAD)).first() is None:
                connection.execute(sql.insert(HEAD).values(id=1, number=0, hash=""))

    # --- receipts ----------------------------------------------------------------------------------------------------

    def append_receipts(self, entries: Sequence[Entry], seal: Seal) -> list[Receipt]:
        """Append entries in one transaction; when this returns, they are on disk.

        Raises:
            LedgerUnavailable: none of them may be relied on, though all may have been recorded.
        """
        with self._writing() as (connection, head):
            receipts: list[Receipt] = []
            for number, entry in enumerate(entries, head.number + 1):
                draft = Receipt(number, *entry, previous=receipts[-1].hash if receipts else head.hash, hash="")
                receipts.append(draft._replace(hash=seal(draft)))
            if receipts:
                connection.execute(sql.insert(RECEIPTS), [receipt._asdict() for receipt in receipts])
                end = Head(receipts[-1].number, receipts[-1].hash, head_seal(receipts[-1], seal))
                connection.execute(sql.update(HEAD).values(end._asdict()))
        return receipts

    def receipts_after(self, number: int, page: int = PAGE) -> Iterator[Receipt]:
        """The receipts above `number`, in order, read so many at a time.

        Raises:
            LedgerUnavailable: the ledger does not answer.
            ValueError, TypeError: a stored receipt cannot be read: it was altered.
        """
        last = number
        while receipts := self._receipts(RECEIPTS.c.number > last, page):
            yield from receipts
            last = receipts[-1].number

    def receipts_of(self, subject: str) -> list[Receipt]:
        """Every receipt of a person, in order.

        Raises:
            LedgerUnavailable: the ledger does not answer.
        """
        return self._receipts(RECEIPTS.c.subject == subject)

    def head(self) -> Head:
        """The end of the chain.

        Raises:
            LedgerUnavailable: the ledger does not answer.
        """
        with self._reading() as connection:
            return Head(*connection.execute(sql.select(HEAD.c.number, HEAD.c.hash, HEAD.c.seal)).one())

    # --- erasures ----------------------------------------------------------------------------------------------------

    def open_erasure(self, subject: str, receipt: int, at: datetime) -> str:
        """Id of the person's open erasure (see `open_erasure_of`), else of a new one.

        Raises:
            LedgerUnavailable: the ledger does not answer.
        """
        with self._writing() as (connection, _):
            found = connection.execute(sql.select(ERASURES.c.erasure_id).where(_still_open(subject))).scalars().first()
            if found is not None:
                return str(found)
            erasure_id = uuid.uuid4().hex
            new = {"erasure_id": erasure_id, "subject": subject, "receipt": receipt, "opened_at": at}
            connection.execute(sql.insert(ERASURES).values(new))
            return erasure_id

    def open_erasure_of(self, subject: str) -> ErasureState | None:
        """The person's erasure that is not complete, unless consent was given since it was opened.

        Raises:
            LedgerUnavailable: the ledger does not answer.
        """
        return next(iter(self._erasures(_still_open(subject))), None)

    def set_mark(self, erasure_id: str, partition: int, offset: int) -> None:
        """Remember where the erasure's mark stands in the event log; of several the last.

        Raises:
            LedgerUnavailable: the ledger does not answer.
        """
        later = sql.or_(ERASURES.c.mark_offset.is_(None), ERASURES.c.mark_offset < offset)
        self._update_erasure(erasure_id, later, mark_partition=partition, mark_offset=offset)

    def sign_step(self, erasure_id: str, stage: str, step: Step) -> None:
        """Put a stage's signature under an erasure; the first one counts. Unknown erasures are passed over.

        Raises:
            LedgerUnavailable: the ledger does not answer.
        """
        ours = sql.and_(STEPS.c.erasure_id == erasure_id, STEPS.c.stage == stage)
        with self._writing() as (connection, _):
            known = connection.execute(sql.select(ERASURES).where(ERASURES.c.erasure_id == erasure_id)).first()
            if known and connection.execute(sql.select(STEPS).where(ours)).first() is None:
                connection.execute(sql.insert(STEPS).values(erasure_id=erasure_id, stage=stage, **step._asdict()))

    def complete_erasure(self, erasure_id: str, at: datetime) -> None:
        """Close an erasure; the first time counts.

        Raises:
            LedgerUnavailable: the ledger does not answer.
        """
        self._update_erasure(erasure_id, ERASURES.c.completed_at.is_(None), completed_at=at)

    def erasure(self, erasure_id: str, subject: str | None = None) -> ErasureState | None:
        """How far an erasure has come; None when there is none of that id, or it is not that of `subject`.

        Raises:
            LedgerUnavailable: the ledger does not answer.
        """
        theirs = sql.true() if subject is None else ERASURES.c.subject == subject
        return next(iter(self._erasures(sql.and_(ERASURES.c.erasure_id == erasure_id, theirs))), None)

    def open_erasures(self) -> list[ErasureState]:
        """The erasures that are not complete, oldest first.

        Raises:
            LedgerUnavailable: the ledger does not answer.
        """
        return self._erasures(ERASURES.c.completed_at.is_(None))

    def erasures_without(self, stage: str) -> tuple[int, dict[str, int]]:
        """The number of the last receipt that opened an erasure (0: none did), and those that the stage has not signed.

        Returns:
            That number, and erasure_id → number of its receipt.

        Raises:
            LedgerUnavailable: the ledger does not answer.
        """
        signed = sql.exists().where(STEPS.c.erasure_id == ERASURES.c.erasure_id, STEPS.c.stage == stage)
        with self._reading() as connection:
            last = connection.execute(sql.select(sql.func.max(ERASURES.c.receipt))).scalar()
            found = connection.execute(sql.select(ERASURES.c.erasure_id, ERASURES.c.receipt).where(~signed)).all()
        return last or 0, {row.erasure_id: row.receipt for row in found}

    # --- people ------------------------------------------------------------------------------------------------------

    def counts(self) -> Counts:
        """Count the people, by the last receipt of each. It reads all receipts: not for every request.

        Raises:
            LedgerUnavailable: the ledger does not answer.
        """
        last = sql.select(sql.func.max(RECEIPTS.c.number).label("number")).group_by(RECEIPTS.c.subject).subquery()
        said = sql.cast(RECEIPTS.c.purposes, sql.Text)  # PostgreSQL cannot group by JSON.
        allowing = sql.select(said, sql.func.count()).join(last, last.c.number == RECEIPTS.c.number).group_by(said)
        people = sql.select(sql.func.count(sql.distinct(ERASURES.c.subject)))
        with self._reading() as connection:
            by_purposes = {tuple(json.loads(text)): number for text, number in connection.execute(allowing)}
            erasing = connection.execute(people.where(ERASURES.c.completed_at.is_(None))).scalar_one()
            return Counts(by_purposes, erasing, connection.execute(people).scalar_one() - erasing)

    def close(self) -> None:
        """Give back connections."""
        self._engine.dispose()

    # --- how ---------------------------------------------------------------------------------------------------------

    def _receipts(self, where: sql.ColumnElement[bool], limit: int | None = None) -> list[Receipt]:
        query = sql.select(RECEIPTS).where(where).order_by(RECEIPTS.c.number).limit(limit)
        with self._reading() as connection:
            return [Receipt(*row)._replace(purposes=tuple(row.purposes)) for row in connection.execute(query)]

    def _update_erasure(self, erasure_id: str, *where: sql.ColumnElement[bool], **values: Any) -> None:
        with self._writing() as (connection, _):
            connection.execute(sql.update(ERASURES).where(ERASURES.c.erasure_id == erasure_id, *where).values(values))

    def _erasures(self, where: sql.ColumnElement[bool]) -> list[ErasureState]:
        with self._reading() as connection:
            rows = connection.execute(sql.select(ERASURES).where(where).order_by(ERASURES.c.opened_at)).all()
            steps = connection.execute(sql.select(STEPS).join(ERASURES).where(where)).all()
        signed: dict[str, dict[str, Step]] = {row.erasure_id: {} for row in rows}
        for step in steps:
            signed.setdefault(step.erasure_id, {})[step.stage] = Step(step.removed, step.at, step.remains_until)
        return [
            ErasureState(
                row.erasure_id,
                row.opened_at,
                row.completed_at,
                None if row.mark_offset is None else (row.mark_partition, row.mark_offset),
                signed[row.erasure_id],
            )
            for row in rows
        ]

    @contextmanager
    def _reading(self) -> Iterator[sql.Connection]:
        with _answering(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[tuple[sql.Connection, Head]]:
        """One writer at a time: SQLite locks the file (BEGIN IMMEDIATE), PostgreSQL the row of the chain's head."""
        with _answering(), self._writes.begin() as connection:
            head = connection.execute(sql.select(HEAD.c.number, HEAD.c.hash).with_for_update()).one()
            yield connection, Head(*head)


def _still_open(subject: str) -> sql.ColumnElement[bool]:
    granted_since = sql.exists().where(
        RECEIPTS.c.subject == subject, RECEIPTS.c.action == "grant", RECEIPTS.c.number > ERASURES.c.receipt
    )
    return sql.and_(ERASURES.c.subject == subject, ERASURES.c.completed_at.is_(None), ~granted_since)


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except sql.exc.SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise LedgerUnavailable(f"the ledger does not answer: {reason(cause)}") from error
