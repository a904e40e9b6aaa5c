"""The nearline worker: folds what happened, forgets what must go, skips nothing."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from prometheus_client import CollectorRegistry

from infra.event_log import open_event_log
from infra.event_log.port import EventLog, PartitionsLost, Position
from infra.lake import EVENTS, ITEMS, Lake, LakeUnavailable
from infra.online_store import OnlineStore, OnlineStoreError, connect
from ingest.events import (
    CONSENT_HEAD,
    PERSONALIZATION,
    AcceptedEvent,
    Consent,
    ConsentMark,
    ConsentProjection,
    ConsentUnavailable,
    Domain,
    ErasureMark,
    ErasureStep,
    Item,
    LogRecord,
    consent_key,
    decode,
    encode,
    key,
    now,
    subject,
)
from ingest.landing import Batch, event_rows, item_rows
from serving import nearline, rebuilding
from serving.folding import Folding
from serving.following import Following
from serving.histories import Histories
from serving.lake_histories import LakeHistories
from serving.metrics import NearlineMetrics
from serving.nearline import Nearline
from serving.rebuilding import Rebuilding
from serving.versions import Versions
from training.bundle import (
    ALIVE,
    COMPLETE,
    CURRENT,
    EXPIRING,
    HIDDEN,
    KEPT,
    NEXT,
    POPULAR,
    REBUILDING,
    TRENDING,
    WRITTEN,
    Bundle,
    bundle_key,
    caught_up_key,
    decode_history,
    decode_list,
    history_key,
    live_key,
)

SECRET = "secret"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MakeBundle = Callable[..., Bundle]
Publish = Callable[[OnlineStore, int, Bundle], None]


@dataclass
class Platform:
    """A log, a store and one nearline worker between them."""

    url: str
    store: OnlineStore
    domain: Domain
    lake: Lake

    def __post_init__(self) -> None:
        self.log: EventLog = open_event_log(self.url, "events", 2)
        self.registry = CollectorRegistry()
        self.worker = self.new_worker()
        self.store.set(CONSENT_HEAD, 1)

    def new_worker(self) -> Nearline:
        """A worker as `serving.main.nearline` makes it."""
        metrics = NearlineMetrics(self.registry)
        self.histories = Histories(self.store, history_ttl=1000, list_ttl=100, rules=self.domain.popularity)
        folding = Folding(
            log=self.log,
            store=self.store,
            histories=self.histories,
            projection=ConsentProjection(self.store, SECRET),
            domain=self.domain,
            list_length=3,
            metrics=metrics,
        )
        source = LakeHistories(self.lake, folding, self.domain, history_ttl=10**10)
        return Nearline(
            log=self.log,
            store=self.store,
            following=Following(self.store, Versions(self.store, self.registry)),
            folding=folding,
            histories=self.histories,
            rebuilding=Rebuilding(self.store, source),
            metrics=metrics,
        )

    def restart(self) -> None:
        """Another worker takes the place of this one."""
        self.worker.close()
        self.registry = CollectorRegistry()
        self.worker = self.new_worker()

    def consents(self, user_id: str, granted: int, revoked: int = 0, *purposes: str) -> None:
        """Write what a person allows, as ingest does."""
        consent = Consent(granted, revoked, frozenset(purposes or (PERSONALIZATION,)))
        self.store.set(consent_key(subject(user_id, SECRET)), consent.encode())

    def append(self, *records: LogRecord) -> None:
        """Append records to the log."""
        self.log.append([(key(record), encode(record)) for record in records])

    def work(self) -> None:
        """Step until there is nothing left to do."""
        quiet = 0
        while quiet < 3:
            quiet = 0 if self.worker.step(0.01) else quiet + 1

    def land(self) -> None:
        """Land what stands in the log and has not landed yet, as the lander does."""
        landed = self.lake.landed(EVENTS)
        reader = self.log.consumer("lander", lambda partition: landed.get(partition, 0))
        batch = Batch()
        for _ in range(3):
            batch.add(reader.poll(0.01))
        reader.close()
        self.lake.append(ITEMS, item_rows(batch.items, {}), batch.spans)
        self.lake.append(EVENTS, event_rows(batch.events), batch.spans)

    def caught_up(self, version: int) -> set[int]:
        """Partitions of which a version's live lists stand."""
        return {int(partition) for partition in self.store.hkeys(caught_up_key(version))}  # type: ignore[union-attr]

    def votes(self) -> list[str]:
        """Items that are popular now, sorted."""
        return sorted(item.decode() for item in self.store.zrange(POPULAR, 0, -1))  # type: ignore[union-attr]

    def history(self, user_id: str) -> list[str]:
        """Items of a person's history."""
        return sorted(decode_history(self.store.get(history_key(user_id))))  # type: ignore[arg-type]

    def live(self, version: int, user_id: str) -> list[int] | None:
        """Item indices of a live list, sorted."""
        value = self.store.get(live_key(version, user_id))
        return None if value is None else sorted(decode_list(value).tolist())  # type: ignore[arg-type]

    def steps(self) -> list[ErasureStep]:
        """Erasure steps that stand in the log."""
        reader = self.log.consumer("reader", lambda _: 0)
        records = [decode(record.value) for _ in range(3) for record in reader.poll(0.01)]
        reader.close()
        return [record for record in records if isinstance(record, ErasureStep)]

    def metric(self, name: str, **labels: str) -> float | None:
        """A metric's value."""
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def platform(log_url: str, store: OnlineStore, domain: Domain, tmp_path: Path) -> Iterator[Platform]:
    """An empty platform."""
    made = Platform(log_url, store, domain, Lake(str(tmp_path / "lake")))
    yield made
    made.worker.close()
    made.log.close()


_numbers = iter(range(1, 1_000_000))


