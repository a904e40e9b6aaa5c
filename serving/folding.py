"""What a batch of the log does: folds events into histories and live lists, forgets people, hides items.

All of it may be done twice, or again from further back, and ends the same.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

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
from training.bundle import HIDDEN, History, Interaction, add_to_history, milliseconds


class Met(NamedTuple):
    """A record as the group meets it.

    Attributes:
        record: what it says.
        new: False when it is replayed for the sake of a new version's lists.
    """

    record: LogRecord
    new: bool


class Folding:
    """Applies batches to the online store.

    Args:
        log: erasure steps are appended to it.
        store: the online store.
        histories: what is kept of people in it.
        projection: of the consents.
        domain: which events enter a history, and what they weigh.
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
        self._log = log
        self._store = store
        self._histories = histories
        self._projection = projection
        self._weights = domain.history_weights
        self._history_length = domain.history.length
        self._list_length = list_length
        self._metrics = metrics

    def apply(self, batch: Sequence[Met], published: Published | None) -> Mapping[str, Consent]:
        """Do all that the batch asks for.

        Args:
            batch: in the log's order.
            published: the version whose live lists are written; None before there is one.

        Returns:
            The consents it relied on, for `retract`.

        Raises:
            ingest.events.ConsentUnavailable: nobody can tell what may be kept; nothing was written.
            infra.online_store.OnlineStoreError: the store did not take all of it: apply it again.
            infra.event_log.port.EventLogUnavailable: the log did not take the steps: apply it again.
        """
        events = [(met.record, met.new) for met in batch if isinstance(met.record, AcceptedEvent)]
        events = [(event, new) for event, new in events if event.type in self._weights]
        marks = [(record, met.new) for met in batch if (record := _mark(met.record))]
        people = [event.user_id for event, _ in events] + [mark.user_id for mark, _ in marks]
        consents = self._projection.read(people) if people else {}
        removed = self._forget(marks, consents, published)
        revoked = _revoked(marks)
        kept = [(e, new) for e, new in events if _may_keep(e, consents[e.user_id], revoked.get(e.user_id, 0))]
        self._metrics.events.labels("refused").inc(len(events) - len(kept))
        self._fold([event for event, _ in kept], published)
        self._hide([met.record for met in batch if met.new and isinstance(met.record, Item)])
        self._sign([mark for mark, new in marks if new and isinstance(mark, ErasureMark)], removed)
        self._count(kept)
        return consents

    def retract(self, consents: Mapping[str, Consent], published: Published | None) -> None:
        """Delete what was written of people who took their consent back meanwhile.

        For a member that lost its partitions while it was writing: the next owner may have met the mark already.

        Args:
            consents: what `apply` relied on.
            published: version whose live lists were written.
        """
        present = self._projection.read(list(consents))
        gone = [person for person, then in consents.items() if present[person].revoked > then.revoked]
        self._histories.forget(gone, _version(published))

    def _forget(
        self,
        marks: Sequence[tuple[ConsentMark | ErasureMark, bool]],
        consents: Mapping[str, Consent],
        published: Published | None,
    ) -> dict[str, int]:
        """A replayed mark was obeyed before. It is obeyed again only where nothing was allowed since."""
        gone = {m.user_id for m, new in marks if new or not consents[m.user_id].allows(PERSONALIZATION)}
        self._metrics.forgotten.inc(len(gone))
        return self._histories.forget(sorted(gone), _version(published))

    def _fold(self, events: Sequence[AcceptedEvent], published: Published | None) -> None:
        histories = self._histories.read(list(dict.fromkeys(event.user_id for event in events)))
        for event in events:
            seen = Interaction(milliseconds(event.occurred_at), self._weights[event.type])
            add_to_history(histories[event.user_id], event.item_id, seen, self._history_length)
        if histories:
            self._histories.write(histories)
            self._write_live(histories, published)

    def _write_live(self, histories: Mapping[str, History], published: Published | None) -> None:
        if published is not None:
            lists, _ = published.bundle.recommend(list(histories.values()), self._list_length)
            self._histories.write_live(published.version, dict(zip(histories, lists, strict=True)))
            self._metrics.lists.inc(len(histories))

    def _hide(self, items: Sequence[Item]) -> None:
        newest = {item.item_id: item.hidden for item in items}
        if hidden := [item_id for item_id, is_hidden in newest.items() if is_hidden]:
            self._store.sadd(HIDDEN, *hidden)
        if shown := [item_id for item_id, is_hidden in newest.items() if not is_hidden]:
            self._store.srem(HIDDEN, *shown)

    def _sign(self, erasures: Sequence[ErasureMark], removed: Mapping[str, int]) -> None:
        steps = [
            ErasureStep(erasure_id=mark.erasure_id, stage="nearline", removed=removed[mark.user_id], at=now())
            for mark in erasures
        ]
        if steps:
            self._log.append([(key(step), encode(step)) for step in steps])

    def _count(self, kept: Sequence[tuple[AcceptedEvent, bool]]) -> None:
        at = now()
        for event, new in kept:
            self._metrics.events.labels("folded" if new else "replayed").inc()
            if new:
                self._metrics.freshness.observe((at - event.accepted_at).total_seconds())


def _mark(record: LogRecord) -> ConsentMark | ErasureMark | None:
    return record if isinstance(record, ConsentMark | ErasureMark) and is_mark(record) else None


def _revoked(marks: Sequence[tuple[ConsentMark | ErasureMark, bool]]) -> Mapping[str, int]:
    """user_id → receipt of the newest mark in the batch: it counts even where the projection is not that far yet."""
    revoked: dict[str, int] = {}
    for mark, _ in marks:
        revoked[mark.user_id] = max(mark.receipt, revoked.get(mark.user_id, 0))
    return revoked


def _may_keep(event: AcceptedEvent, consent: Consent, revoked: int) -> bool:
    return consent.allows(PERSONALIZATION) and consent.covers(event.receipt) and event.receipt > revoked


def _version(published: Published | None) -> int:
    return published.version if published else 0
