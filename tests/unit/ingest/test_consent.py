"""What people say is on record, in force at once, and marked in the log; no failure allows what they did not."""

import threading
from typing import Any

import pytest

from infra.database import LedgerUnavailable
from infra.event_log.port import EventLogUnavailable
from ingest.consent import Consents
from ingest.events import (
    PERSONALIZATION,
    Consent,
    ConsentMark,
    ConsentUnavailable,
    ErasureMark,
    ErasureStep,
    encode,
    is_mark,
    key,
    now,
    subject,
)
from ingest.gate import Passage

SECRET = "a secret"
PERSONAL = frozenset({PERSONALIZATION})


class Broken:
    """A part that fails in whatever is asked of it, once `after` calls of `then` went through."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        def fail(*_: Any, **__: Any) -> None:
            raise self._error

        return fail


def consents(ingest: Any, log: Any = None, ledger: Any = None) -> Consents:
    return Consents(ledger or ingest.ledger, ingest.store, log or ingest.log, SECRET, ingest.passage)


def now_in_force(ingest: Any, user_id: str = "u1") -> Consent:
    found: Consent = ingest.projection.read([user_id])[user_id]
    return found


def test_a_grant_is_recorded_in_force_and_marked(ingest: Any) -> None:
    receipt = ingest.consents.grant("u1", ["research", PERSONALIZATION], "2026-01", "settings page")
    assert receipt[1:6] == (
        subject("u1", SECRET), "grant", (PERSONALIZATION, "research"), "2026-01", "settings page"
    )  # fmt: skip
    assert list(ingest.ledger.receipts_after(0)) == [receipt]
    assert now_in_force(ingest) == Consent(1, 0, PERSONAL | {"research"})
    assert ingest.logged() == [ConsentMark(user_id="u1", receipt=1, purposes=receipt.purposes, at=receipt.at)]


def test_a_withdrawal_is_recorded_in_force_and_marked(ingest: Any) -> None:
    ingest.allow("u1")
    receipt = ingest.consents.withdraw("u1", "2026-01", "settings page")
    assert (receipt.action, receipt.purposes) == ("withdraw", ())
    assert now_in_force(ingest) == Consent(0, 2)
    assert is_mark(ingest.logged()[-1])


def test_a_person_who_allows_again_is_collected_anew_and_the_past_stays_withdrawn(ingest: Any) -> None:
    ingest.allow("u1")
    ingest.consents.withdraw("u1", "1", "test")
    ingest.allow("u1")
    consent = now_in_force(ingest)
    assert consent.allows(PERSONALIZATION)
    assert not consent.covers(1)
    assert consent.covers(3)


def test_leaving_personalization_out_withdraws_it(ingest: Any) -> None:
    """Purposes that are not named are not allowed, and what was collected for them goes."""
    ingest.allow("u1")
    receipt = ingest.consents.grant("u1", ["analytics"], "1", "test")
    assert [r.action for r in ingest.ledger.receipts_after(0)] == ["grant", "withdraw", "grant"]
    assert receipt.number == 3
    consent = now_in_force(ingest)
    assert consent == Consent(3, 2, frozenset({"analytics"}))
    assert not consent.allows(PERSONALIZATION)
    assert not consent.covers(1)
    assert is_mark(ingest.logged()[-1])


def test_the_current_consent_is_told_with_every_receipt(ingest: Any) -> None:
    ingest.allow("u1")
    ingest.allow("u2")
    ingest.consents.withdraw("u1", "1", "test")
    consent, receipts = ingest.consents.current("u1")
    assert consent == now_in_force(ingest) == Consent(0, 3)
    assert [receipt.number for receipt in receipts] == [1, 3]
    assert ingest.consents.current("stranger") == (Consent(), [])


def test_the_ledger_never_holds_a_user_id(ingest: Any) -> None:
    ingest.allow("canary-7f3a")
    ingest.consents.withdraw("canary-7f3a", "1", "test")
    ingest.consents.erase("canary-7f3a", "1", "test")
    ingest.ledger.close()
    for file in ingest.folder.glob("ledger.db*"):
        assert b"canary-7f3a" not in file.read_bytes()


def test_many_at_once_each_get_their_own_receipt(ingest: Any) -> None:
    receipts: dict[str, Any] = {}

    def speak(name: str) -> None:
        receipts[name] = ingest.consents.grant(name, [PERSONALIZATION], "1", "test")

    threads = [threading.Thread(target=speak, args=(f"u{n}",)) for n in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(r.number for r in receipts.values()) == list(range(1, 61))
    assert all(receipt.subject == subject(name, SECRET) for name, receipt in receipts.items())
    assert all(now_in_force(ingest, name) == Consent(r.number, 0, PERSONAL) for name, r in receipts.items())
    assert {(m.user_id, m.receipt) for m in ingest.logged()} == {(n, r.number) for n, r in receipts.items()}
    assert ingest.verify() == 60


# --- failures --------------------------------------------------------------------------------------------------------


def test_a_withdrawal_holds_though_the_log_is_down(ingest: Any) -> None:
    """It is not confirmed, but the gate refuses from now on, and asking again completes it."""
    ingest.allow("u1")
    down = consents(ingest, log=Broken(EventLogUnavailable("down")))
    with pytest.raises(EventLogUnavailable):
        down.withdraw("u1", "1", "test")
    assert not now_in_force(ingest).allows(PERSONALIZATION)
    ingest.consents.withdraw("u1", "1", "test")
    assert is_mark(ingest.logged()[-1])


def test_a_withdrawal_that_redis_missed_is_caught_up_from_the_ledger(
    ingest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest.allow("u1")
    down = consents(ingest)

    def fail(_: Any) -> None:
        raise ConsentUnavailable("down")

    monkeypatch.setattr(down._projection, "apply", fail)
    with pytest.raises(ConsentUnavailable):
        down.withdraw("u1", "1", "test")
    assert now_in_force(ingest).allows(PERSONALIZATION)
    ingest.consents.rebuild()
    assert not now_in_force(ingest).allows(PERSONALIZATION)


def test_without_the_ledger_nothing_changes(ingest: Any) -> None:
    ingest.allow("u1")
    down = consents(ingest, ledger=Broken(LedgerUnavailable("down")))
    for call in (
        lambda: down.grant("u2", [PERSONALIZATION], "1", "test"),
        lambda: down.withdraw("u1", "1", "test"),
        lambda: down.erase("u1", "1", "test"),
    ):
        with pytest.raises(LedgerUnavailable):
            call()
    assert now_in_force(ingest).allows(PERSONALIZATION)
    assert not now_in_force(ingest, "u2").allows(PERSONALIZATION)
    assert len(ingest.logged()) == 1


# --- batches under way -----------------------------------------------------------------------------------------------


def test_a_withdrawal_waits_for_batches_that_passed_the_gate_before(ingest: Any, event: Any) -> None:
    """Also where the log cannot look at the projection: so its mark stands behind them, and nothing of theirs after."""
    ingest.gate._guards = False
    ingest.allow("u1")
    appending, go_on = threading.Event(), threading.Event()
    append = ingest.log.append

    def held_up(records: Any, guard: Any) -> Any:
        assert guard is None
        appending.set()
        go_on.wait(10)
        return append(records)

    ingest.collector._log = type("Slow", (), {"append": staticmethod(held_up)})()
    sending = threading.Thread(target=ingest.collector.collect, args=([event(user_id="u1")],))
    sending.start()
    appending.wait(10)
    withdrawn = threading.Event()
    withdrawing = threading.Thread(
        target=lambda: (ingest.consents.withdraw("u1", "1", "test"), withdrawn.set())  # type: ignore[func-returns-value]
    )
    withdrawing.start()
    while now_in_force(ingest).allows(PERSONALIZATION):
        threading.Event().wait(0.001)
    assert not withdrawn.wait(0.2)
    go_on.set()
    sending.join(10)
    withdrawing.join(10)
    assert [record.kind for record in ingest.logged()] == ["consent", "event", "consent"]


def test_a_passage_is_not_held_up_by_later_batches() -> None:
    passage = Passage()
    with passage.through():
        assert not passage.wait_out(0.01)
    assert passage.wait_out(0)
    done = threading.Event()
    with passage.through():
        waiting = threading.Thread(target=lambda: (passage.wait_out(10), done.set()))  # type: ignore[func-returns-value]
        waiting.start()
        while not passage._changed._waiters:  # type: ignore[attr-defined]
            threading.Event().wait(0.001)
        later = passage.through()
        later.__enter__()
    assert done.wait(5)
    later.__exit__(None, None, None)
    waiting.join()


# --- erasures --------------------------------------------------------------------------------------------------------


def test_an_erasure_is_opened_marked_and_in_force(ingest: Any) -> None:
    ingest.allow("u1")
    erasure_id = ingest.consents.erase("u1", "1", "test")
    mark = ingest.logged()[-1]
    assert mark == ErasureMark(user_id="u1", receipt=2, erasure_id=erasure_id, at=mark.at)
    assert now_in_force(ingest) == Consent(0, 2)
    state = ingest.consents.erasure(erasure_id)
    assert state.mark is not None
    assert state.completed_at is None
    consumer = ingest.log.consumer("reader")
    found = {(record.partition, record.offset): record.value for record in consumer.poll(1)}
    assert erasure_id.encode() in found[state.mark]
    consumer.close()


def test_asking_again_finds_the_open_erasure_and_writes_nothing_more(ingest: Any) -> None:
    """A second mark, behind the first, would bring the person's id back into the log."""
    erasure_id = ingest.consents.erase("u1", "1", "test")
    assert ingest.consents.erase("u1", "1", "test") == erasure_id
    assert ingest.ledger.head().number == 1
    assert len(ingest.logged()) == 1


