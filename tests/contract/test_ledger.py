"""The contract of the consent ledger: SQLite and PostgreSQL pass the same suite, against the real thing."""

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sql

from infra.database import Entry, Ledger, LedgerUnavailable, Receipt, Step, head_seal
from infra.database_tables import engine as make_engine
from ingest.chain import seal_with

AT = datetime(2026, 3, 1, 20, 15, 0, 123000, tzinfo=UTC)
LATER = AT + timedelta(days=7)
SEAL = seal_with("secret")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    ledger = Ledger(url)
    ledger.create_tables()
    yield ledger
    ledger.close()


def entry(subject: str = "s1", action: str = "grant", *purposes: str) -> Entry:
    return Entry(subject, action, purposes or ("personalization",), "2026-01", "settings", AT)


def test_an_empty_ledger_ends_at_number_nought(ledger: Ledger) -> None:
    assert ledger.head() == (0, "", "")
    assert list(ledger.receipts_after(0)) == []


def test_making_the_tables_again_keeps_what_is_there(ledger: Ledger) -> None:
    ledger.append_receipts([entry()], SEAL)
    ledger.create_tables()
    assert ledger.head().number == 1


def test_receipts_are_numbered_from_one_and_come_back_as_they_were_given(ledger: Ledger) -> None:
    given = ledger.append_receipts([entry("s1"), entry("s2", "withdraw")], SEAL)
    given += ledger.append_receipts([entry("s1", "grant", "analytics", "research")], SEAL)
    assert [receipt.number for receipt in given] == [1, 2, 3]
    assert list(ledger.receipts_after(0)) == given
    assert given[2][1:7] == entry("s1", "grant", "analytics", "research")


def test_each_receipt_is_sealed_upon_the_one_before(ledger: Ledger) -> None:
    receipts = ledger.append_receipts([entry(), entry()], SEAL) + ledger.append_receipts([entry()], SEAL)
    assert [receipt.previous for receipt in receipts] == ["", receipts[0].hash, receipts[1].hash]
    assert all(receipt.hash == SEAL(receipt) for receipt in receipts)
    assert ledger.head() == (3, receipts[2].hash, head_seal(receipts[2], SEAL))


def test_reading_goes_on_after_a_number_and_over_pages(ledger: Ledger) -> None:
    given = ledger.append_receipts([entry(f"s{n}") for n in range(2500)], SEAL)
    assert list(ledger.receipts_after(3)) == given[3:]


def test_receipts_of_a_person_are_that_persons_only(ledger: Ledger) -> None:
    given = ledger.append_receipts([entry("s1"), entry("s2"), entry("s1", "withdraw")], SEAL)
    assert ledger.receipts_of("s1") == [given[0], given[2]]
    assert ledger.receipts_of("s3") == []


def test_an_append_that_fails_midway_leaves_nothing(ledger: Ledger) -> None:
    def seal(receipt: Receipt) -> str:
        if receipt.number == 3:
            raise RuntimeError("the power goes")
        return SEAL(receipt)

    with pytest.raises(RuntimeError):
        ledger.append_receipts([entry(), entry(), entry()], seal)
    assert ledger.head() == (0, "", "")
    assert list(ledger.receipts_after(0)) == []


def append_many(url: str, subject: str, times: int) -> None:
    ledger = Ledger(url)
    ledger.create_tables()
    for _ in range(times):
        ledger.append_receipts([entry(subject), entry(subject, "withdraw")], SEAL)
    ledger.close()


def assert_whole(ledger: Ledger, receipts: int) -> None:
    found = list(ledger.receipts_after(0))
    assert [receipt.number for receipt in found] == list(range(1, receipts + 1))
    assert [receipt.previous for receipt in found] == ["", *(receipt.hash for receipt in found[:-1])]
    assert ledger.head() == (receipts, found[-1].hash, head_seal(found[-1], SEAL))


def test_processes_that_append_at_once_keep_the_chain_whole(url: str) -> None:
    """They also make the tables at once."""
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=append_many, args=(url, f"s{n}", 25)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    ledger = Ledger(url)
    assert_whole(ledger, 150)
    ledger.close()


def test_threads_that_append_at_once_keep_the_chain_whole(ledger: Ledger) -> None:
    def append() -> None:
        for _ in range(10):
            ledger.append_receipts([entry()], SEAL)

    run_at_once(append, 8)
    assert_whole(ledger, 80)


def run_at_once(work: Callable[[], object], threads: int) -> None:
    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def test_a_reader_is_not_held_up_by_a_writer(ledger: Ledger) -> None:
    """While a receipt is being sealed, in the midst of a transaction, others read what was there before."""
    ledger.append_receipts([entry()], SEAL)
    seen: list[int] = []

    def seal(receipt: Receipt) -> str:
        reader = threading.Thread(target=lambda: seen.append(ledger.head().number))
        reader.start()
        reader.join(5)
        return SEAL(receipt)

    ledger.append_receipts([entry()], seal)
    assert set(seen) == {1}


def test_an_erasure_opens_once_until_it_is_complete(ledger: Ledger) -> None:
    first = ledger.open_erasure("s1", 1, AT)
    assert ledger.open_erasure("s1", 2, AT) == first
    ledger.complete_erasure(first, AT)
    assert ledger.open_erasure_of("s1") is None
    assert ledger.open_erasure("s1", 3, AT) != first


def test_an_erasure_after_a_new_grant_is_a_new_one(ledger: Ledger) -> None:
    """What was collected since has no part in the old one, whose stages may have signed already."""
    [erased] = ledger.append_receipts([entry("s1", "erase")], SEAL)
    first = ledger.open_erasure("s1", erased.number, AT)
    ledger.append_receipts([entry("s1", "grant")], SEAL)
    assert ledger.open_erasure_of("s1") is None
    assert ledger.open_erasure("s1", 3, AT) != first


