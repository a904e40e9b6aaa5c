"""What is sent, checked, let through the consent gate or not, and appended: one verdict each.

What is refused leaves nothing behind: it is counted by verdict, and that is all.
"""

import math
from collections import Counter as Tally
from collections.abc import Container, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import prometheus_client as prometheus
from pydantic import TypeAdapter, ValidationError

from infra.event_log.port import EventLog, EventLogUnavailable, Guard, GuardChanged
from ingest.events import (
    MAX_BATCH,
    MAX_ID_BYTES,
    PERSONALIZATION,
    ConsentUnavailable,
    Domain,
    Event,
    Item,
    describe,
    encode,
    encode_accepted,
    key,
    now,
)
from ingest.gate import Gate, Passage
from ingest.group_commit import GroupCommit

ACCEPTED: Final = "accepted"
INVALID_EVENT: Final = "invalid_event"
UNKNOWN_TYPE: Final = "unknown_type"
TOO_OLD: Final = "too_old"
IN_THE_FUTURE: Final = "in_the_future"
CONSENT_MISSING: Final = "consent_missing"
INVALID_ITEM: Final = "invalid_item"
ITEM_FLOODED: Final = "item_flooded"

NOT_ALLOWED = "the person has not allowed personalization"
FLOODED = "too many of this key's events of this minute are about this item"
OPTED_OUT = "the request carries Sec-GPC: 1, which counts as a refusal"
ATTEMPTS = 5
"""How often a batch is judged, where what its people allow changes between gate and log."""
TURN_SECONDS = 1.4
"""For so long a batch waits for those before it and for its own end; an outage is answered no later."""

_EVENTS = TypeAdapter(list[Event])
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Verdict(NamedTuple):
    """What became of one event or item of a batch.

    Attributes:
        id: its event_id or item_id, where it had a usable one.
        code: `accepted`, or why not.
        detail: for people; empty when accepted.
    """

    id: str | None
    code: str
    detail: str = ""


class _Metrics:
    def __init__(self, registry: prometheus.CollectorRegistry) -> None:
        def seconds(name: str, text: str) -> prometheus.Histogram:
            return prometheus.Histogram(name, text, registry=registry, buckets=_BUCKETS)

        self._events = prometheus.Counter("marquee_events", "Events received.", ["verdict"], registry=registry)
        self._items = prometheus.Counter("marquee_items", "Items received.", ["verdict"], registry=registry)
        self.gate = seconds("marquee_gate_seconds", "Time that the consent gate took for a batch.")
        self.append = seconds("marquee_append_seconds", "Time that the event log took for a batch.")

    def count_events(self, verdicts: Sequence[Verdict]) -> None:
        self._count(self._events, verdicts)

    def count_items(self, verdicts: Sequence[Verdict]) -> None:
        self._count(self._items, verdicts)

    def _count(self, counter: prometheus.Counter, verdicts: Sequence[Verdict]) -> None:
        for code, times in Tally(verdict.code for verdict in verdicts).items():
            counter.labels(code).inc(times)


