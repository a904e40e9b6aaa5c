"""What holds about consent whatever happens: two collectors on one ledger, one Redis, one log, and all that goes wrong.

1. No event is in the log without a receipt that was valid when it was accepted.
2. The gate is shut when the ledger or the projection is down, stale or set back, or the clock jumps.
3. After a withdrawal is answered, nothing of the person reaches log or lake, on any collector.
4. A refused event leaves no trace.
5. What was given for another purpose than personalization reaches neither log nor lake.

Each is shown to be looked after: the same machine finds every one of the broken platforms at the end of this file. That
lists go, and do not come back with a publish, is asked in `tests/unit/training/test_publish.py`,
`test_schedule.py` and `tests/unit/serving/test_nearline.py`.
"""

import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from prometheus_client import CollectorRegistry

from infra.database import LedgerUnavailable, Receipt
from infra.lake import EVENTS, Lake, LakeEmpty
from ingest import events as contract
from ingest.erasure import ErasureKeeper
from ingest.events import (
    CONSENT_HEAD,
    PERSONALIZATION,
    AcceptedEvent,
    Consent,
    ConsentUnavailable,
    decode,
    is_mark,
    now,
    subject,
)
from ingest.gate import FRESH_SECONDS, Judgement
from ingest.lander import Lander
from ingest.landing import Batch
from ingest.projection import fold

SECRET = "a secret"
PEOPLE = ("ann", "bob", "cy")
PURPOSES = some.sets(some.sampled_from([PERSONALIZATION, "analytics", "research"]), min_size=1).map(sorted)
WORKERS = some.sampled_from([0, 1])
Break = Callable[["Platform"], None]


class Platform:
    """Two ingest processes as far as they can be told apart, and a lander."""

    def __init__(self, new_ingest: Any, folder: Path, redis_url: str, guards: bool) -> None:
        self.folder = folder
        topic = uuid.uuid4().hex
        self.workers = [new_ingest(folder, redis_url, redis_url, topic) for _ in range(2)]
        self.store = self.workers[0].store
        self.store.flushall()
        self.store.set(f"log:{topic}:partitions", 2)
        self.lake = Lake(str(folder / "lake"))
        self.ledger_is_up = True
        for worker in self.workers:
            worker.gate._guards = guards
            worker.consents._ledger = worker.consents._projection._ledger = Failing(worker.ledger, self)
            worker.rebuild()

    def records(self) -> list[Any]:
        """Every record of the log; in order, as far as one person is concerned."""
        log = self.workers[0].log
        entries = (entry for p in range(2) for entry in self.store.xrange(f"log:{log._topic}:{p}"))  # type: ignore[union-attr]
        return [decode(fields[b"v"]) for _, fields in entries]

    def receipts(self) -> list[Receipt]:
        return list(self.workers[0].ledger.receipts_after(0))

    def land(self) -> None:
        """Land all there is, as one process."""
        worker, registry = self.workers[0], CollectorRegistry()
        lander = Lander(worker.log, self.lake, worker.projection, ErasureKeeper(worker.ledger, worker.log), registry)
        while sum(worker.log.end_offsets().values()) > sum(self.lake.landed(EVENTS).values()):
            lander.step(timeout=0.1)
        lander.close()

    def landed(self) -> pl.DataFrame:
        try:
            return self.lake.snapshot(EVENTS).rows
        except LakeEmpty:
            return pl.DataFrame({"user_id": [], "receipt": [], "event_id": []})

    def everything(self) -> bytes:
        """Keys and values of Redis, files of the ledger, rows of the lake."""
        values = [part for key in self.store.scan_iter() for part in (key, self.store.dump(key))]
        files = [path.read_bytes() for path in self.folder.glob("ledger.db*")]
        return b"\n".join([*values, *files, self.landed().write_csv().encode()])  # type: ignore[list-item]

    def close(self) -> None:
        for worker in self.workers:
            worker.close()


class Failing:
    """A ledger that does not answer while the platform says so."""

    def __init__(self, ledger: Any, platform: Platform) -> None:
        self._ledger, self._platform = ledger, platform

    def __getattr__(self, name: str) -> Any:
        if not self._platform.ledger_is_up:
            raise LedgerUnavailable("down")
        return getattr(self._ledger, name)


