"""A batch of the log's records, sorted into what the lander does with each, and turned into rows of the lake."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson
import polars as pl

from infra.event_log.port import Position, Record
from infra.lake import DEAD_LETTERS, EVENTS, ITEMS, TABLES, Span
from ingest.events import (
    PERSONALIZATION,
    AcceptedEvent,
    Consent,
    ConsentMark,
    ErasureMark,
    ErasureStep,
    InvalidRecord,
    Item,
    Stage,
    decode,
    is_mark,
    now,
)

NOT_KEPT = "no record of ours; its bytes are not kept, since nobody is known under its key"


class DeadLetter(NamedTuple):
    """A record that cannot be landed, and why."""

    record: Record
    reason: str


@dataclass
class Batch:
    """Neighbouring records of the log, by what they are.

    Attributes:
        begins: partition → where its next record was due; unknown: at its first record.
        spans: partition → the run of records that the batch covers.
        marks: withdrawals and erasures.
        tallies: partition → what becomes of its records.
        steps: stages' signatures under erasures, by erasure and stage: a stage that was killed signs again.
    """

    begins: Mapping[int, int] = field(default_factory=dict)
    spans: dict[int, Span] = field(default_factory=dict)
    events: list[tuple[Position, AcceptedEvent]] = field(default_factory=list)
    items: list[tuple[Position, Item]] = field(default_factory=list)
    marks: list[tuple[Position, ConsentMark | ErasureMark]] = field(default_factory=list)
    steps: dict[tuple[str, Stage], ErasureStep] = field(default_factory=dict)
    dead: list[DeadLetter] = field(default_factory=list)
    tallies: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, records: Iterable[Record]) -> None:
        """Sort records in. Those at offsets that the batch has covered are passed over.

        A partition that left us and came back within one batch starts again at its fence.
        """
        for record in records:
            due = self.begins.get(record.partition, record.offset)
            span = self.spans.get(record.partition, Span(due, due))
            if record.offset >= span.end:
                self.spans[record.partition] = Span(span.start, record.offset + 1)
                self.tallies[record.partition]["gone"] += record.offset - span.end
                self._sort(record)

    def people(self) -> list[str]:
        """Everybody whose consent decides about something in the batch."""
        return [event.user_id for _, event in self.events] + [
            person for letter in self.dead if (person := _text(letter.record.key))
        ]

    def withdrawn(self) -> dict[str, int]:
        """user_id → the newest receipt by which that person withdraws, or is erased, in this batch."""
        newest: dict[str, int] = {}
        for _, mark in self.marks:
            newest[mark.user_id] = max(mark.receipt, newest.get(mark.user_id, 0))
        return newest

    def drop_uncovered(self, consents: Mapping[str, Consent]) -> int:
        """Take out what may not be kept: events under a receipt that is withdrawn, dead letters of such people.

        Of a dead letter whose key is nobody who ever said anything, only its place remains: whose it is cannot be told.

        Args:
            consents: of all `people`.

        Returns:
            The number of records taken out.
        """
        withdrawn = self.withdrawn()
        events = [
            (at, event)
            for at, event in self.events
            if consents[event.user_id].covers(event.receipt) and event.receipt >= withdrawn.get(event.user_id, 0)
        ]
        allowed = [each for each in self.dead if not _has_refused(consents.get(_text(each.record.key)))]
        dead = [_without_bytes(d) if _is_unknown(consents.get(_text(d.record.key))) else d for d in allowed]
        self._tally_dropped("events", [at.partition for at, _ in self.events], [at.partition for at, _ in events])
        self._tally_dropped("dead_letters", [d.record.partition for d in self.dead], [d.record.partition for d in dead])
        dropped = len(self.events) - len(events) + len(self.dead) - len(dead)
        self.events, self.dead = events, dead
        return dropped

    def _tally_dropped(self, what: str, before: Sequence[int], after: Sequence[int]) -> None:
        for partition, count in (Counter(before) - Counter(after)).items():
            self.tallies[partition][what] -= count
            self.tallies[partition]["dropped"] += count

    def _sort(self, record: Record) -> None:
        at = Position(record.partition, record.offset)
        tally = self.tallies[record.partition]
        try:
            read = decode(record.value)
        except InvalidRecord as error:
            tally["dead_letters"] += 1
            self.dead.append(DeadLetter(record, str(error)))
            return
        match read:
            case AcceptedEvent():
                tally["events"] += 1
                self.events.append((at, read))
            case Item():
                tally["items"] += 1
                self.items.append((at, read))
            case ErasureStep():
                tally["steps"] += 1
                self.steps.setdefault((read.erasure_id, read.stage), read)
            case _:
                tally["marks"] += 1
                self.marks += [(at, read)] if is_mark(read) else []


def event_rows(events: Sequence[tuple[Position, AcceptedEvent]]) -> pl.DataFrame:
    """Rows of the table `events`."""
    rows = [
        (e.event_id, e.type, e.user_id, e.item_id, e.recommendation_id, e.occurred_at, e.accepted_at, e.receipt, *at)
        for at, e in events
    ]
    schema = {name: kind for name, kind in TABLES[EVENTS].items() if name != "day"}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(day=pl.col("accepted_at").dt.date())


def item_rows(items: Sequence[tuple[Position, Item]], fences: Mapping[int, int]) -> pl.DataFrame:
    """Rows of the table `items`, without those below the table's fences."""
    rows = [
        (item.item_id, orjson.dumps(item.attributes).decode(), item.hidden, *at)
        for at, item in items
        if at.offset >= fences.get(at.partition, 0)
    ]
    return pl.DataFrame(rows, schema=dict(TABLES[ITEMS]), orient="row")


def dead_letter_rows(dead: Sequence[DeadLetter], fences: Mapping[int, int]) -> pl.DataFrame:
    """Rows of the table `dead_letters`, without those below the table's fences."""
    at = now()
    rows = [
        (record.partition, record.offset, reason, record.key, record.value, at)
        for record, reason in dead
        if record.offset >= fences.get(record.partition, 0)
    ]
    return pl.DataFrame(rows, schema=dict(TABLES[DEAD_LETTERS]), orient="row")


def above(spans: Mapping[int, Span], fences: Mapping[int, int]) -> dict[int, Span]:
    """What of the spans lies above the fences."""
    left = {p: Span(max(span.start, fences.get(p, 0)), span.end) for p, span in spans.items()}
    return {partition: span for partition, span in left.items() if span.start < span.end}


def _text(key: bytes) -> str:
    return key.decode("utf-8", "replace")


def _is_unknown(consent: Consent | None) -> bool:
    return consent is None or not (consent.granted or consent.revoked)


def _has_refused(consent: Consent | None) -> bool:
    return consent is not None and not _is_unknown(consent) and not consent.allows(PERSONALIZATION)


def _without_bytes(letter: DeadLetter) -> DeadLetter:
    """Reasons name fields, and a field's name is the sender's too."""
    return DeadLetter(letter.record._replace(key=b"", value=b""), NOT_KEPT)
