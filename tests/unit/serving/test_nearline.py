"""The nearline worker: folds what happened, forgets what must go, skips nothing."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from infra.event_log import open_event_log
from infra.event_log.port import EventLog, PartitionsLost
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
    subject,
)
from serving.folding import Folding
from serving.histories import Histories
from serving.metrics import NearlineMetrics
from serving.nearline import Nearline
from serving.versions import Versions
from training.bundle import (
    CURRENT,
    HIDDEN,
    Bundle,
    bundle_key,
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

    def __post_init__(self) -> None:
        self.log: EventLog = open_event_log(self.url, "events", 2)
        self.registry = CollectorRegistry()
        self.worker = self.new_worker()
        self.store.set(CONSENT_HEAD, 1)

    def new_worker(self) -> Nearline:
        """A worker as `serving.main.nearline` makes it."""
        metrics = NearlineMetrics(self.registry)
        folding = Folding(
            log=self.log,
            store=self.store,
            histories=Histories(self.store, history_ttl=1000, list_ttl=100),
            projection=ConsentProjection(self.store, SECRET),
            domain=self.domain,
            list_length=3,
            metrics=metrics,
        )
        return Nearline(self.log, self.store, Versions(self.store, self.registry), folding, metrics)

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
def platform(redis_url: str, store: OnlineStore, domain: Domain) -> Iterator[Platform]:
    """An empty platform."""
    made = Platform(redis_url, store, domain)
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
    """One step a mark, also when the log is replayed for a new version, and after a restart."""
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
    assert [(step.erasure_id, step.stage, step.removed) for step in steps] == [("erasure-2", "nearline", 2)]
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
        raise OnlineStoreError("gone")

    monkeypatch.setattr(Histories, "write_live", broken)
    with pytest.raises(OnlineStoreError):
        platform.work()
    monkeypatch.undo()
    platform.work()
    assert (platform.history("ann"), platform.live(1, "ann")) == (["m0"], [2, 4, 6])


def test_a_redis_that_is_killed_is_waited_for(own_redis: Any, domain: Domain) -> None:
    """The worker neither dies nor skips: what was appended before and after is folded."""
    store = connect(own_redis.url, timeout=0.5)
    platform = Platform(own_redis.url, store, domain)
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