class Held(NamedTuple):
    """A batch that is through the gate and not in the log yet."""

    go_on: threading.Event
    thread: threading.Thread


class Life(RuleBasedStateMachine):
    """What people, collectors and their surroundings may do, in any order."""

    def __init__(self, platform: Platform) -> None:
        super().__init__()
        self.platform = platform
        self.allowed: dict[str, frozenset[str]] = {}
        self.refused: list[str] = []
        self.held: dict[int, Held] = {}
        self.fresh_until = [FRESH_SECONDS, FRESH_SECONDS]
        self.lost = False
        self.backup: dict[bytes, bytes] | None = None

    def worker(self, number: int) -> Any:
        return self.platform.workers[number]

    # --- people ---

    @rule(worker=WORKERS, person=some.sampled_from(PEOPLE), purposes=PURPOSES)
    def grant(self, worker: int, person: str, purposes: list[str]) -> None:
        self.say(worker, person, frozenset(purposes), lambda c: c.grant(person, purposes, "1", "test"))

    @rule(worker=WORKERS, person=some.sampled_from(PEOPLE))
    def withdraw(self, worker: int, person: str) -> None:
        self.say(worker, person, frozenset(), lambda c: c.withdraw(person, "1", "test"))
        if not self.held:
            self.send(1 - worker, [person])

    @rule(worker=WORKERS, person=some.sampled_from(PEOPLE))
    def erase(self, worker: int, person: str) -> None:
        if self.allowed.get(person):
            self.say(worker, person, frozenset(), lambda c: c.erase(person, "1", "test"))

    def say(self, worker: int, person: str, purposes: frozenset[str], how: Callable[[Any], object]) -> None:
        if worker in self.held:
            return  # It would wait for the batch, and here nobody else lets that go on.
        try:
            how(self.worker(worker).consents)
        except LedgerUnavailable:
            assert not self.platform.ledger_is_up
        else:
            self.allowed[person] = purposes

    # --- events ---

    @rule(worker=WORKERS, people=some.lists(some.sampled_from([*PEOPLE, "stranger"]), min_size=1, max_size=3))
    def send(self, worker: int, people: list[str]) -> None:
        if worker in self.held:
            return  # It would wait behind the batch.
        batch = [an_event(person) for person in people]
        shut = self.lost or not self.fresh_until[worker] > self.worker(worker).clock
        try:
            verdicts = self.worker(worker).collector.collect(batch)
        except ConsentUnavailable:
            assert shut or self.backup is not None, "a gate is shut for nothing"
            self.refused += [event["event_id"] for event in batch]
            return
        assert not shut, "2: the gate is open though nobody can tell what people allow"
        for event, verdict in zip(batch, verdicts, strict=True):
            wanted = PERSONALIZATION in self.allowed.get(event["user_id"], ())
            assert (verdict.code == "accepted") == wanted, "1, 3, 5: what is taken is not what is allowed"
            self.refused += [] if wanted else [event["event_id"]]

    @rule(worker=WORKERS, person=some.sampled_from(PEOPLE))
    def send_with_gpc(self, worker: int, person: str) -> None:
        event = an_event(person)
        [verdict] = self.worker(worker).collector.collect([event], opted_out=True)
        assert verdict.code == "consent_missing"
        self.refused.append(event["event_id"])

    @rule(worker=WORKERS, person=some.sampled_from(PEOPLE))
    def send_and_be_held_before_the_log(self, worker: int, person: str) -> None:
        """As a process is that gets no time, or is stopped, between the gate and the log."""
        if worker in self.held:
            return
        collector, reached, go_on = self.worker(worker).collector, threading.Event(), threading.Event()
        log = self.worker(worker).log

        def slow(records: Any, guard: Any) -> Any:
            collector._log = log
            reached.set()
            go_on.wait(20)
            return log.append(records, guard)

        def collect() -> None:
            try:
                [verdict] = collector.collect([event])
            except ConsentUnavailable:
                self.refused.append(event["event_id"])
            else:
                self.refused += [] if verdict.code == "accepted" else [event["event_id"]]
            collector._log = log
            reached.set()

        event = an_event(person)
        collector._log = type("Slow", (), {"append": staticmethod(slow)})()
        thread = threading.Thread(target=collect)
        thread.start()
        reached.wait(20)
        self.held[worker] = Held(go_on, thread)

    @precondition(lambda self: self.held)
    @rule(worker=WORKERS)
    def go_on(self, worker: int) -> None:
        if held := self.held.pop(worker, None):
            held.go_on.set()
            held.thread.join(20)

    @rule(worker=WORKERS, person=some.sampled_from(PEOPLE))
    def a_withdrawal_overtakes_a_batch(self, worker: int, person: str) -> None:
        """The one order of things that chance finds too seldom; what happens around it is still up to chance."""
        self.all_is_well_and_allowed(person)
        self.send_and_be_held_before_the_log(worker, person)
        self.withdraw(1 - worker, person)
        self.go_on(worker)

    @rule(worker=WORKERS, person=some.sampled_from(PEOPLE))
    def somebody_is_heard_and_withdraws(self, worker: int, person: str) -> None:
        self.all_is_well_and_allowed(person)
        self.grant(worker, next(each for each in PEOPLE if each != person), [PERSONALIZATION])
        self.send(worker, [person])
        self.withdraw(1 - worker, person)

    def all_is_well_and_allowed(self, person: str) -> None:
        self.platform.ledger_is_up = True
        for worker in (0, 1):
            self.go_on(worker)
            self.keep(worker)
        if PERSONALIZATION not in self.allowed.get(person, ()):
            self.grant(0, person, [PERSONALIZATION])

    # --- surroundings ---

    @rule(up=some.sampled_from([True, True, False]))
    def ledger(self, up: bool) -> None:
        self.platform.ledger_is_up = up

    @rule(seconds=some.sampled_from([0.5, 1.0, 6.0, FRESH_SECONDS]))
    def time_passes(self, seconds: float) -> None:
        for worker in self.platform.workers:
            worker.clock += seconds

    @rule(hours=some.integers(-48, 48))
    def the_clock_on_the_wall_jumps(self, hours: int) -> None:
        JUMP["hours"] = hours

    @rule(worker=WORKERS)
    def keep(self, worker: int) -> None:
        """What each process does once a second."""
        try:
            self.worker(worker).rebuild()
        except LedgerUnavailable:
            assert not self.platform.ledger_is_up
            return
        self.fresh_until[worker] = self.worker(worker).clock + FRESH_SECONDS
        self.lost = False
        self.backup = None

    @rule(worker=WORKERS)
    def redis_loses_the_projection(self, worker: int) -> None:
        keys = self.platform.store.keys("{consent}:*")
        self.platform.store.delete(*keys, CONSENT_HEAD)  # type: ignore[misc]
        self.lost = True
        self.send(worker, list(PEOPLE))

    @rule(person=some.sampled_from(PEOPLE))
    def redis_comes_back_with_an_old_file(self, person: str) -> None:
        """All of it was compared since; then a withdrawal, a comparison, and the file of before."""
        self.all_is_well_and_allowed(person)
        for worker in (0, 1):
            self.keep(worker)
        store = self.platform.store
        self.backup = {key: store.dump(key) for key in store.keys("{consent}:*")}  # type: ignore
        backup = self.backup
        self.withdraw(0, person)
        for worker in (0, 1):
            self.keep(worker)
        for key, value in backup.items():
            store.restore(key, 0, value, replace=True)
        self.backup = backup
        self.send(1, [person])

    @rule()
    def land(self) -> None:
        if not self.lost and not self.backup and not self.held:
            self.platform.land()

    # --- what has to hold ---

    @invariant()
    def every_event_in_the_log_was_allowed(self) -> None:
        receipts = {receipt.number: receipt for receipt in self.platform.receipts()}
        ended: dict[str, int] = {}
        for record in self.platform.records():
            if is_mark(record):
                ended[record.user_id] = record.receipt
            if isinstance(record, AcceptedEvent):
                given = receipts[record.receipt]
                assert given.subject == subject(record.user_id, SECRET), "1: somebody else's receipt"
                assert given.action == "grant", "1: a receipt that allows nothing"
                assert PERSONALIZATION in given.purposes, "5: given for another purpose"
                if self.platform.workers[0].gate._guards:
                    assert record.receipt > ended.get(record.user_id, 0), "3: behind the mark of its withdrawal"

    def teardown(self) -> None:
        for worker in (0, 1):
            self.go_on(worker)
        try:
            self.platform.ledger_is_up = True
            JUMP["hours"] = 0
            for worker in (0, 1):
                self.keep(worker)
            self.every_event_in_the_log_was_allowed()
            self.platform.land()
            self.the_lake_holds_what_is_allowed_now()
            self.what_was_refused_is_nowhere()
        finally:
            self.platform.close()

    def the_lake_holds_what_is_allowed_now(self) -> None:
        receipts = self.platform.receipts()
        for person, receipt in self.platform.landed().select("user_id", "receipt").unique().iter_rows():
            consent = fold(each for each in receipts if each.subject == subject(person, SECRET))
            assert consent.allows(PERSONALIZATION), "3: in the lake after a withdrawal"
            assert consent.covers(receipt), "3: in the lake under a receipt that was withdrawn"

    def what_was_refused_is_nowhere(self) -> None:
        everything = self.platform.everything()
        assert not [event for event in self.refused if event.encode() in everything], "4: a refused event left a trace"


