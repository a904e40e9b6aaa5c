"""The lander lands every record once, whatever dies and whoever else lands, and nothing of whom has withdrawn."""

import itertools
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from prometheus_client import CollectorRegistry

from infra.database import Entry, Ledger
from infra.event_log.port import EventLogUnavailable, Position
from infra.event_log.redis_streams import RedisStreamsEventLog
from infra.lake import DEAD_LETTERS, EVENTS, ITEMS, TABLES, Lake, LakeConflict, LakeEmpty, Span
from infra.online_store import OnlineStore
from ingest.erasure import ErasureKeeper
from ingest.events import (
    CONSENT_HEAD,
    PERSONALIZATION,
    AcceptedEvent,
    Consent,
    ConsentMark,
    ConsentProjection,
    ConsentUnavailable,
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
from ingest.lander import Lander

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = "secret"
WILLING = Consent(1, 0, frozenset({PERSONALIZATION}))


class Killed(Exception):
    """The process ends here."""


class World:
    """A log, a lake, a ledger and a projection, all real, and landers on them."""

    def __init__(self, folder: Path, redis_url: str, store: OnlineStore) -> None:
        self.folder = folder
        self.store = store
        self.log = RedisStreamsEventLog(redis_url, uuid.uuid4().hex, partitions=4)
        self.lake = Lake(str(folder / "lake"))
        self.ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
        self.ledger.create_tables()
        self.registry = CollectorRegistry()
        store.set(CONSENT_HEAD, 1)

    def lander(self, lake: Any = None, ledger: Any = None, log: Any = None) -> Lander:
        """A lander as a process of its own would have it, perhaps with parts that fail."""
        log, lake = log or self.log, lake or self.lake
        self.registry = CollectorRegistry()
        projection = ConsentProjection(self.store, SECRET)
        return Lander(log, lake, projection, ErasureKeeper(ledger or self.ledger, log), self.registry)

    def allow(self, *people: str, consent: Consent = WILLING) -> None:
        """Write the people's consent into the projection."""
        for person in people:
            self.store.set(consent_key(subject(person, SECRET)), consent.encode())

    def send(self, *records: LogRecord) -> list[Position]:
        """Append records to the log."""
        return self.log.append([(key(record), encode(record)) for record in records])

    def land(self, lander: Lander | None = None) -> None:
        """Land all there is, as one process from start to orderly stop."""
        lander = lander or self.lander()
        try:
            while self.lag():
                lander.step(timeout=0.2)
        finally:
            lander.close()

    def land_with(self, lander: Lander) -> None:
        """Land all there is, waiting out what is put off."""
        while self.lag():
            with suppress(LakeConflict):
                lander.step(timeout=0.2)

    def lag(self) -> int:
        """Records not landed yet."""
        landed = self.lake.landed(EVENTS)
        return sum(end - landed.get(partition, 0) for partition, end in self.log.end_offsets().items())

    def landed(self, table: str = EVENTS, column: str = "event_id") -> list[Any]:
        """A column of the lake, sorted."""
        try:
            return self.lake.snapshot(table).rows[column].sort().to_list()
        except LakeEmpty:
            return []

    def metric(self, name: str, **labels: str) -> float | None:
        """A metric of the last lander."""
        return self.registry.get_sample_value(name, labels)

    def open_erasure(self, user_id: str) -> ErasureMark:
        """An erasure in the ledger, and its mark, which still has to be sent."""
        person = subject(user_id, SECRET)
        entry = Entry(person, "erase", (), "1", "test", AT)
        [receipt] = self.ledger.append_receipts([entry], lambda _: uuid.uuid4().hex)
        erasure_id = self.ledger.open_erasure(person, receipt.number, AT)
        return ErasureMark(user_id=user_id, receipt=100, erasure_id=erasure_id, at=AT)

    def traces(self, needle: str) -> list[Path]:
        """Files of lake and ledger that hold these bytes."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return [path for path in files if needle.encode() in path.read_bytes()]


@pytest.fixture
def world(tmp_path: Path, redis_url: str, store: OnlineStore) -> Iterator[World]:
    world = World(tmp_path, redis_url, store)
    yield world
    world.log.close()
    world.ledger.close()


def event(number: int, user: str = "u1", receipt: int = 1) -> AcceptedEvent:
    return AcceptedEvent(
        event_id=f"e{number:04}",
        type="play",
        user_id=user,
        item_id="m1",
        occurred_at=AT,
        receipt=receipt,
        accepted_at=AT,
    )


def withdrawal(user: str, receipt: int) -> ConsentMark:
    return ConsentMark(user_id=user, receipt=receipt, purposes=(), at=AT)


def test_an_event_lands_with_all_that_it_says(world: World) -> None:
    world.allow("u1")
    sent = event(1).model_copy(update={"recommendation_id": "r1", "receipt": 7})
    [at] = world.send(sent)
    world.land()
    assert world.lake.snapshot(EVENTS).rows.to_dicts() == [
        sent.model_dump(exclude={"kind"}) | {"day": AT.date(), "partition": at.partition, "offset": at.offset}
    ]


def test_items_land_in_a_table_of_their_own(world: World) -> None:
    item = Item(item_id="m1", attributes={"title": "Ünited", "genres": ["a", "b"], "year": 1999}, hidden=True)
    [at] = world.send(item)
    world.land()
    assert world.lake.snapshot(ITEMS).rows.to_dicts() == [
        {
            "item_id": "m1",
            "attributes": '{"title":"Ünited","genres":["a","b"],"year":1999}',
            "hidden": True,
            "partition": at.partition,
            "offset": at.offset,
        }
    ]


def test_a_second_process_continues_where_the_first_stopped(world: World) -> None:
    world.allow("u1", "u2")
    world.send(*(event(n, f"u{n % 2 + 1}") for n in range(20)))
    world.land()
    world.send(*(event(n, f"u{n % 2 + 1}") for n in range(20, 40)))
    world.land()
    world.land()
    assert world.landed() == [f"e{n:04}" for n in range(40)]


def test_the_fence_counts_and_not_what_the_group_committed(world: World) -> None:
    """A committed offset ahead of the lake, as after a crash between the two the other way round, loses nothing."""
    world.allow("u1")
    [at] = world.send(event(1))
    consumer = world.log.consumer("lander")
    consumer.poll(0.5)
    consumer.commit({at.partition: at.offset + 1})
    consumer.close()
    world.land()
    assert world.landed() == ["e0001"]


# --- consent ---------------------------------------------------------------------------------------------------------


def test_an_event_under_a_receipt_that_was_withdrawn_is_dropped_and_counted(world: World) -> None:
    world.allow("u1", consent=Consent(9, 5, frozenset({PERSONALIZATION})))
    world.allow("u2", consent=Consent(0, 5))
    world.send(event(1, receipt=4), event(2, receipt=5), event(3, receipt=9), event(4, "u2", receipt=1))
    world.land()
    assert world.landed() == ["e0003"]
    assert world.metric("marquee_dropped_on_withdrawal_total") == 3


def test_a_mark_counts_against_events_of_its_own_batch(world: World) -> None:
    """Even if the projection did not know of it when it was asked."""
    world.allow("u1")
    world.send(event(1, receipt=1), withdrawal("u1", 2), event(2, receipt=3))
    world.land()
    assert world.landed() == ["e0002"]


def test_a_withdrawal_takes_out_what_had_landed(world: World) -> None:
    world.allow("u1", "u2")
    world.send(event(1), event(2, "u2"))
    world.land()
    world.send(withdrawal("u1", 2), event(3, receipt=3))
    world.land()
    assert world.landed() == ["e0002", "e0003"]
    assert world.metric("marquee_forgotten_rows_total") == 1


def test_a_narrower_consent_that_leaves_personalization_out_is_a_withdrawal(world: World) -> None:
    world.allow("u1", "u2")
    world.send(event(1), event(2, "u2"))
    world.land()
    world.send(
        ConsentMark(user_id="u1", receipt=2, purposes=("analytics",), at=AT),
        ConsentMark(user_id="u2", receipt=3, purposes=("analytics", PERSONALIZATION), at=AT),
    )
    world.land()
    assert world.landed() == ["e0002"]


def test_without_the_projection_nothing_lands_and_nothing_is_lost(world: World) -> None:
    world.allow("u1")
    world.send(event(1))
    world.store.delete(CONSENT_HEAD)
    lander = world.lander()
    for _ in range(2):
        with pytest.raises(ConsentUnavailable):
            lander.step(timeout=0.2)
    assert world.landed() == []
    world.store.set(CONSENT_HEAD, 1)
    world.land(lander)
    assert world.landed() == ["e0001"]


# --- dead letters ----------------------------------------------------------------------------------------------------


def test_what_is_no_record_of_ours_becomes_a_dead_letter(world: World) -> None:
    world.allow("\N{SNOWMAN}", "k", "u9")
    bad = {"\N{SNOWMAN}".encode(): b"\xfe\xff", b"k": b"{"}
    bad[b"u9"] = encode(event(1)).replace(b'"receipt":1', b'"receipt":0')
    world.log.append(list(bad.items()))
    world.send(item := Item(item_id="m1"))
    world.land()
    letters = world.lake.snapshot(DEAD_LETTERS).rows
    assert dict(zip(letters["key"], letters["value"], strict=True)) == bad
    assert all(letters["reason"].str.len_chars() > 0)
    assert world.landed(ITEMS, "item_id") == [item.item_id]
    assert world.metric("marquee_landed_rows_total", table="dead_letters") == 3


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"receipt":1', b'"receipt":9223372036854775808'),
        (b'"occurred_at":"2026-03-01T12:00:00Z"', b'"occurred_at":"9999-12-31T23:59:59-23:00"'),
        (b'"accepted_at":"2026-03-01T12:00:00Z"', b'"accepted_at":"0001-01-01T00:00:00+23:00"'),
        (b'"item_id":"m1"', b'"item_id":"\\ud800"'),
    ],
)
def test_what_the_lake_cannot_store_stops_nobody_else(world: World, old: bytes, new: bytes) -> None:
    world.allow("u1")
    assert old in encode(event(1))
    world.log.append([(b"u1", encode(event(1)).replace(old, new))])
    world.send(event(2), Item(item_id="m1", attributes={"year": 2**63 - 1, "score": 1e300}))
    world.log.append([(b"m2", b'{"kind":"item","item_id":"m2","attributes":{"x":NaN}}')])
    world.land()
    assert world.landed() == ["e0002"]
    assert world.landed(ITEMS, "item_id") == ["m1"]
    assert len(world.landed(DEAD_LETTERS, "reason")) == 2


def test_an_event_of_a_type_the_domain_does_not_know_lands(world: World) -> None:
    world.allow("u1")
    world.send(event(1).model_copy(update={"type": "danced"}))
    world.land()
    assert world.landed(column="type") == ["danced"]


def test_a_dead_letter_of_somebody_who_has_withdrawn_is_dropped(world: World) -> None:
    world.allow("gone", consent=Consent(0, 5))
    world.allow("analytics only", consent=Consent(7, 5, frozenset({"analytics"})))
    world.allow("here")
    world.log.append([(b"gone", b"1"), (b"analytics only", b"2"), (b"here", b"3")])
    world.land()
    assert world.landed(DEAD_LETTERS, "key") == [b"here"]
    assert world.metric("marquee_dropped_on_withdrawal_total") == 2


def test_of_a_dead_letter_of_nobody_we_know_only_its_place_is_kept(world: World) -> None:
    """Not its key, its bytes, nor the names of its fields, which the reason would tell."""
    world.allow("here")
    sent = [
        (b"canary-key", b'{"kind":"event","canary-field":"canary-value"}'),
        (b"\xffcanary", b"canary"),
        (b"here", b"x"),
    ]
    positions = world.log.append(sent)
    world.land()
    rows = world.lake.snapshot(DEAD_LETTERS).rows
    assert set(rows.select("partition", "offset").rows()) == set(positions)
    assert sorted(rows["value"].to_list()) == [b"", b"", b"x"]
    assert sorted(rows["key"].to_list()) == [b"", b"", b"here"]
    assert "canary" not in rows.drop("key", "value").write_csv()
    assert world.traces("canary") == []
    assert world.metric("marquee_landed_rows_total", table="dead_letters") == 3


def test_a_withdrawal_takes_the_dead_letters_too(world: World) -> None:
    world.allow("u1")
    world.log.append([(b"u1", b"before")])
    world.land()
    world.send(withdrawal("u1", 2))
    world.log.append([(b"u1", b"after")])
    world.land()
    assert world.landed(DEAD_LETTERS, "value") == [b"after"]


# --- crashes and rivals ----------------------------------------------------------------------------------------------


class Mortal:
    """Passes calls on to a part of the platform, and dies right before or right after one of them."""

    def __init__(self, part: Any, countdown: Iterator[int], fatal: int, after: bool) -> None:
        self._part, self._countdown, self._fatal, self._after = part, countdown, fatal, after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._part, name)
        return self._dying(method) if name in {"append", "forget", "forget_dead_letters", "purge", *LEDGER} else method

    def _dying(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            turn = next(self._countdown) == self._fatal
            if turn and not self._after:
                raise Killed
            result = method(*arguments)
            if turn:
                raise Killed
            return result

        return call


LEDGER = {"set_mark", "sign_step", "complete_erasure"}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_between_any_two_steps_it_ends_with_the_same_lake(world: World, after: bool) -> None:
    """One batch with everything in it: the process dies at its first write, the next at its second, and so on."""
    world.allow("u1", "u2", "u3", "canary")
    world.send(event(1), event(2, "u2"), event(3, "canary"), event(4, "u3"))
    world.log.append([(b"canary", b"not JSON")])
    world.land()
    world.allow("canary", consent=Consent(0, 100))
    world.allow("u3", consent=Consent(0, 90))
    mark = world.open_erasure("canary")
    others = [ErasureStep(erasure_id=mark.erasure_id, stage=s, removed=1, at=AT) for s in ("lists", "nearline")]
    world.send(event(5), withdrawal("u3", 90), Item(item_id="m1"), event(6, "u2"), mark, *others)
    world.log.append([(b"u1", b"not JSON")])

    deaths = 0
    for fatal in range(100):
        turns = itertools.count()
        lake, ledger, log = (Mortal(part, turns, fatal, after) for part in (world.lake, world.ledger, world.log))
        lander = world.lander(lake, ledger, log)
        try:
            for _ in range(3):
                lander._keep_at = 0.0
                lander.step(timeout=0.2)
            break
        except Killed:
            deaths += 1
        finally:
            lander.close()

    assert deaths >= 10
    assert world.landed() == ["e0001", "e0002", "e0005", "e0006"]
    assert world.landed(ITEMS, "item_id") == ["m1"]
    assert world.landed(DEAD_LETTERS, "value") == [b"not JSON"]
    state = world.ledger.erasure(mark.erasure_id)
    assert state is not None
    assert state.completed_at is not None
    assert set(state.steps) == {"log", "lake", "dead_letters", "lists", "nearline"}
    assert world.traces("canary") == []


class Unfenced(Lake):
    """What a lander without fences would do: the control that shows that the tests below can fail."""

    def append(self, table: str, rows: pl.DataFrame, spans: Mapping[int, Span], tallies: Any = None) -> None:
        write_deltalake(self._open_or_create(table), rows.select(TABLES[table].keys()), mode="append")


def a_zombie_lands(world: World, lake: Lake) -> list[str]:
    """A lander with a batch in hand is thought dead; another lands the same records; then the first one wakes up."""
    world.allow("u1", "u2")
    world.send(*(event(n, f"u{n % 2 + 1}") for n in range(10)))
    zombie = world.lander(lake)
    in_hand = zombie._gather(0.5)
    zombie.close()
    other = world.lander(lake)
    other.step(timeout=0.5)
    other.close()
    zombie._land(in_hand)
    return world.landed()


def test_a_lander_that_was_thought_dead_lands_nothing_twice(world: World) -> None:
    with pytest.raises(LakeConflict):
        a_zombie_lands(world, world.lake)
    assert world.landed() == [f"e{n:04}" for n in range(10)]


def test_without_fences_the_same_story_ends_in_duplicates(world: World) -> None:
    assert len(a_zombie_lands(world, Unfenced(str(world.folder / "lake")))) == 20


def test_after_a_conflict_it_continues_at_the_fence(world: World) -> None:
    world.allow("u1")
    [first, *_] = world.send(*(event(n) for n in range(10)))

    class Raced(Lake):
        raced = False

        def append(self, table: str, rows: pl.DataFrame, spans: Mapping[int, Span], tallies: Any = None) -> None:
            if not self.raced:
                self.raced = True
                world.lake.append(table, rows[:4], {first.partition: Span(first.offset, first.offset + 4)})
            super().append(table, rows, spans, tallies)

    lander = world.lander(Raced(str(world.folder / "lake")))
    with pytest.raises(LakeConflict):
        lander.step(timeout=0.5)
    world.land(lander)
    assert world.landed() == [f"e{n:04}" for n in range(10)]


def put_back(world: World, lake: Lake) -> list[str]:
    """The lake's folder is replaced by an older copy of it while a lander runs."""
    folder = world.folder / "lake"
    world.allow("u1")
    lander = world.lander(lake)
    world.send(*(event(n) for n in range(5)))
    world.land_with(lander)
    shutil.copytree(folder, world.folder / "older")
    world.send(*(event(n) for n in range(5, 10)))
    world.land_with(lander)
    shutil.rmtree(folder)
    (world.folder / "older").rename(folder)
    world.send(*(event(n) for n in range(10, 15)))
    world.land_with(lander)
    lander.close()
    return world.landed()


def test_a_lake_that_is_put_back_under_a_lander_gets_all_that_it_lacks(world: World) -> None:
    assert put_back(world, world.lake) == [f"e{n:04}" for n in range(15)]


class TrustsItself(Lake):
    """A lake that does not look whether it has what lies before a batch."""

    def append(self, table: str, rows: pl.DataFrame, spans: Mapping[int, Span], tallies: Any = None) -> None:
        landed = self.landed(table)
        super().append(table, rows, {p: Span(landed.get(p, 0), span.end) for p, span in spans.items()}, tallies)


def test_a_lake_that_does_not_look_is_found_to_miss_events(world: World) -> None:
    lake = TrustsItself(str(world.folder / "lake"))
    assert put_back(world, lake) == [f"e{n:04}" for n in (*range(5), *range(10, 15))]


def test_records_that_the_log_no_longer_has_are_told_in_the_account(world: World) -> None:
    world.allow("u1")
    *_, last = world.send(*(event(n) for n in range(4)))
    world.store.xtrim(f"log:{world.log._topic}:{last.partition}", maxlen=1, approximate=False)
    world.land()
    assert world.landed() == ["e0003"]
    assert world.lake.tallies()[last.partition]["gone"] == 3


def test_a_partition_that_left_and_came_back_within_a_batch_lands_once(world: World) -> None:
    world.allow("u1")
    [first, *_] = world.send(*(event(n) for n in range(6)))
    lander = world.lander()
    batch = lander._gather(0.5)
    lander._consumer.seek(first.partition, first.offset)
    batch.add(lander._consumer.poll(0.5))
    lander._land(batch)
    lander.close()
    assert world.landed() == [f"e{n:04}" for n in range(6)]


def test_an_outage_puts_a_batch_off_and_run_goes_on(world: World) -> None:
    """The log refuses the erasure's step twice; the batch begins anew until it is taken."""
    world.allow("u1")
    world.send(event(1), world.open_erasure("u9"))
    refusals = iter([True, True])

    class Stop:
        waits = 0

        def is_set(self) -> bool:
            return world.lag() == 0

        def wait(self, _: float) -> None:
            self.waits += 1

    class Failing(Mortal):
        def _dying(self, method: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                if next(refusals, False):
                    raise EventLogUnavailable("for a moment")
                return method(*arguments)

            return call

    stop = Stop()
    lander = world.lander(log=Failing(world.log, itertools.count(), 0, after=False))
    lander.run(stop)  # type: ignore[arg-type]
    assert stop.waits == 2
    assert world.metric("marquee_lander_failures_total", cause="EventLogUnavailable") == 2
    assert world.landed() == ["e0001"]


def test_the_lake_is_compacted_now_and_then(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.lander.COMMITS_PER_COMPACTION", 3)
    world.allow("u1")
    lander = world.lander()
    for n in range(3):
        world.send(event(n))
        lander.step(timeout=0.5)
    lander.close()
    assert len(DeltaTable(world.folder / "lake" / EVENTS).file_uris()) == 1
    assert world.landed() == ["e0000", "e0001", "e0002"]


def test_lag_is_shown_per_partition(world: World) -> None:
    world.allow("u1")
    [at] = world.send(event(1))
    world.land()
    assert world.metric("marquee_log_lag", group="lander", partition=str(at.partition)) == 0


def test_the_erasure_s_step_is_signed_in_the_log(world: World) -> None:
    world.allow("canary")
    world.send(event(1, "canary"), event(2, "canary"))
    world.land()
    assert world.traces("canary") != []
    world.allow("canary", consent=Consent(0, 100))
    mark = world.open_erasure("canary")
    world.send(mark)
    world.land()
    consumer = world.log.consumer("reader")
    steps = [r for record in consumer.poll(0.5) if isinstance(r := decode(record.value), ErasureStep)]
    consumer.close()
    assert [(step.erasure_id, step.stage, step.removed) for step in steps] == [
        (mark.erasure_id, "dead_letters", 0),
        (mark.erasure_id, "lake", 2),
    ]
    assert world.traces("canary") == []
    assert os.listdir(world.folder / "lake")


# --- a log that was lost ---------------------------------------------------------------------------------------------


def lose_the_log(world: World) -> None:
    """Everything that Redis held of the log is gone."""
    world.store.delete(*world.store.scan_iter(f"log:{world.log._topic}:*"))


def after_the_log_was_lost(world: World, log: RedisStreamsEventLog) -> list[str]:
    """Five events land; the log is lost while a lander has five more in hand; five are sent when it is there again."""
    world.log = log
    world.allow("u1")
    lander = world.lander()
    world.send(*(event(n) for n in range(5)))
    world.land_with(lander)
    world.send(*(event(n) for n in range(5, 10)))
    in_hand = lander._gather(0.5)
    lose_the_log(world)
    log.keep(lambda: world.lake.landed(EVENTS))
    lander._land(in_hand)
    world.send(*(event(n) for n in range(10, 15)))
    for _ in range(10):
        lander.step(timeout=0.1)
    lander.close()
    return world.landed()


def test_what_is_accepted_after_the_log_was_lost_lands_and_so_does_what_a_lander_had_in_hand(world: World) -> None:
    assert after_the_log_was_lost(world, world.log) == [f"e{n:04}" for n in range(15)]
    assert sum(tally["gone"] for tally in world.lake.tallies().values()) > 0


class BeginsAnew(RedisStreamsEventLog):
    """A log that does not ask what was landed."""

    def keep(self, fences: Any) -> None:
        self._ends._known.clear()
        super().keep(dict)


def test_a_log_that_begins_anew_is_found_to_lose_what_it_accepted(world: World, redis_url: str) -> None:
    log = BeginsAnew(redis_url, world.log._topic, partitions=4)
    assert after_the_log_was_lost(world, log) == [f"e{n:04}" for n in range(10)]