class Collector:
    """Takes batches of events and items. Safe to share between threads.

    Args:
        domain: which types of events there are, and what items may carry.
        gate: knows what people allow.
        log: where the accepted go.
        passage: lets withdrawals wait for the batches that are through the gate.
        registry: takes the metrics.
    """

    def __init__(
        self,
        domain: Domain,
        gate: Gate,
        log: EventLog,
        passage: Passage,
        registry: prometheus.CollectorRegistry,
    ) -> None:
        self._domain = domain
        self._gate = gate
        self._log = log
        self._passage = passage
        self._commit = GroupCommit(self._let_all_through, MAX_BATCH, len)
        self._metrics = _Metrics(registry)

    def collect(
        self, batch: Sequence[Any], opted_out: bool = False, flooded: Container[str] = frozenset[str]()
    ) -> list[Verdict]:
        """Append the events that are valid and that their people allow; they are durable when this returns.

        What several threads bring at the same time is judged and appended together.

        Args:
            batch: events as they were sent, decoded from JSON.
            opted_out: whoever sends them refuses, whatever is on record: nobody is asked about.
            flooded: items about which nothing more is taken now.

        Returns:
            One verdict an event, in order.

        Raises:
            ConsentUnavailable: nobody can tell what is allowed, so nothing was taken.
            EventLogUnavailable: the accepted may or may not stand in the log: send the batch again, with the same ids.
        """
        checked = [_unless_flooded(each, flooded) for each in self._check(batch)] if flooded else self._check(batch)
        events = [event for event in checked if isinstance(event, Event)]
        allowed = self._let_through(events) if events and not opted_out else frozenset[str]()
        refusal = OPTED_OUT if opted_out else NOT_ALLOWED
        verdicts = [_verdict(outcome, allowed, refusal) for outcome in checked]
        self._metrics.count_events(verdicts)
        return verdicts

    def register_items(self, batch: Sequence[Any]) -> list[Verdict]:
        """Append items: what each says holds from here on.

        Args:
            batch: items as they were sent, decoded from JSON.

        Returns:
            One verdict an item, in order.

        Raises:
            EventLogUnavailable: send the batch again.
        """
        checked = [self._check_item(raw) for raw in batch]
        self._append([(key(item), encode(item)) for item in checked if isinstance(item, Item)])
        verdicts = [Verdict(item.item_id, ACCEPTED) if isinstance(item, Item) else item for item in checked]
        self._metrics.count_items(verdicts)
        return verdicts

    def close(self) -> None:
        """Finish what is under way, and take no more."""
        self._commit.close()

    def _check(self, batch: Sequence[Any]) -> list[Event | Verdict]:
        """All of them at once, which takes less than one by one: only a batch with an invalid one is parted."""
        try:
            parsed: list[Event | Verdict] = list(_EVENTS.validate_python(batch))
        except ValidationError:
            parsed = [_parse(raw) for raw in batch]
        latest = now() + timedelta(seconds=self._domain.events.future_tolerance_seconds)
        return [self._by_the_rules(each, latest) if isinstance(each, Event) else each for each in parsed]

    def _by_the_rules(self, event: Event, latest: datetime) -> Event | Verdict:
        rules = self._domain.events
        if event.type not in rules.types:
            return Verdict(event.event_id, UNKNOWN_TYPE, f"known types: {', '.join(rules.types)}")
        if event.occurred_at < rules.oldest:
            return Verdict(event.event_id, TOO_OLD, f"occurred_at is before {rules.oldest.isoformat()}")
        if event.occurred_at > latest:
            return Verdict(event.event_id, IN_THE_FUTURE, "occurred_at is ahead of the platform's clock")
        return event

    def _let_through(self, events: Sequence[Event]) -> frozenset[str]:
        """Ids of the people whose events were appended."""
        try:
            return self._commit(events, timeout=TURN_SECONDS)
        except TimeoutError:
            raise EventLogUnavailable("what came before takes too long") from None

    def _let_all_through(self, batches: Sequence[Sequence[Event]]) -> Sequence[frozenset[str]]:
        events = [event for batch in batches for event in batch]
        for _ in range(ATTEMPTS):
            with self._passage.through(), suppress(GuardChanged):
                return [self._judge_and_append(events)] * len(batches)
        raise ConsentUnavailable("what these people allow changes without pause")

    def _judge_and_append(self, events: Sequence[Event]) -> frozenset[str]:
        with self._metrics.gate.time():
            consents, guard = self._gate.judge([event.user_id for event in events], PERSONALIZATION)
        receipts = {person: each.granted for person, each in consents.items() if each.allows(PERSONALIZATION)}
        accepted_at = now()
        self._append(
            [
                (event.user_id.encode(), encode_accepted(event, receipts[event.user_id], accepted_at))
                for event in events
                if event.user_id in receipts
            ],
            guard,
        )
        return frozenset(receipts)

    def _check_item(self, raw: Any) -> Item | Verdict:
        try:
            item = Item.model_validate(raw)
        except ValidationError as error:
            return Verdict(_usable_id(raw, "item_id"), INVALID_ITEM, describe(error))
        for name, value in raw.get("attributes", {}).items():
            kind = self._domain.items.attributes.get(name)
            if kind is None:
                known = ", ".join(self._domain.items.attributes)
                return Verdict(item.item_id, INVALID_ITEM, f"attributes.{name[:64]}: unknown; known are {known}")
            if not _is_of_kind(value, kind):
                return Verdict(item.item_id, INVALID_ITEM, f"attributes.{name}: has to be of kind {kind}")
        return item

    def _append(self, records: Sequence[tuple[bytes, bytes]], guard: Guard | None = None) -> None:
        if records:
            with self._metrics.append.time():
                self._log.append(records, guard)


def _unless_flooded(outcome: Event | Verdict, flooded: Container[str]) -> Event | Verdict:
    if isinstance(outcome, Event) and outcome.item_id in flooded:
        return Verdict(outcome.event_id, ITEM_FLOODED, FLOODED)
    return outcome


def _parse(raw: Any) -> Event | Verdict:
    try:
        return Event.model_validate(raw)
    except ValidationError as error:
        return Verdict(_usable_id(raw, "event_id"), INVALID_EVENT, describe(error))


def _verdict(outcome: Event | Verdict, allowed: frozenset[str], refusal: str) -> Verdict:
    if isinstance(outcome, Verdict):
        return outcome
    if outcome.user_id in allowed:
        return Verdict(outcome.event_id, ACCEPTED)
    return Verdict(outcome.event_id, CONSENT_MISSING, refusal)


def _usable_id(raw: Any, name: str) -> str | None:
    value = raw.get(name) if isinstance(raw, dict) else None
    return value if isinstance(value, str) and len(value.encode(errors="replace")) <= MAX_ID_BYTES else None


def _is_of_kind(value: Any, kind: str) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "strings":
            return isinstance(value, list) and all(isinstance(each, str) for each in value)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "time":
            return isinstance(value, str) and _is_time(value)
        case _:
            return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_time(value: str) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False
