"""The gate is open only while it knows: fresh, whole, and no less than before."""

import itertools
from typing import Any

import pytest

from infra.database import LedgerUnavailable
from infra.event_log.port import GuardChanged
from ingest.events import CONSENT_HEAD, PERSONALIZATION, ConsentUnavailable
from ingest.gate import FRESH_SECONDS, Gate, steady_seconds


def judge(ingest: Any, *people: str) -> Any:
    return ingest.gate.judge(people or ("u1",), PERSONALIZATION)


def test_a_gate_that_was_never_compared_is_shut(ingest: Any) -> None:
    ingest.allow("u1")
    with pytest.raises(ConsentUnavailable, match="not compared"):
        Gate(ingest.projection, guards=True).judge(["u1"], PERSONALIZATION)


@pytest.mark.parametrize("passed", [FRESH_SECONDS, 1e9, -0.001], ids=str)
def test_a_gate_that_was_not_compared_lately_is_shut_until_it_is(ingest: Any, passed: float) -> None:
    """Also where a clock that cannot run backwards did."""
    ingest.allow("u1")
    ingest.clock += FRESH_SECONDS - 0.001
    assert judge(ingest).consents["u1"].allows(PERSONALIZATION)
    ingest.rebuild()
    ingest.clock += passed
    with pytest.raises(ConsentUnavailable, match="not compared"):
        judge(ingest)
    ingest.rebuild()
    assert judge(ingest).consents["u1"].allows(PERSONALIZATION)


def test_it_is_as_fresh_as_the_comparison_was_when_it_began(ingest: Any) -> None:
    """What the ledger got while the comparison ran may be missing in it."""

    def slow_catch_up() -> None:
        ingest.clock += FRESH_SECONDS

    ingest.gate.compare(slow_catch_up)
    with pytest.raises(ConsentUnavailable, match="not compared"):
        judge(ingest)


def test_a_comparison_that_fails_does_not_open_it(ingest: Any) -> None:
    def down() -> None:
        raise LedgerUnavailable("down")

    ingest.clock += FRESH_SECONDS
    with pytest.raises(LedgerUnavailable):
        ingest.gate.compare(down)
    with pytest.raises(ConsentUnavailable):
        judge(ingest)


def test_a_projection_that_holds_less_than_it_did_is_not_believed(ingest: Any) -> None:
    """A Redis that came back with yesterday's file may have lost withdrawals."""
    ingest.allow("u1")
    ingest.rebuild()
    before = ingest.store.dump(ingest.projection.key("u1"))
    ingest.consents.withdraw("u1", "1", "test")
    ingest.rebuild()
    ingest.store.restore(ingest.projection.key("u1"), 0, before, replace=True)
    ingest.store.set(CONSENT_HEAD, 1)
    with pytest.raises(ConsentUnavailable, match="holds less"):
        judge(ingest)
    ingest.rebuild()
    assert not judge(ingest).consents["u1"].allows(PERSONALIZATION)


def test_the_clock_of_the_gate_only_rises() -> None:
    read = [steady_seconds() for _ in range(100)]
    assert all(earlier <= later for earlier, later in itertools.pairwise(read))


@pytest.mark.one_redis
def test_a_judgement_guards_what_is_appended_for_those_who_allow_it(ingest: Any) -> None:
    ingest.allow("u1")
    ingest.allow("u2", "analytics")
    guard = judge(ingest, "u1", "u2", "stranger").guard
    assert list(guard) == [ingest.projection.key("u1")]
    ingest.log.append([(b"u1", b"1")], guard)
    ingest.allow("u2")
    ingest.log.append([(b"u1", b"2")], guard)
    ingest.consents.withdraw("u1", "1", "test")
    with pytest.raises(GuardChanged):
        ingest.log.append([(b"u1", b"3")], guard)


def test_where_the_log_is_elsewhere_there_is_no_guard(ingest: Any) -> None:
    ingest.allow("u1")
    gate = Gate(ingest.projection, guards=False)
    gate.compare(ingest.consents.rebuild)
    assert gate.judge(["u1"], PERSONALIZATION).guard is None