JUMP = {"hours": 0}


def an_event(person: str) -> dict[str, Any]:
    at = now() - timedelta(days=3)
    names = {"event_id": uuid.uuid4().hex, "type": "play", "user_id": person, "item_id": "m1"}
    return {**names, "occurred_at": at.isoformat()}


@contextmanager
def jumping_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def jumped() -> Any:
        return contract.now() + timedelta(hours=JUMP["hours"])

    with monkeypatch.context() as patch:
        for module in ("collector", "consent", "lander"):
            patch.setattr(f"ingest.{module}.now", jumped)
        patch.setattr("ingest.collector.TURN_SECONDS", 60)  # Batches are held for as long as chance has it.
        yield


def live(
    new_ingest: Any, tmp_path: Path, redis_url: str, guards: bool, broken: Break | None = None, examples: int = 25
) -> None:
    """Let the machine run, each time on a new platform."""

    def begin() -> Life:
        folder = tmp_path / uuid.uuid4().hex
        folder.mkdir()
        platform = Platform(new_ingest, folder, redis_url, guards)
        if broken:
            broken(platform)
        return Life(platform)

    run_state_machine_as_test(
        begin,
        settings=settings(
            max_examples=examples,
            stateful_step_count=15,
            deadline=None,
            database=None,
            derandomize=True,
            print_blob=False,
            verbosity=Verbosity.quiet if broken else Verbosity.normal,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        ),
    )