def _play(user_id: str, item_id: str, receipt: int = 1, kind: str = "play", minutes: int = 0) -> AcceptedEvent:
    number = next(_numbers)
    return AcceptedEvent(
        event_id=f"e{number}",
        type=kind,
        user_id=user_id,
        item_id=item_id,
        occurred_at=NOON + timedelta(minutes=minutes),
        receipt=receipt,
        accepted_at=datetime.now(UTC),
    )


def _now(user_id: str, item_id: str, kind: str = "play") -> AcceptedEvent:
    return _play(user_id, item_id, kind=kind).model_copy(update={"occurred_at": now()})


def _withdrawal(user_id: str, receipt: int) -> ConsentMark:
    return ConsentMark(user_id=user_id, receipt=receipt, purposes=(), at=NOON)


def _erasure(user_id: str, receipt: int) -> ErasureMark:
    return ErasureMark(user_id=user_id, receipt=receipt, erasure_id=f"erasure-{receipt}", at=NOON)


# --- folding ---------------------------------------------------------------------------------------------------------


def test_what_is_watched_leaves_the_list_and_its_like_enters(
    platform: Platform, make_bundle: MakeBundle, publish: Publish
) -> None:
    """Even items are played: the live list has the other even ones, a popular one in an empty place, and a lifetime."""
    publish(platform.store, 1, make_bundle())
    platform.consents("ann", 1)
    platform.append(_play("ann", "m0"))
    platform.work()
    assert platform.live(1, "ann") == [2, 4, 6]
    platform.append(_play("ann", "m2", minutes=1))
    platform.work()
    assert platform.live(1, "ann") == [1, 4, 6]
    assert platform.history("ann") == ["m0", "m2"]
    assert 0 < platform.store.ttl(live_key(1, "ann")) <= 100 < platform.store.ttl(history_key("ann")) <= 1000
    assert platform.metric("marquee_nearline_events_total", outcome="folded") == 2
    assert platform.metric("marquee_freshness_seconds_count") == 2


def test_before_a_version_only_the_history_is_written(
    platform: Platform, make_bundle: MakeBundle, publish: Publish
) -> None:
    """The first version finds the histories there, and replays what it has not seen."""
    platform.consents("ann", 1)
    platform.append(_play("ann", "m0"))
    platform.work()
    assert platform.history("ann") == ["m0"]
    publish(platform.store, 1, make_bundle())
    platform.work()
    assert platform.live(1, "ann") == [2, 4, 6]


def test_only_types_that_enter_a_history_do(platform: Platform) -> None:
    """A showing is no act, and a type that the domain does not know (any more) is passed over."""
    platform.consents("ann", 1)
    platform.append(_play("ann", "m0", kind="impression"), _play("ann", "m1", kind="unheard"), _play("ann", "m2"))
    platform.work()
    assert platform.history("ann") == ["m2"]


def test_a_disliked_item_leaves_the_list_and_speaks_for_nothing(
    platform: Platform, make_bundle: MakeBundle, publish: Publish
) -> None:
    """Thumbs down weighs 0: the item is not shown again, nor are others for its sake."""
    publish(platform.store, 1, make_bundle())
    platform.consents("ann", 1)
    platform.append(_play("ann", "m0", kind="thumbs_down"))
    platform.work()
    assert platform.live(1, "ann") == [1, 2, 3]


def test_an_undecodable_record_is_passed_over(platform: Platform) -> None:
    """The lander keeps it; here it is counted, and what stands behind it is folded."""
    platform.consents("ann", 1)
    platform.log.append([(b"ann", b"\xff not json")])
    platform.append(_play("ann", "m0"))
    platform.work()
    assert platform.history("ann") == ["m0"]
    assert platform.metric("marquee_nearline_undecodable_total") == 1


def test_hidden_items_follow_the_newest_record(platform: Platform) -> None:
    """Hidden, shown, hidden again: what was said last holds."""
    platform.append(Item(item_id="m0", hidden=True), Item(item_id="m1", hidden=True), Item(item_id="m1", hidden=False))
    platform.work()
    assert platform.store.smembers(HIDDEN) == {b"m0"}
    platform.append(Item(item_id="m0", hidden=False))
    platform.work()
    assert platform.store.smembers(HIDDEN) == set()


def test_an_item_that_leaves_is_noted_with_its_time_and_one_that_stays_is_not(platform: Platform) -> None:
    """What was said last holds; a text that is no time is passed over."""
    until = {"available_until": "2026-12-24T20:15:00+01:00"}
    platform.append(Item(item_id="m0", attributes=until), Item(item_id="m1", attributes=until))
    platform.append(Item(item_id="m1"), Item(item_id="m2", attributes={"available_until": "2026-12-24"}))
    platform.work()
    at_ms = int(datetime(2026, 12, 24, 19, 15, tzinfo=UTC).timestamp() * 1000)
    assert platform.store.hgetall(EXPIRING) == {b"m0": b"%d" % at_ms}
    platform.append(Item(item_id="m0"))
    platform.work()
    assert platform.store.hgetall(EXPIRING) == {}


def test_somebody_without_a_published_list_has_one_after_the_first_event(
    platform: Platform, make_bundle: MakeBundle, publish: Publish
) -> None:
    """The model has no row of anybody: a history is all it takes."""
    publish(platform.store, 1, make_bundle(watermark=platform.log.end_offsets()))
    platform.consents("new", 1)
    assert platform.live(1, "new") is None
    platform.append(_play("new", "m1"))
    platform.work()
    assert platform.live(1, "new") == [3, 5, 7]


