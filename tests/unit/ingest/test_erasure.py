"""An erasure is complete when every stage has signed, and the log forgets last."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.database import Entry, ErasureState, Ledger, Step
from infra.event_log.port import EventLog, Position
from infra.event_log.redis_streams import RedisStreamsEventLog
from infra.online_store import OnlineStore
from ingest.erasure import ErasureKeeper
from ingest.events import ErasureMark, ErasureStep, Stage, encode, key

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def log(redis_url: str, store: OnlineStore) -> Iterator[RedisStreamsEventLog]:
    log = RedisStreamsEventLog(redis_url, uuid.uuid4().hex, partitions=2)
    yield log
    log.close()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    ledger.create_tables()
    yield ledger
    ledger.close()


@pytest.fixture
def keeper(ledger: Ledger, log: RedisStreamsEventLog) -> ErasureKeeper:
    return ErasureKeeper(ledger, log)


def opened(ledger: Ledger, user_id: str = "canary") -> ErasureMark:
    """An erasure in the ledger, and the mark that belongs into the log."""
    [receipt] = ledger.append_receipts([Entry(user_id[::-1], "erase", (), "1", "test", AT)], lambda _: "hash")
    erasure_id = ledger.open_erasure(user_id[::-1], receipt.number, AT)
    return ErasureMark(user_id=user_id, receipt=receipt.number, erasure_id=erasure_id, at=AT)


def send(log: EventLog, mark: ErasureMark) -> Position:
    """Put two records of the person, one of somebody else and the mark into the log."""
    person = key(mark)
    return log.append([(person, b"1"), (b"bystander", b"2"), (person, b"3"), (person, encode(mark))])[-1]


def step(mark: ErasureMark, stage: Stage, removed: int | None = 1) -> ErasureStep:
    return ErasureStep(erasure_id=mark.erasure_id, stage=stage, removed=removed, at=AT)


def sign(keeper: ErasureKeeper, mark: ErasureMark, *stages: Stage) -> None:
    for stage in stages:
        keeper.sign(step(mark, stage))


def keys_in(log: EventLog) -> list[bytes]:
    """Keys of the records that the log still has."""
    consumer = log.consumer(uuid.uuid4().hex)
    try:
        return sorted(record.key for record in consumer.poll(0.5))
    finally:
        consumer.close()


def state_of(ledger: Ledger, mark: ErasureMark) -> ErasureState:
    state = ledger.erasure(mark.erasure_id)
    assert state is not None
    return state


def test_when_all_others_have_signed_the_log_forgets_and_the_erasure_is_complete(
    keeper: ErasureKeeper, ledger: Ledger, log: RedisStreamsEventLog
) -> None:
    mark = opened(ledger)
    keeper.met(mark, send(log, mark))
    sign(keeper, mark, "lake", "lists", "nearline")
    assert keeper.advance() == 1
    state = state_of(ledger, mark)
    assert state.completed_at is not None
    assert {stage: signed.removed for stage, signed in state.steps.items()} == {
        "lake": 1,
        "lists": 1,
        "nearline": 1,
        "log": 3,
    }
    assert keys_in(log) == [b"bystander"]
    assert keeper.advance() == 0


@pytest.mark.parametrize("missing", ["lake", "lists", "nearline"])
def test_while_a_stage_is_missing_the_mark_stays_in_the_log(
    keeper: ErasureKeeper, ledger: Ledger, log: RedisStreamsEventLog, missing: Stage
) -> None:
    mark = opened(ledger)
    keeper.met(mark, send(log, mark))
    stages: set[Stage] = {"lake", "lists", "nearline"}
    sign(keeper, mark, *(stages - {missing}))
    assert keeper.advance() == 0
    assert state_of(ledger, mark).completed_at is None
    assert keys_in(log).count(b"canary") == 3


def test_a_record_in_the_log_cannot_sign_for_the_log(
    keeper: ErasureKeeper, ledger: Ledger, log: RedisStreamsEventLog
) -> None:
    """Only the keeper knows that the log has forgotten."""
    mark = opened(ledger)
    keeper.met(mark, send(log, mark))
    sign(keeper, mark, "log", "lake", "lists", "nearline")
    keeper.advance()
    assert keys_in(log) == [b"bystander"]


def test_a_keeper_that_was_killed_after_forgetting_is_continued_by_the_next(
    keeper: ErasureKeeper, ledger: Ledger, log: RedisStreamsEventLog
) -> None:
    mark = opened(ledger)
    at = send(log, mark)
    keeper.met(mark, at)
    sign(keeper, mark, "lake", "lists", "nearline")
    log.forget(at)
    assert ErasureKeeper(ledger, log).advance() == 1
    assert state_of(ledger, mark).completed_at is not None


def test_a_keeper_that_was_killed_before_completing_is_continued_by_the_next(
    keeper: ErasureKeeper, ledger: Ledger, log: RedisStreamsEventLog
) -> None:
    mark = opened(ledger)
    sign(keeper, mark, "lake", "lists", "nearline")
    ledger.sign_step(mark.erasure_id, "log", Step(4, AT))
    assert keeper.advance() == 1
    assert state_of(ledger, mark).steps["log"].removed == 4


def test_an_erasure_whose_mark_was_not_met_stays_open(
    keeper: ErasureKeeper, ledger: Ledger, log: RedisStreamsEventLog
) -> None:
    mark = opened(ledger)
    sign(keeper, mark, "lake", "lists", "nearline")
    keeper.advance()
    assert state_of(ledger, mark).completed_at is None


def test_of_two_marks_the_later_one_is_forgotten_with_all_before_it(
    keeper: ErasureKeeper, ledger: Ledger, log: RedisStreamsEventLog
) -> None:
    """Somebody asked twice; the first mark may be met again after the second."""
    mark = opened(ledger)
    first, second = send(log, mark), send(log, mark)
    keeper.met(mark, second)
    keeper.met(mark, first)
    assert state_of(ledger, mark).mark == second
    sign(keeper, mark, "lake", "lists", "nearline")
    keeper.advance()
    assert keys_in(log) == [b"bystander", b"bystander"]


def test_a_late_copy_of_a_mark_leaves_the_log_too(
    keeper: ErasureKeeper, ledger: Ledger, log: RedisStreamsEventLog
) -> None:
    mark = opened(ledger)
    keeper.met(mark, send(log, mark))
    sign(keeper, mark, "lake", "lists", "nearline")
    keeper.advance()
    keeper.met(mark, send(log, mark))
    assert keys_in(log) == [b"bystander", b"bystander"]


def test_a_mark_of_an_erasure_that_the_ledger_does_not_know_stays(
    keeper: ErasureKeeper, log: RedisStreamsEventLog
) -> None:
    """The other stages still have to meet it."""
    mark = ErasureMark(user_id="canary", receipt=9, erasure_id="unknown", at=AT)
    keeper.met(mark, send(log, mark))
    keeper.sign(step(mark, "lake"))
    assert keeper.advance() == 0
    assert keys_in(log).count(b"canary") == 3


def test_where_the_log_cannot_forget_single_records_its_retention_completes_the_erasure(
    ledger: Ledger, redis_url: str
) -> None:
    class Retaining(RedisStreamsEventLog):
        def forget(self, at: Position) -> int | None:  # type: ignore[override]
            """As Kafka answers."""
            return None

        def keeps_seconds(self) -> float | None:  # type: ignore[override]
            return kept

    kept = 3600.0
    log = Retaining(redis_url, uuid.uuid4().hex, partitions=2)
    keeper = ErasureKeeper(ledger, log)
    mark = opened(ledger)
    keeper.met(mark, send(log, mark))
    sign(keeper, mark, "lake", "lists", "nearline")
    assert keeper.advance() == 1
    signed = state_of(ledger, mark).steps["log"]
    assert signed.removed is None
    assert signed.remains_until == signed.at + timedelta(hours=1)
    kept, other = float("inf"), opened(ledger, "budgie")
    keeper.met(other, send(log, other))
    sign(keeper, other, "lake", "lists", "nearline")
    keeper.advance()
    assert state_of(ledger, other).steps["log"].remains_until is None
    log.close()


def test_erasures_of_several_people_are_finished_each_for_itself(
    keeper: ErasureKeeper, ledger: Ledger, log: RedisStreamsEventLog
) -> None:
    one, other = opened(ledger, "canary"), opened(ledger, "budgie")
    for mark in (one, other):
        keeper.met(mark, send(log, mark))
    sign(keeper, one, "lake", "lists", "nearline")
    sign(keeper, other, "lake")
    assert keeper.advance() == 1
    assert state_of(ledger, one).completed_at is not None
    assert state_of(ledger, other).completed_at is None
    assert b"canary" not in keys_in(log)
    assert keys_in(log).count(b"budgie") == 3
