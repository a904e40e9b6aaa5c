"""What a batch of the log does: folds events into histories and live lists, forgets people, hides items.

All of it may be done twice, or again from further back, and ends the same.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import structlog

from infra.event_log.port import EventLog
from infra.online_store import OnlineStore
from ingest.events import (
    PERSONALIZATION,
    AcceptedEvent,
    Consent,
    ConsentMark,
    ConsentProjection,
    Domain,
    ErasureMark,
    ErasureStep,
    Item,
    LogRecord,
    encode,
    is_mark,
    key,
    now,
)
from serving.histories import Histories
from serving.metrics import NearlineMetrics
from serving.versions import Published
from training.bundle import EXPIRING, HIDDEN, History, Interaction, milliseconds

PEOPLE_AT_ONCE = 200
"""People of one call of the model: it makes a score for every item of each."""


class Met(NamedTuple):
    """A record as the group meets it.

    Attributes:
        record: what it says.
        new: False when it is replayed for the sake of a new version's lists.
        versions: those whose live lists do not know of it yet.
    """

    record: LogRecord
    new: bool
    versions: tuple[Published, ...] = ()


class Act(NamedTuple):
    """What somebody once did, as the lake tells it; `receipt` is the one that it was accepted under."""

    item_id: str
    interaction: Interaction
    receipt: int


class Folding:
    """Applies batches to the online store.

    Args:
        log: erasure steps are appended to it.
        store: the online store.
        histories: what is kept of people in it.
        projection: of the consents.
        domain: which events enter a history, what they weigh, and when an item leaves every list.
        list_length: of the live lists.
        metrics: where it is counted.
    """

    def __init__(
        self,
        *,
        log: EventLog,
        store: OnlineStore,
        histories: Histories,
        projection: ConsentProjection,
        domain: Domain,
        list_length: int,
        metrics: NearlineMetrics,
    ) -> None:
        self._event_log = log
        self._store = store
        self._histories = histories
        self._projection = projection
        self._weights = domain.history_weights
        self._history_length = domain.history.length
        self._available_until = domain.items.available_until
        self._list_length = list_length
        self._metrics = metrics
        self._log = structlog.get_logger()

    def apply(self, batch: Sequence[Met], versions: Collection[int]) -> Mapping[str, Consent]:
        """Do all that the batch asks for.

        Args:
            batch: in the log's order; no act that is in the histories already.
            versions: whose live lists are being written: they are forgotten with a person.

        Returns:
            The consents it relied on, for `retract`.

        Raises:
            ingest.events.ConsentUnavailable: nobody can tell what may be kept; nothing was written.
            infra.online_store.OnlineStoreError: the store did not take all of it: apply it again.
            infra.event_log.port.EventLogUnavailable: the log did not take the steps: apply it again.
        """
        events = [(met, met.record) for met in batch if isinstance(met.record, AcceptedEvent)]
        events = [(met, event) for met, event in events if event.type in self._weights]
        marks = [(record, met.new) for met in batch if (record := _mark(met.record))]
        people = [event.user_id for _, event in events] + [mark.user_id for mark, _ in marks]
        consents = self._projection.read(people) if people else {}
        removed = self._forget(marks, consents, versions)
        revoked = _revoked(marks)
        kept = [(m, e) for m, e in events if _may_keep(e.receipt, consents[e.user_id], revoked.get(e.user_id, 0))]
        self._metrics.events.labels("refused").inc(len(events) - len(kept))
        self._fold(kept)
        self.show_or_hide([met.record for met in batch if met.new and isinstance(met.record, Item)])
        self._sign([mark for mark, new in marks if new and isinstance(mark, ErasureMark)], removed)
        self._count(kept)
        return consents

    def enters_history(self, record: LogRecord) -> bool:
        """Whether this is an act that enters somebody's history."""
        return isinstance(record, AcceptedEvent) and record.type in self._weights

    def refresh(self, published: Published, people: Sequence[str]) -> None:
        """Write people's live lists of a version from the histories that they have, as far as they allow it.

        Raises: as `apply`.
        """
        consents = self._projection.read(people)
        self._write_live(published, self._histories.read([p for p in people if consents[p].allows(PERSONALIZATION)]))
        self.retract(consents, [published.version])

    def retract(self, consents: Mapping[str, Consent], versions: Collection[int]) -> None:
        """Delete what was written of people who took their consent back meanwhile.

        For a member that lost its partitions while it was writing: the next owner may have met the mark already.

        Args:
            consents: what was relied on.
            versions: whose live lists were written.
        """
        present = self._projection.read(list(consents))
        gone = [person for person, then in consents.items() if present[person].revoked > then.revoked]
        self._histories.forget(gone, versions)

    def restore(self, acts: Mapping[str, Sequence[Act]]) -> None:
        """Fold what people once did into their histories, as far as they allow it. Nobody's list changes.

        Who withdraws meanwhile is asked about twice, since the mark may be met before the history is written.

        Raises: as `apply`.
        """
        consents = self._projection.read(list(acts))
        kept = {
            person: [(act.item_id, act.interaction) for act in some if _may_keep(act.receipt, consents[person], 0)]
            for person, some in acts.items()
        }
        self._histories.add({person: some for person, some in kept.items() if some}, self._history_length)
        self.retract(consents, ())

    def show_or_hide(self, items: Iterable[Item]) -> None:
        """Note which items must not be shown, and until when the others may be; of an item the last one holds."""
        newest = {item.item_id: item for item in items}
        if not newest:
            return
        hidden = [item_id for item_id, item in newest.items() if item.hidden]
        until: dict[Any, Any] = {
            item_id: at_ms for item_id, item in newest.items() if (at_ms := self._until(item)) is not None
        }
        writes = self._store.pipeline(transaction=True)
        if hidden:
            writes.sadd(HIDDEN, *hidden)
        if shown := newest.keys() - set(hidden):
            writes.srem(HIDDEN, *shown)
        if until:
            writes.hset(EXPIRING, mapping=until)
        if lasting := newest.keys() - until.keys():
            writes.hdel(EXPIRING, *lasting)
        writes.execute()

    def _until(self, item: Item) -> int | None:
        """When the item leaves every list, in milliseconds since 1970; None: it stays."""
        said = item.attributes.get(self._available_until) if self._available_until else None
        if said is None:
            return None
        try:
            return milliseconds(datetime.fromisoformat(str(said)))
        except (ValueError, TypeError):
            self._log.error("time passed over: no time with its zone", item_id=item.item_id, said=said)
            return None

    def _forget(
        self,
        marks: Sequence[tuple[ConsentMark | ErasureMark, bool]],
        consents: Mapping[str, Consent],
        versions: Collection[int],
    ) -> dict[str, int]:
        """A replayed mark was obeyed before. It is obeyed again only where nothing was allowed since."""
        gone = {m.user_id for m, new in marks if new or not consents[m.user_id].allows(PERSONALIZATION)}
        self._metrics.forgotten.inc(len(gone))
        return self._histories.forget(sorted(gone), versions)

    def _fold(self, kept: Sequence[tuple[Met, AcceptedEvent]]) -> None:
        acts: dict[str, list[tuple[str, Interaction]]] = {}
        for _, event in kept:
            seen = Interaction(milliseconds(event.occurred_at), self._weights[event.type])
            acts.setdefault(event.user_id, []).append((event.item_id, seen))
        histories = self._histories.add(acts, self._history_length)
        followed = {each.version: each for met, _ in kept for each in met.versions}
        for version, published in followed.items():
            people = {event.user_id for met, event in kept if any(each.version == version for each in met.versions)}
            self._write_live(published, {person: histories[person] for person in sorted(people)})

    def _write_live(self, published: Published, histories: Mapping[str, History]) -> None:
        people = list(histories)
        for start in range(0, len(people), PEOPLE_AT_ONCE):
            some = people[start : start + PEOPLE_AT_ONCE]
            lists, _ = published.bundle.recommend([histories[person] for person in some], self._list_length)
            self._histories.write_live(published.version, dict(zip(some, lists, strict=True)))
        self._metrics.lists.inc(len(people))

    def _sign(self, erasures: Sequence[ErasureMark], removed: Mapping[str, int]) -> None:
        steps = [
            ErasureStep(erasure_id=mark.erasure_id, stage="nearline", removed=removed[mark.user_id], at=now())
            for mark in erasures
        ]
        if steps:
            self._event_log.append([(key(step), encode(step)) for step in steps])

    def _count(self, kept: Sequence[tuple[Met, AcceptedEvent]]) -> None:
        at = now()
        self._metrics.events.labels("folded").inc(len(kept))
        for _, event in kept:
            self._metrics.freshness.observe((at - event.accepted_at).total_seconds())


def _mark(record: LogRecord) -> ConsentMark | ErasureMark | None:
    return record if isinstance(record, ConsentMark | ErasureMark) and is_mark(record) else None


def _revoked(marks: Sequence[tuple[ConsentMark | ErasureMark, bool]]) -> Mapping[str, int]:
    """user_id → receipt of the newest mark in the batch: it counts even where the projection is not that far yet."""
    revoked: dict[str, int] = {}
    for mark, _ in marks:
        revoked[mark.user_id] = max(mark.receipt, revoked.get(mark.user_id, 0))
    return revoked


def _may_keep(receipt: int, consent: Consent, revoked: int) -> bool:
    return consent.allows(PERSONALIZATION) and consent.covers(receipt) and receipt > revoked