def test_an_erasure_whose_mark_failed_is_completed_by_asking_again(ingest: Any) -> None:
    ingest.allow("u1")
    with pytest.raises(EventLogUnavailable):
        consents(ingest, log=Broken(EventLogUnavailable("down"))).erase("u1", "1", "test")
    assert not now_in_force(ingest).allows(PERSONALIZATION)
    [state] = ingest.ledger.open_erasures()
    assert state.mark is None
    assert ingest.consents.erase("u1", "1", "test") == state.erasure_id
    assert ingest.consents.erasure(state.erasure_id).mark is not None


class Killed(Exception):
    """The process ended here."""


class Mortal:
    """A part that ends the process right before and right after each call of what changes something, once each."""

    def __init__(self, part: Any, died: set[str]) -> None:
        self._part, self._died = part, died

    def __getattr__(self, name: str) -> Any:
        work = getattr(self._part, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self._die(f"before {name}")
            done = work(*arguments, **named)
            self._die(f"after {name}")
            return done

        return call if name in CHANGES else work

    def _die(self, point: str) -> None:
        if point not in self._died:
            self._died.add(point)
            raise Killed(point)


CHANGES = {"append_receipts", "open_erasure", "set_mark", "append", "apply", "tell_erasures"}


def test_an_erasure_that_is_cut_short_at_any_step_is_asked_for_again_and_comes_to_its_end(
    ingest: Any, event: Any
) -> None:
    """Each time by a new process; in the end there is one erasure, and no mark of the others stays in the log."""
    ingest.allow("canary-7f3a")
    ingest.collector.collect([event(user_id="canary-7f3a")])
    died: set[str] = set()
    erasure_id = None
    while erasure_id is None:
        process = consents(ingest, Mortal(ingest.log, died), Mortal(ingest.ledger, died))
        process._projection = Mortal(process._projection, died)  # type: ignore[assignment]
        try:
            erasure_id = process.erase("canary-7f3a", "1", "test")
        except Killed:
            assert len(ingest.ledger.open_erasures()) <= 1, "its state can be read at any time"
        process.close()
    assert died == {f"{when} {name}" for when in ("before", "after") for name in CHANGES}
    assert not now_in_force(ingest, "canary-7f3a").allows(PERSONALIZATION)
    assert [state.erasure_id for state in ingest.ledger.open_erasures()] == [erasure_id]
    ingest.land()
    for stage in ("lists", "nearline"):
        step = ErasureStep(erasure_id=erasure_id, stage=stage, removed=0, at=now())
        ingest.log.append([(key(step), encode(step))])
    ingest.land()
    assert ingest.consents.erasure(erasure_id).completed_at is not None
    assert not any(b"canary-7f3a" in (ingest.store.dump(name) or b"") for name in ingest.store.keys("*"))
    assert ingest.lake.events_of("canary-7f3a").height == 0