def test_people_who_ask_at_once_get_one_erasure(ledger: Ledger) -> None:
    opened: list[str] = []
    run_at_once(lambda: opened.append(ledger.open_erasure("s1", 1, AT)), 8)
    assert len(opened) == 8
    assert len(set(opened)) == 1


def test_an_erasure_keeps_mark_steps_and_times(ledger: Ledger) -> None:
    erasure_id = ledger.open_erasure("s1", 1, AT)
    ledger.set_mark(erasure_id, 2, 40)
    ledger.sign_step(erasure_id, "lake", Step(3, AT))
    ledger.sign_step(erasure_id, "log", Step(None, AT, LATER))
    state = ledger.erasure(erasure_id)
    assert state == (erasure_id, AT, None, (2, 40), {"lake": Step(3, AT), "log": Step(None, AT, LATER)})
    assert ledger.open_erasures() == [state]


def test_a_mark_only_moves_forward(ledger: Ledger) -> None:
    erasure_id = ledger.open_erasure("s1", 1, AT)
    for offset in (40, 44, 41):
        ledger.set_mark(erasure_id, 2, offset)
    assert ledger.open_erasures()[0].mark == (2, 44)


def test_of_two_signatures_of_a_stage_the_first_counts(ledger: Ledger) -> None:
    erasure_id = ledger.open_erasure("s1", 1, AT)
    ledger.sign_step(erasure_id, "lake", Step(3, AT))
    ledger.sign_step(erasure_id, "lake", Step(0, AT + timedelta(seconds=1)))
    assert ledger.open_erasures()[0].steps == {"lake": Step(3, AT)}


def test_which_erasures_a_stage_has_not_signed_is_told_with_the_newest_of_all(ledger: Ledger) -> None:
    """Complete or not: what is complete may still wait for the models."""
    assert ledger.erasures_without("models") == (0, {})
    one, two = ledger.open_erasure("s1", 4, AT), ledger.open_erasure("s2", 9, AT)
    ledger.complete_erasure(one, AT)
    ledger.sign_step(two, "lake", Step(1, AT))
    assert ledger.erasures_without("models") == (9, {one: 4, two: 9})
    ledger.sign_step(two, "models", Step(1, AT))
    assert ledger.erasures_without("models") == (9, {one: 4})


def test_people_are_counted_once_by_what_they_said_last(ledger: Ledger) -> None:
    assert ledger.counts() == ({}, 0, 0)
    said = [entry("s1"), entry("s2", "grant", "analytics", "research"), entry("s3"), entry("s4"), entry("s5")]
    said += [entry("s1", "grant", "analytics", "research"), entry("s3", "withdraw")._replace(purposes=())]
    said += [entry(person, "erase")._replace(purposes=()) for person in ("s4", "s5", "s6")]
    ledger.append_receipts(said, SEAL)
    one, two, again = (ledger.open_erasure(person, 8, AT) for person in ("s4", "s5", "s6"))
    for done in (one, two):
        ledger.complete_erasure(done, AT)
    assert ledger.counts() == ({("analytics", "research"): 2, (): 4}, 1, 2)
    ledger.open_erasure("s4", 9, AT)
    assert ledger.counts()[1:] == (2, 1)
    assert ledger.open_erasure("s6", 9, AT) == again


def test_a_ledger_of_before_receipts_told_what_remains_goes_on(ledger: Ledger, url: str) -> None:
    erasure_id = ledger.open_erasure("s1", 1, AT)
    engine = make_engine(url)
    with engine.begin() as connection:
        connection.execute(sql.text("ALTER TABLE erasure_steps DROP COLUMN remains_until"))
        connection.execute(
            sql.text("INSERT INTO erasure_steps VALUES (:erasure, 'lake', 3, :at)"),
            {"erasure": erasure_id, "at": AT.isoformat()},
        )
    engine.dispose()
    ledger.create_tables()
    ledger.sign_step(erasure_id, "log", Step(None, AT, LATER))
    assert ledger.open_erasures()[0].steps == {"lake": Step(3, AT), "log": Step(None, AT, LATER)}


def test_a_step_of_an_unknown_erasure_is_passed_over(ledger: Ledger) -> None:
    ledger.sign_step("nobody's", "lake", Step(3, AT))
    assert ledger.erasure("nobody's") is None


def test_a_complete_erasure_is_no_longer_open_and_stays_as_it_was_closed(ledger: Ledger) -> None:
    erasure_id = ledger.open_erasure("s1", 1, AT)
    ledger.complete_erasure(erasure_id, AT)
    ledger.complete_erasure(erasure_id, AT + timedelta(days=1))
    assert ledger.open_erasures() == []
    state = ledger.erasure(erasure_id)
    assert state is not None
    assert state.completed_at == AT


@pytest.mark.parametrize("url", ["sqlite:////nowhere/at/all.db", "postgresql+psycopg://x@127.0.0.1:1/x"])
def test_without_its_database_the_ledger_is_unavailable(url: str) -> None:
    ledger = Ledger(url)
    for call in (ledger.create_tables, ledger.head, lambda: ledger.append_receipts([entry()], SEAL)):
        with pytest.raises(LedgerUnavailable):
            call()
    ledger.close()


def test_the_sqlite_ledger_survives_a_loss_of_power(tmp_path: Path) -> None:
    """Each commit is synced: WAL with synchronous=FULL (2), on every connection."""
    engine = make_engine(f"sqlite:///{tmp_path / 'ledger.db'}")
    with engine.connect() as connection:
        assert connection.execute(sql.text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(sql.text("PRAGMA synchronous")).scalar() == 2
    engine.dispose()