@pytest.mark.parametrize("guards", [True, False], ids=["log and projection on one Redis", "log elsewhere"])
def test_the_invariants_hold(
    new_ingest: Any, tmp_path: Path, redis_url: str, store: Any, guards: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the log is elsewhere, the third holds for the lake, not for the log: see `ingest.gate`."""
    with jumping_clock(monkeypatch):
        live(new_ingest, tmp_path, redis_url, guards)


# --- broken platforms ------------------------------------------------------------------------------------------------


FOUND = (AssertionError, KeyError, ConsentUnavailable)
"""A receipt that nobody was given is a KeyError; a gate that is asked though it need not be may be shut."""


def the_log_does_not_look_at_the_guard(platform: Platform) -> None:
    for worker in platform.workers:
        append = worker.log.append
        worker.log.append = lambda records, guard=None, append=append: append(records)


def the_gate_trusts_whatever_redis_says(platform: Platform) -> None:
    for worker in platform.workers:
        worker.gate._check = lambda head: None


def the_gate_does_not_remember_how_much_there_was(platform: Platform) -> None:
    for worker in platform.workers:
        check = worker.gate._check
        worker.gate._check = lambda head, check=check: check(2**62)


def the_gate_guesses_when_the_projection_is_lost(platform: Platform) -> None:
    for worker in platform.workers:
        worker.projection._ask = lambda keys, store=worker.store: (2**62, store.mget(keys) if keys else [])


def any_purpose_will_do(platform: Platform) -> None:
    def widened(judge: Any, people: Sequence[str], purpose: str) -> Judgement:
        found: Mapping[str, Consent] = judge(people, purpose).consents
        personal = frozenset({PERSONALIZATION})
        return Judgement({p: c._replace(purposes=personal) if c.granted else c for p, c in found.items()}, None)

    for worker in platform.workers:
        judge = worker.gate.judge
        worker.gate.judge = lambda people, purpose, judge=judge: widened(judge, people, purpose)


def withdrawals_are_answered_before_the_gate_knows(platform: Platform) -> None:
    for worker in platform.workers:
        writer = worker.consents._projection
        apply = writer.apply
        writer.apply = lambda new, apply=apply: apply([each for each in new if each.action == "grant"])


def events_carry_the_receipt_of_somebody_else(platform: Platform) -> None:
    for worker in platform.workers:
        append = worker.log.append

        def shifted(records: Any, guard: Any = None, append: Any = append) -> Any:
            newest = b'"receipt":%d,' % platform.receipts()[-1].number
            return append([(key, re.sub(rb'"receipt":\d+,', newest, value)) for key, value in records], guard)

        worker.log.append = shifted


def what_is_refused_is_kept_for_a_look(platform: Platform) -> None:
    for worker in platform.workers:
        collect = worker.collector.collect

        def keeping(batch: Any, opted_out: bool = False, collect: Any = collect, store: Any = worker.store) -> Any:
            verdicts = collect(batch, opted_out)
            refused = [verdict.id for verdict in verdicts if verdict.code != "accepted"]
            store.rpush("refused", *refused or ["none"])
            return verdicts

        worker.collector.collect = keeping


def the_browser_s_refusal_is_not_heard(platform: Platform) -> None:
    for worker in platform.workers:
        collect = worker.collector.collect
        worker.collector.collect = lambda batch, opted_out=False, collect=collect: collect(batch)


@pytest.mark.parametrize(
    ("broken", "invariant"),
    [
        (the_log_does_not_look_at_the_guard, "3: behind the mark"),
        (the_gate_trusts_whatever_redis_says, r"\b[23]\b"),
        (the_gate_does_not_remember_how_much_there_was, r"\b[135]\b"),
        (the_gate_guesses_when_the_projection_is_lost, r"\b[23]\b"),
        (any_purpose_will_do, r"\b[135]\b"),
        (withdrawals_are_answered_before_the_gate_knows, r"\b[135]\b"),
        (events_carry_the_receipt_of_somebody_else, r"\b[13]\b"),
        (what_is_refused_is_kept_for_a_look, "4: a refused event"),
        (the_browser_s_refusal_is_not_heard, "accepted|not whole|not compared"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_broken_platform_is_found(
    new_ingest: Any,
    tmp_path: Path,
    redis_url: str,
    store: Any,
    monkeypatch: pytest.MonkeyPatch,
    broken: Break,
    invariant: str,
) -> None:
    with jumping_clock(monkeypatch), pytest.raises(FOUND) as found:
        live(new_ingest, tmp_path, redis_url, True, broken, examples=100)
    assert found.type is KeyError or found.match(invariant)


@pytest.mark.parametrize("guards", [True, False])
def test_a_lander_that_drops_nothing_is_found(
    new_ingest: Any, tmp_path: Path, redis_url: str, store: Any, monkeypatch: pytest.MonkeyPatch, guards: bool
) -> None:
    """With the log elsewhere it is what keeps the third invariant for the lake."""
    monkeypatch.setattr(Batch, "drop_uncovered", lambda self, consents: 0)
    if guards:
        monkeypatch.setattr(Lander, "_obey_marks", lambda self, batch: None)
    with jumping_clock(monkeypatch), pytest.raises(AssertionError, match="3: in the lake"):
        live(new_ingest, tmp_path, redis_url, guards, examples=100)