def test_votes_follow_the_histories_through_replays_and_out_again(
    platform: Platform, make_bundle: MakeBundle, publish: Publish
) -> None:
    """Folded, replayed for another version, met by another worker: one vote. Erased: none, and nobody is named."""
    platform.consents("ann", 1)
    platform.append(_now("ann", "m0"), _now("ann", "m1", kind="thumbs_down"))
    platform.work()
    once = platform.store.zscore(TRENDING, "m0")
    publish(platform.store, 1, make_bundle())
    platform.work()
    platform.restart()
    platform.work()
    assert (platform.votes(), platform.store.zscore(TRENDING, "m0")) == (["m0"], once)
    platform.consents("ann", 1, 2)
    platform.append(_erasure("ann", 2))
    platform.work()
    assert platform.store.exists(POPULAR, TRENDING, WRITTEN) == 0


def test_a_batch_whose_writing_was_cut_short_is_counted_once(
    platform: Platform, make_bundle: MakeBundle, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store fails after the histories were written, before the offsets: the batch comes again."""
    publish(platform.store, 1, make_bundle())
    platform.consents("ann", 1)
    platform.append(_now("ann", "m0"))

    def broken(*_: object) -> None:
        raise redis.ConnectionError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(Histories, "write_live", broken)
        with pytest.raises(OnlineStoreError):
            platform.work()
    once = platform.store.zscore(TRENDING, "m0")
    assert once
    platform.work()
    assert platform.store.zscore(TRENDING, "m0") == once


# --- consent ---------------------------------------------------------------------------------------------------------


def test_nothing_is_folded_for_who_does_not_allow_it(platform: Platform) -> None:
    """No consent, another purpose, or a receipt older than a withdrawal."""
    platform.consents("bob", 1, 0, "analytics")
    platform.consents("eve", 9, 5)
    platform.append(_play("ann", "m0"), _play("bob", "m0"), _play("eve", "m0", receipt=4), _play("eve", "m2", 9))
    platform.work()
    assert (platform.history("ann"), platform.history("bob"), platform.history("eve")) == ([], [], ["m2"])
    assert platform.metric("marquee_nearline_events_total", outcome="refused") == 3


def test_a_withdrawal_removes_history_and_live_lists_of_every_version(
    platform: Platform, make_bundle: MakeBundle, publish: Publish
) -> None:
    """Both versions' lists go; another person's stay."""
    for version in (1, 2):
        publish(platform.store, version, make_bundle())
        for person in ("ann", "bob"):
            platform.consents(person, 1)
            platform.append(_play(person, f"m{version}"))
        platform.work()
    assert platform.live(1, "ann")
    assert platform.live(2, "ann")
    platform.consents("ann", 1, 2)
    platform.append(_withdrawal("ann", 2))
    platform.work()
    assert [platform.store.exists(k) for k in (history_key("ann"), live_key(1, "ann"), live_key(2, "ann"))] == [0] * 3
    assert platform.history("bob") == ["m1", "m2"]
    assert platform.live(2, "bob")


def test_a_mark_wins_over_an_older_event_that_comes_later(
    platform: Platform, make_bundle: MakeBundle, publish: Publish
) -> None:
    """An event accepted before the withdrawal and appended after it: its receipt is not covered any more."""
    publish(platform.store, 1, make_bundle())
    platform.consents("ann", 1, 2)
    platform.append(_withdrawal("ann", 2))
    platform.work()
    platform.append(_play("ann", "m0", receipt=1))
    platform.work()
    platform.consents("ann", 3, 2)
    platform.append(_play("ann", "m0", receipt=1), _play("ann", "m2", receipt=3))
    platform.work()
    assert platform.history("ann") == ["m2"]


@pytest.mark.parametrize("mark", [_withdrawal("ann", 2), _erasure("ann", 2)])
def test_a_mark_wins_in_its_own_batch_though_the_projection_lags(platform: Platform, mark: LogRecord) -> None:
    """The projection still says yes: what stands around the mark under older receipts is dropped all the same."""
    platform.consents("ann", 1)
    platform.append(_play("ann", "m0"), mark, _play("ann", "m2"), _play("ann", "m4", receipt=3))
    platform.work()
    assert platform.history("ann") == ["m4"]


def test_an_erasure_is_signed_once(platform: Platform, make_bundle: MakeBundle, publish: Publish) -> None:
    """One step a mark, also when the log is replayed for a new version, and after a restart.

    Removed: the history, the live list, a vote.
    """
    publish(platform.store, 1, make_bundle())
    platform.consents("ann", 1)
    platform.append(_play("ann", "m0"))
    platform.work()
    platform.consents("ann", 1, 2)
    platform.append(_erasure("ann", 2))
    platform.work()
    publish(platform.store, 2, make_bundle())
    platform.work()
    platform.restart()
    platform.work()
    steps = platform.steps()
    assert [(step.erasure_id, step.stage, step.removed) for step in steps] == [("erasure-2", "nearline", 3)]
    assert platform.history("ann") == []
    assert platform.live(2, "ann") is None


def test_a_replayed_mark_keeps_what_was_allowed_since(
    platform: Platform, make_bundle: MakeBundle, publish: Publish
) -> None:
    """Withdrawn, allowed again, watched: a replay for a new version does not lose the new history on its way."""
    platform.consents("ann", 3, 2)
    platform.append(_play("ann", "m1"), _withdrawal("ann", 2), _play("ann", "m0", receipt=3))
    platform.work()
    publish(platform.store, 1, make_bundle())
    platform.work()
    assert (platform.history("ann"), platform.live(1, "ann")) == (["m0"], [2, 4, 6])
    assert platform.metric("marquee_nearline_forgotten_total") == 1


def test_a_member_that_lost_its_partitions_takes_back_what_was_withdrawn_meanwhile(
    platform: Platform, make_bundle: MakeBundle, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another member met the mark while this one was writing: what it wrote of that person goes again."""
    publish(platform.store, 1, make_bundle())
    platform.consents("ann", 1)
    platform.consents("bob", 1)

    def lost(_: object) -> None:
        platform.consents("ann", 1, 2)
        monkeypatch.undo()
        raise PartitionsLost("another member owns them")

    monkeypatch.setattr(platform.worker._consumer, "commit", lost)
    platform.append(_play("ann", "m0"), _play("bob", "m0"))
    platform.work()
    assert (platform.history("ann"), platform.live(1, "ann")) == ([], None)
    assert platform.history("bob") == ["m0"]


# --- versions --------------------------------------------------------------------------------------------------------


def test_a_new_version_is_replayed_from_its_watermark(
    platform: Platform, make_bundle: MakeBundle, publish: Publish
) -> None:
    """Who has events that the version has not seen gets a live list of it; who has none keeps the published one."""
    publish(platform.store, 1, make_bundle())
    for person in ("ann", "bob"):
        platform.consents(person, 1)
    platform.append(_play("bob", "m1"))
    platform.work()
    watermark = platform.log.end_offsets()
    platform.append(_play("ann", "m0"))
    platform.work()
    publish(platform.store, 2, make_bundle(watermark=watermark))
    platform.work()
    assert platform.live(2, "ann") == [2, 4, 6]
    assert platform.live(2, "bob") is None
    assert platform.metric("marquee_nearline_events_total", outcome="replayed") == 1
    assert platform.metric("marquee_freshness_seconds_count") == 2


def test_a_worker_that_was_away_at_the_flip_replays_too(
    platform: Platform, make_bundle: MakeBundle, publish: Publish
) -> None:
    """The version changed while no worker ran: the next one cannot tell, so it begins at the watermark."""
    publish(platform.store, 1, make_bundle())
    platform.consents("ann", 1)
    platform.append(_play("ann", "m0"))
    platform.work()
    platform.worker.close()
    publish(platform.store, 2, make_bundle())
    platform.restart()
    platform.work()
    assert platform.live(2, "ann") == [2, 4, 6]


def test_a_watermark_ahead_of_the_group_skips_nothing(
    platform: Platform, make_bundle: MakeBundle, publish: Publish
) -> None:
    """The lake was faster than nearline: the events between enter the histories all the same."""
    platform.consents("ann", 1)
    platform.append(_play("ann", "m0"))
    publish(platform.store, 1, make_bundle(watermark={p: end + 5 for p, end in platform.log.end_offsets().items()}))
    platform.work()
    assert platform.history("ann") == ["m0"]


def test_a_version_that_has_seen_more_than_the_group_makes_it_skip_nothing(
    platform: Platform, make_bundle: MakeBundle, publish: Publish
) -> None:
    """A version becomes current whose watermark is ahead of a worker at work: it reads on where it stands."""
    publish(platform.store, 1, make_bundle())
    platform.consents("ann", 1)
    platform.work()
    platform.append(_play("ann", "m0"))
    publish(platform.store, 2, make_bundle(watermark={p: end + 5 for p, end in platform.log.end_offsets().items()}))
    platform.work()
    assert (platform.history("ann"), platform.live(2, "ann")) == (["m0"], [2, 4, 6])


def test_a_broken_bundle_leaves_the_old_version_at_work(
    platform: Platform, make_bundle: MakeBundle, publish: Publish
) -> None:
    """Live lists go on being written for the version that could be read."""
    publish(platform.store, 1, make_bundle())
    platform.consents("ann", 1)
    platform.work()
    platform.store.set(bundle_key(2), b"broken")
    platform.store.set(CURRENT, 2)
    platform.append(_play("ann", "m0"))
    platform.work()
    assert platform.live(1, "ann") == [2, 4, 6]
    assert platform.metric("marquee_bundles_refused_total") == 1


# --- publishing in two steps ------------------------------------------------------------------------------------------


def announce(platform: Platform, version: int, bundle: Bundle) -> None:
    """Write a version and set `version:next`, as a publisher does before it waits."""
    platform.store.set(bundle_key(version), bundle.dump())
    platform.store.sadd(KEPT, version)
    platform.store.set(NEXT, version)


def test_live_lists_of_the_next_version_stand_before_it_is_served(
    platform: Platform, make_bundle: MakeBundle, publish: Publish
) -> None:
    """Who acted since its watermark has a list of it, both versions go on, and the flip replays nothing."""
    publish(platform.store, 1, make_bundle())
    for person in ("ann", "bob", "eve"):
        platform.consents(person, 1)
    platform.append(_play("bob", "m1"))
    platform.work()
    watermark = platform.log.end_offsets()
    platform.append(_play("ann", "m0"))
    platform.work()
    announce(platform, 2, make_bundle(watermark=watermark))
    platform.work()
    assert platform.caught_up(2) == {0, 1}
    assert (platform.live(2, "ann"), platform.live(2, "bob")) == ([2, 4, 6], None)
    platform.append(_play("eve", "m1"))
    platform.work()
    assert platform.live(1, "eve") == platform.live(2, "eve") == [3, 5, 7]
    replayed = platform.metric("marquee_nearline_events_total", outcome="replayed")
    assert replayed == 1
    platform.store.set(CURRENT, 2)
    platform.store.delete(NEXT, bundle_key(2))
    platform.work()
    assert platform.metric("marquee_version") == 2, "the bundle is in memory already"
    assert platform.metric("marquee_nearline_events_total", outcome="replayed") == replayed
    platform.append(_play("bob", "m3", minutes=1))
    platform.work()
    assert platform.live(2, "bob") == [0, 5, 7]
    assert platform.live(1, "bob") == [3, 5, 7], "of the version that is served no more none is written"


def test_a_version_has_not_caught_up_before_the_replay_is_at_its_end(
    platform: Platform, make_bundle: MakeBundle, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Partition by partition, and never before the lists stand."""
    monkeypatch.setattr(nearline, "BATCH", 2)
    publish(platform.store, 1, make_bundle())
    people = [f"u{number}" for number in range(20)]
    for person in people:
        platform.consents(person, 1)
    platform.append(*(_play(person, "m0") for person in people))
    platform.work()
    announce(platform, 2, make_bundle())
    told = []
    while len(platform.caught_up(2)) < 2:
        platform.worker.step(0.01)
        told.append(len(platform.caught_up(2)))
    assert told[0] == 0
    assert all(platform.live(2, person) == [2, 4, 6] for person in people)


def test_a_list_is_written_once_however_much_of_a_person_is_replayed_and_what_happens_now_comes_first(
    platform: Platform, make_bundle: MakeBundle, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists are written some at a time; the next version has caught up with the last of them."""
    monkeypatch.setattr(nearline, "REFRESHED_AT_ONCE", 3)
    publish(platform.store, 1, make_bundle())
    people = [f"u{number}" for number in range(12)]
    for person in [*people, "ann"]:
        platform.consents(person, 1)
    platform.append(*(_play(person, "m0", minutes=n) for person in people for n in range(5)))
    platform.work()
    written = platform.metric("marquee_live_lists_total") or 0
    announce(platform, 2, make_bundle())
    platform.append(_play("ann", "m0"))
    platform.worker.step(0.01)
    assert platform.caught_up(2) == set()
    for _ in range(2):
        platform.worker.step(0.01)
    assert platform.live(2, "ann") == [2, 4, 6]
    assert any(platform.live(2, person) is None for person in people)
    assert platform.caught_up(2) != {0, 1}
    platform.work()
    assert all(platform.live(2, person) == [2, 4, 6] for person in people)
    assert platform.caught_up(2) == {0, 1}
    assert (platform.metric("marquee_live_lists_total") or 0) - written == len(people) + 2


def test_lists_of_partitions_that_are_another_members_by_now_are_awaited_no_more(
    platform: Platform, make_bundle: MakeBundle, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new owner writes them; ours could come after a newer one."""
    monkeypatch.setattr(nearline, "REFRESHED_AT_ONCE", 1)
    people = [f"u{number}" for number in range(9)]
    for person in people:
        platform.consents(person, 1)
    platform.append(*(_play(person, "m0") for person in people))
    platform.work()
    publish(platform.store, 1, make_bundle())
    platform.worker.step(0.01)
    assert platform.worker._following.awaited(1)
    monkeypatch.setattr(platform.worker._consumer, "assigned", lambda: {1})
    platform.worker.step(0.01)
    published, awaited = platform.worker._following.awaited(9) or (None, [])
    assert published
    assert {platform.log._partition(person.encode()) for person in awaited} == {1}  # type: ignore[attr-defined]


def test_a_replay_writes_no_list_of_who_does_not_allow_it_any_more(
    platform: Platform, make_bundle: MakeBundle, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Withdrawn before the list is made, and while it is made; the marks are still to be met, or were by another."""
    publish(platform.store, 1, make_bundle())
    for person in ("ann", "bob", "eve"):
        platform.consents(person, 1)
    platform.append(_play("ann", "m0"), _play("bob", "m0"), _play("eve", "m0"))
    platform.work()
    platform.consents("ann", 1, 2)
    real = Histories.write_live

    def withdrawn_meanwhile(*args: Any) -> None:
        platform.consents("bob", 1, 3)
        real(*args)

    monkeypatch.setattr(Histories, "write_live", withdrawn_meanwhile)
    announce(platform, 2, make_bundle())
    platform.work()
    assert (platform.live(2, "ann"), platform.live(2, "bob"), platform.live(2, "eve")) == (None, None, [2, 4, 6])


def test_partitions_are_told_though_their_last_records_were_forgotten(
    platform: Platform, make_bundle: MakeBundle, publish: Publish
) -> None:
    """A replay does not come to where the group stood: those records are no more."""
    publish(platform.store, 1, make_bundle())
    platform.consents("ann", 1)
    platform.append(_play("ann", "m0"))
    platform.work()
    for partition, end in platform.log.end_offsets().items():
        platform.log.forget(Position(partition, end - 1))
    announce(platform, 2, make_bundle())
    for _ in range(10):
        platform.worker.step(0.01)
    assert platform.caught_up(2) == {0, 1}


def test_another_publisher_of_the_same_version_is_told_again(
    platform: Platform, make_bundle: MakeBundle, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one died; the second one asks anew."""
    monkeypatch.setattr(nearline, "LOOK_SECONDS", 0.0)
    publish(platform.store, 1, make_bundle())
    announce(platform, 2, make_bundle())
    platform.work()
    platform.store.delete(caught_up_key(2))
    platform.work()
    assert platform.caught_up(2) == {0, 1}
    platform.store.delete(caught_up_key(2), CURRENT)
    platform.store.set(NEXT, 1)
    platform.work()
    assert platform.caught_up(1) == {0, 1}, "the version in use, published again after the store lost its data"


def test_a_next_version_that_gives_way_to_another_is_followed_no_more(
    platform: Platform, make_bundle: MakeBundle, publish: Publish
) -> None:
    """Its publisher died; the one after it takes its place."""
    publish(platform.store, 1, make_bundle())
    platform.consents("ann", 1)
    announce(platform, 2, make_bundle())
    platform.work()
    announce(platform, 3, make_bundle())
    platform.append(_play("ann", "m0"))
    platform.work()
    assert (platform.live(1, "ann"), platform.live(2, "ann"), platform.live(3, "ann")) == ([2, 4, 6], None, [2, 4, 6])
    platform.store.delete(NEXT)
    platform.append(_play("ann", "m2", minutes=1))
    platform.work()
    assert (platform.live(1, "ann"), platform.live(3, "ann")) == ([1, 4, 6], [2, 4, 6])


def test_a_next_version_that_cannot_be_read_holds_up_nothing(
    platform: Platform, make_bundle: MakeBundle, publish: Publish
) -> None:
    publish(platform.store, 1, make_bundle())
    platform.consents("ann", 1)
    platform.store.set(NEXT, 2)
    platform.append(_play("ann", "m0"))
    platform.work()
    assert platform.live(1, "ann") == [2, 4, 6]
    assert platform.caught_up(2) == set()


def test_who_withdraws_loses_the_live_list_of_the_next_version_too(
    platform: Platform, make_bundle: MakeBundle, publish: Publish
) -> None:
    """Also where nobody keeps that version any more."""
    publish(platform.store, 1, make_bundle())
    platform.consents("ann", 1)
    announce(platform, 2, make_bundle())
    platform.store.srem(KEPT, 2)
    platform.append(_play("ann", "m0"))
    platform.work()
    assert platform.live(2, "ann")
    platform.consents("ann", 1, 2)
    platform.append(_withdrawal("ann", 2))
    platform.work()
    assert (platform.live(1, "ann"), platform.live(2, "ann")) == (None, None)


def test_a_member_that_joins_meanwhile_catches_up_its_partitions(
    platform: Platform, make_bundle: MakeBundle, publish: Publish
) -> None:
    """The worker that was told to is gone before it had begun: its partitions are another one's now."""
    publish(platform.store, 1, make_bundle())
    platform.consents("ann", 1)
    platform.append(_play("ann", "m0"))
    platform.work()
    platform.worker.close()
    announce(platform, 2, make_bundle())
    platform.restart()
    platform.work()
    assert platform.live(2, "ann") == [2, 4, 6]
    assert platform.caught_up(2) == {0, 1}


@pytest.mark.one_redis
def test_what_is_appended_while_a_partition_begins_does_not_move_where_it_begins(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first day under load: a place told by two looks at a growing log was before its beginning, for good."""
    platform.consents("ann", 1)
    consumer = platform.worker._consumer
    look = consumer.lag

    def lag() -> dict[int, int]:
        platform.append(*(_now("ann", f"m{number}") for number in range(5)))
        return look()

    monkeypatch.setattr(consumer, "lag", lag)
    platform.worker.step(0.01)
    monkeypatch.undo()
    platform.work()
    assert platform.history("ann") == [f"m{number}" for number in range(5)]
    committed = platform.store.hvals("log:events:nearline:offsets")
    assert min(int(offset) for offset in committed) >= 0  # type: ignore[union-attr]


def test_two_members_catch_up_together_while_partitions_move_between_them(
    platform: Platform, make_bundle: MakeBundle, publish: Publish
) -> None:
    """One joins with the announcement: what the one leaves undone the other does, and votes are counted once."""
    publish(platform.store, 1, make_bundle())
    people = [f"u{number}" for number in range(30)]
    for person in people:
        platform.consents(person, 1)
    platform.append(*(_now(person, "m0") for person in people))
    platform.work()
    votes = platform.store.zscore(TRENDING, "m0")
    first, platform.registry = platform.worker, CollectorRegistry()
    second = platform.new_worker()
    announce(platform, 2, make_bundle())
    platform.append(*(_now(person, "m2") for person in people[:10]))
    deadline = time.monotonic() + 20
    while not (first._next and second._next) and time.monotonic() < deadline:
        first.step(0.01)
        second.step(0.01)
    assert first._next.keys() | second._next.keys() == {0, 1}
    while platform.caught_up(2) != {0, 1} and time.monotonic() < deadline:
        first.step(0.01)
        second.step(0.01)
    assert [platform.live(2, person) for person in people] == [[1, 4, 6]] * 10 + [[2, 4, 6]] * 20
    assert platform.store.zscore(TRENDING, "m0") == votes
    second.close()


def test_that_somebody_is_there_is_said_with_the_number_of_partitions(platform: Platform) -> None:
    platform.work()
    assert platform.store.get(ALIVE) == b"2"
    assert 0 < platform.store.ttl(ALIVE) <= nearline.ALIVE_SECONDS


def test_what_is_replayed_for_a_version_is_no_lag(
    platform: Platform, make_bundle: MakeBundle, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was folded long ago. What nobody has folded is lag, also while something else is replayed."""
    monkeypatch.setattr(nearline, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(nearline, "BATCH", 2)
    publish(platform.store, 1, make_bundle())
    platform.consents("ann", 1)
    platform.append(*(_play("ann", f"m{n % 8}", minutes=n) for n in range(20)))
    platform.work()
    publish(platform.store, 2, make_bundle())
    platform.worker.step(0.01)

    def lag() -> float:
        found = [platform.metric("marquee_log_lag", group="nearline", partition=str(p)) for p in range(2)]
        return sum(partition or 0 for partition in found)

    assert lag() == 0
    platform.append(_play("ann", "m0", minutes=30))
    platform.worker.step(0.01)
    assert lag() == 1
    platform.work()
    assert lag() == 0


# --- a store that lost its data ---------------------------------------------------------------------------------------


@pytest.mark.one_redis
def test_a_lost_store_is_rebuilt_from_the_lake_and_a_log_that_stays(
    platform: Platform, own_redis: Any, make_bundle: MakeBundle, publish: Publish
) -> None:
    """Histories, votes, hidden and expiring items of before and after the landing; the worker runs on all the time."""
    lost = move_store(platform, own_redis.url)
    publish(lost, 1, make_bundle())
    for person in ("ann", "bob", "eve", "gone"):
        platform.consents(person, 1)
    until = {"available_until": "2026-12-24T20:15:00Z"}
    platform.append(_now("ann", "m0"), _now("ann", "m2"), _now("eve", "m1"), Item(item_id="m6", hidden=True))
    platform.append(Item(item_id="m7", attributes=until), Item(item_id="m5", hidden=True), _now("gone", "m4"))
    platform.work()
    platform.land()
    platform.append(_now("bob", "m3"), Item(item_id="m5", hidden=False), _now("ann", "m2", kind="thumbs_down"))
    platform.work()
    before = everything(lost)
    own_redis.kill()
    for file in own_redis.folder.glob("appendonlydir/*"):
        file.unlink()
    own_redis.start()
    assert everything(lost) == {}
    for person in ("ann", "bob", "eve"):
        platform.consents(person, 1)
    platform.consents("gone", 1, 2)
    lost.set(CONSENT_HEAD, 2)
    platform.work()
    del before["gone"]
    before["votes"] = sorted(set(before["votes"]) - {"m4"})
    assert everything(lost) == before
    assert before["ann"] == ["m0", "m2"]
    assert before["votes"] == ["m0", "m1", "m3"]
    publish(lost, 1, make_bundle())
    platform.append(_now("ann", "m4"))
    platform.work()
    assert platform.live(1, "ann") == [1, 3, 6]
    lost.close()


def move_store(platform: Platform, url: str) -> OnlineStore:
    """Let the platform's worker use another Redis than the log does."""
    platform.store = connect(url, timeout=5.0)
    platform.store.set(CONSENT_HEAD, 1)
    platform.restart()
    return platform.store


def everything(store: OnlineStore) -> dict[str, Any]:
    """What a store holds of people and items."""
    keys = [key.decode() for key in store.scan_iter(history_key("*"))]
    found: dict[str, Any] = {key.split(":", 2)[2]: sorted(decode_history(store.get(key))) for key in keys}  # type: ignore[arg-type]
    sets: Any = {
        "hidden": store.smembers(HIDDEN),
        "expiring": store.hgetall(EXPIRING),
        "votes": store.zrange(POPULAR, 0, -1),
    }
    return found | {name: sorted(item.decode() for item in each) for name, each in sets.items() if each}


@pytest.mark.parametrize("slowly", [False, True])
def test_a_lost_store_with_the_log_in_it_is_rebuilt_from_the_lake(
    own_redis: Any, domain: Domain, tmp_path: Path, slowly: bool
) -> None:
    """The offsets go on above where the group stood: what is appended then is folded, and marks are obeyed."""
    store = connect(own_redis.url, timeout=5.0)
    platform = Platform(own_redis.url, store, domain, Lake(str(tmp_path / "lake")))
    platform.consents("ann", 1)
    platform.append(*(_play("ann", f"m{n}", minutes=n) for n in range(6)))
    platform.work()
    platform.land()
    store.flushall()
    platform.log.keep(lambda: platform.lake.landed(EVENTS))
    store.set(CONSENT_HEAD, 2)
    store.set(REBUILDING, "another", px=1500 if slowly else 1)
    platform.consents("ann", 1)
    platform.append(_play("ann", "m7"), Item(item_id="m0", hidden=True))
    deadline = time.monotonic() + 20
    while (platform.history("ann"), store.smembers(HIDDEN)) != (
        ["m0", "m1", "m2", "m3", "m4", "m5", "m7"],
        {b"m0"},
    ) and time.monotonic() < deadline:
        platform.work()
    assert platform.history("ann") == ["m0", "m1", "m2", "m3", "m4", "m5", "m7"]
    assert store.smembers(HIDDEN) == {b"m0"}
    platform.consents("ann", 1, 2)
    platform.append(_erasure("ann", 2))
    # The group went with the store: its member may have to join once more before the mark comes to it.
    while not platform.steps() and time.monotonic() < deadline:
        platform.work()
    assert [step.erasure_id for step in platform.steps()] == ["erasure-2"]
    platform.worker.close()
    platform.log.close()
    store.close()


def test_the_lake_tells_of_an_item_what_was_said_last_and_nothing_of_who_has_long_been_away(
    platform: Platform,
) -> None:
    """A history that would have ended its lifetime is not brought back."""
    for person in ("ann", "old"):
        platform.consents(person, 1)
    long_ago = _play("old", "m0").model_copy(update={"accepted_at": datetime.now(UTC) - timedelta(seconds=2000)})
    platform.append(Item(item_id="m1", hidden=True), Item(item_id="m2"), long_ago, _play("ann", "m0"))
    platform.append(Item(item_id="m1", hidden=False), Item(item_id="m2", hidden=True))
    platform.land()
    metrics = NearlineMetrics(CollectorRegistry())
    projection = ConsentProjection(platform.store, SECRET)
    parts: Any = {"log": platform.log, "store": platform.store, "histories": platform.histories, "metrics": metrics}
    folding = Folding(projection=projection, domain=platform.domain, list_length=3, **parts)
    assert list(LakeHistories(platform.lake, folding, platform.domain, history_ttl=1000)()) == [1]
    assert (platform.history("ann"), platform.history("old")) == (["m0"], [])
    assert platform.store.smembers(HIDDEN) == {b"m2"}


def test_who_withdraws_while_histories_are_restored_has_none(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer is a yes, and the mark is met before the history is written: the second answer counts."""
    platform.consents("ann", 1)
    platform.append(_play("ann", "m0"))
    platform.work()
    platform.land()
    platform.store.delete(COMPLETE, history_key("ann"), POPULAR, TRENDING, WRITTEN)
    real = Histories.add

    def withdrawn_meanwhile(*args: Any) -> Any:
        platform.consents("ann", 1, 2)
        return real(*args)

    monkeypatch.setattr(Histories, "add", withdrawn_meanwhile)
    platform.work()
    assert platform.history("ann") == []
    assert not platform.store.exists(POPULAR, WRITTEN)


def test_folding_goes_on_while_another_member_rebuilds_and_its_partitions_are_read_again_after_that(
    platform: Platform,
) -> None:
    """Every member takes its own partitions back, to where the one that rebuilds says."""
    platform.consents("ann", 1)
    platform.append(_play("ann", "m0"))
    platform.work()
    platform.store.delete(COMPLETE, history_key("ann"))
    platform.store.set(REBUILDING, "another")
    platform.append(_play("ann", "m1"))
    platform.work()
    assert platform.history("ann") == ["m1"]
    platform.store.hset(COMPLETE, "lake", "{}")
    platform.work()
    assert platform.history("ann") == ["m0", "m1"]
    assert set(platform.store.hkeys(COMPLETE)) == {b"lake", b"0", b"1"}  # type: ignore[arg-type]


def test_a_member_that_dies_after_the_rebuilding_leaves_its_partitions_where_they_have_to_be_read_again(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group's own offsets were taken back: whoever owns the partitions next begins there."""
    platform.consents("ann", 1)
    platform.append(_play("ann", "m0"))
    platform.work()
    platform.store.delete(COMPLETE, history_key("ann"))

    def dies(*_: object) -> None:
        raise redis.ConnectionError("dies")

    with monkeypatch.context() as patch:
        patch.setattr(Folding, "apply", dies)
        for _ in range(3):
            with pytest.raises(OnlineStoreError):
                platform.work()
    platform.restart()
    platform.work()
    assert platform.history("ann") == ["m0"]


def test_a_lake_that_does_not_answer_is_waited_for(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is complete before; folding goes on."""
    monkeypatch.setattr(rebuilding, "RETRY_SECONDS", 0.0)
    platform.consents("ann", 1)
    with monkeypatch.context() as patch:

        def silent(*_: object) -> None:
            raise LakeUnavailable("by the test")

        patch.setattr(Lake, "landed", silent)
        platform.append(_play("ann", "m0"))
        platform.work()
        assert platform.history("ann") == ["m0"]
        assert not platform.store.exists(COMPLETE)
    platform.work()
    assert set(platform.store.hkeys(COMPLETE)) == {b"lake", b"0", b"1"}  # type: ignore[arg-type]


def test_without_a_lake_what_the_log_holds_is_read_again(platform: Platform) -> None:
    """It says that it cannot do more, and goes on."""
    platform.consents("ann", 1)
    platform.append(_play("ann", "m0"))
    platform.work()
    platform.store.delete(COMPLETE, history_key("ann"))
    platform.worker._rebuilding = Rebuilding(platform.store, rebuilding.from_the_log_alone)
    platform.work()
    assert platform.history("ann") == ["m0"]


def test_a_rebuilding_that_another_member_has_taken_over_is_given_up(platform: Platform) -> None:
    """This one stood still for a minute: what it had restored may have been lost once more."""
    worker = Rebuilding(platform.store, one_and_no_more)
    assert worker.step({}) == ({}, 1)
    platform.store.set(REBUILDING, "another")
    assert worker.step({}) == ({}, 0)
    assert platform.store.get(REBUILDING) == b"another"
    assert not platform.store.exists(COMPLETE)


def one_and_no_more() -> Any:
    """A source that must not be asked twice."""
    yield 1
    raise AssertionError("it went on")


# --- outages ---------------------------------------------------------------------------------------------------------


def test_nothing_is_skipped_while_consents_cannot_be_read(platform: Platform) -> None:
    """The projection is not whole: the batch waits, uncommitted, and is folded when it is."""
    platform.consents("ann", 1)
    platform.store.delete(CONSENT_HEAD)
    platform.append(_play("ann", "m0"))
    for _ in range(2):
        with pytest.raises(ConsentUnavailable):
            platform.work()
    assert platform.history("ann") == []
    platform.store.set(CONSENT_HEAD, 1)
    platform.work()
    assert platform.history("ann") == ["m0"]


def test_a_batch_that_was_written_halfway_is_written_again(
    platform: Platform, make_bundle: MakeBundle, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store fails between history and list: the next step does both, and the history is the same."""
    publish(platform.store, 1, make_bundle())
    platform.consents("ann", 1)
    platform.append(_play("ann", "m0"))

    def broken(*_: object) -> None:
        raise redis.ConnectionError("gone")

    monkeypatch.setattr(Histories, "write_live", broken)
    with pytest.raises(OnlineStoreError):
        platform.work()
    monkeypatch.undo()
    platform.work()
    assert (platform.history("ann"), platform.live(1, "ann")) == (["m0"], [2, 4, 6])


def test_a_redis_that_is_killed_is_waited_for(own_redis: Any, domain: Domain, tmp_path: Path) -> None:
    """The worker neither dies nor skips: what was appended before and after is folded."""
    store = connect(own_redis.url, timeout=0.5)
    platform = Platform(own_redis.url, store, domain, Lake(str(tmp_path / "lake")))
    platform.consents("ann", 1)
    stop = threading.Event()
    thread = threading.Thread(target=platform.worker.run, args=[stop])
    thread.start()
    platform.append(_play("ann", "m0"))
    own_redis.kill(signal.SIGKILL)
    own_redis.start()
    platform.append(_play("ann", "m2"))
    deadline = time.monotonic() + 20
    while platform.history("ann") != ["m0", "m2"] and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    thread.join(10)
    assert platform.history("ann") == ["m0", "m2"]
    platform.log.close()
    store.close()
