"""The projection says what the ledger says, whoever writes it, in whatever order, and whatever is lost."""

import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from infra.database import Entry, Ledger, Receipt
from infra.online_store import OnlineStore, connect
from ingest.chain import seal_with
from ingest.events import CONSENT_HEAD, Consent, ConsentProjection, ConsentUnavailable, consent_key, subject
from ingest.projection import REBUILDING, STRANDED, WITNESS, LedgerBehind, ProjectionWriter, fold

AT = datetime(2026, 3, 1, tzinfo=UTC)
PERSONAL = frozenset({"personalization"})


def receipt(number: int, action: str, purposes: tuple[str, ...] = (), person: str = "s1") -> Receipt:
    return Receipt(number, person, action, purposes, "1", "test", AT, "", "")


def record(ledger: Ledger, action: str, person: str = "s1") -> Receipt:
    purposes = ("personalization",) if action == "grant" else ()
    [made] = ledger.append_receipts([Entry(person, action, purposes, "1", "test", AT)], seal_with("s"))
    return made


def value(store: OnlineStore, person: str = "s1") -> Consent:
    return Consent.decode(store.get(consent_key(person)))  # type: ignore[arg-type]


@pytest.fixture
def ledger(ingest: Any) -> Ledger:
    return ingest.ledger


@pytest.fixture
def writer(ledger: Ledger, store: OnlineStore) -> ProjectionWriter:
    return ProjectionWriter(ledger, store)


STORIES = some.lists(
    some.one_of(
        some.tuples(some.just("grant"), some.sets(some.sampled_from(["personalization", "analytics", 'a]b,"c']))),
        some.tuples(some.sampled_from(["withdraw", "erase"]), some.just(set())),
    ),
    max_size=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(story=STORIES, seed=some.randoms())
def test_receipts_written_in_any_order_and_twice_make_the_same_value(
    writer: ProjectionWriter, store: OnlineStore, story: Any, seed: Any
) -> None:
    store.delete(consent_key("s1"))
    told = [receipt(n, action, tuple(sorted(purposes))) for n, (action, purposes) in enumerate(story, 1)]
    expected = Consent()
    for each in told:
        if each.action == "grant":
            expected = Consent(each.number, expected.revoked, frozenset(each.purposes))
        else:
            expected = Consent(0, each.number)
    mixed = told + [each for each in told if seed.random() < 0.5]
    seed.shuffle(mixed)
    for start in range(0, len(mixed), 3):
        writer.apply(mixed[start : start + 3])
    assert value(store) == fold(mixed) == expected


def test_an_older_grant_does_not_undo_a_newer_withdrawal(writer: ProjectionWriter, store: OnlineStore) -> None:
    writer.apply([receipt(2, "withdraw")])
    writer.apply([receipt(1, "grant", ("personalization",))])
    assert not value(store).allows("personalization")


def test_an_older_withdrawal_still_counts_under_a_newer_grant(writer: ProjectionWriter, store: OnlineStore) -> None:
    """What was collected before it must go, though the person allows again."""
    writer.apply([receipt(3, "grant", ("personalization",))])
    writer.apply([receipt(2, "withdraw")])
    assert value(store) == Consent(3, 2, PERSONAL)
    assert not value(store).covers(1)


def test_an_empty_ledger_makes_a_whole_projection(ingest: Any, store: OnlineStore) -> None:
    assert store.get(CONSENT_HEAD) == b"0"
    assert ingest.projection.read(["anybody"]) == {"anybody": Consent()}


def test_a_direct_write_leaves_the_head_where_it_is(
    writer: ProjectionWriter, ledger: Ledger, store: OnlineStore
) -> None:
    """The head may rise only to a number whose predecessors are all in, and one writer cannot know that."""
    record(ledger, "grant", "s2")
    writer.apply([record(ledger, "grant")])
    assert store.get(CONSENT_HEAD) == b"0"
    assert writer.catch_up() == 2
    assert store.get(CONSENT_HEAD) == b"2"
    assert value(store, "s2") == Consent(1, 0, PERSONAL)


def test_the_last_receipt_is_witnessed_at_once_and_never_an_earlier_one(
    writer: ProjectionWriter, ledger: Ledger, store: OnlineStore
) -> None:
    assert writer.witness() == (0, "", "")
    first, second = record(ledger, "grant"), record(ledger, "withdraw")
    writer.apply([second])
    writer.apply([first])
    assert writer.witness() == (2, second.hash, "")
    store.delete(CONSENT_HEAD, WITNESS)
    writer.catch_up()
    assert writer.witness() == (2, second.hash, "")


def test_only_the_tail_is_read_again(writer: ProjectionWriter, ledger: Ledger, store: OnlineStore) -> None:
    record(ledger, "grant")
    writer.catch_up()
    record(ledger, "withdraw")
    assert writer.catch_up() == 1
    assert writer.catch_up() == 0
    assert value(store) == Consent(0, 2)


def test_a_lost_projection_is_refused_and_then_written_anew(ingest: Any, store: OnlineStore) -> None:
    ingest.allow("u1")
    ingest.consents.withdraw("u2", "1", "test")
    before = ingest.projection.read(["u1", "u2"])
    store.flushall()
    with pytest.raises(ConsentUnavailable):
        ingest.projection.read(["u1", "u2"])
    ingest.consents.rebuild()
    assert ingest.projection.read(["u1", "u2"]) == before
    assert store.get(REBUILDING) is None


def test_a_projection_lost_while_it_is_written_is_not_called_whole(
    writer: ProjectionWriter, ledger: Ledger, store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(ledger, "withdraw")
    writer.catch_up()
    for lost in ([CONSENT_HEAD], []):  # while all is written, and while the tail is
        record(ledger, "withdraw")
        store.delete(*lost or [REBUILDING])
        fold_in = writer._fold_in

        def fold_in_and_lose(receipts: Any, client: Any, fold_in: Any = fold_in) -> None:
            fold_in(receipts, client)
            store.flushall()

        with monkeypatch.context() as patch:
            patch.setattr(writer, "_fold_in", fold_in_and_lose)
            with pytest.raises(ConsentUnavailable, match="tried again"):
                writer.catch_up()
        assert store.get(CONSENT_HEAD) is None
        writer.catch_up()
    assert store.get(CONSENT_HEAD) == b"3"


def test_two_processes_may_write_it_anew_at_once(writer: ProjectionWriter, ledger: Ledger, store: OnlineStore) -> None:
    """Whichever ends first makes it whole; the other tries again and finds nothing to do."""
    for n in range(30):
        record(ledger, "grant", f"s{n}")
    store.flushall()
    outcomes: list[object] = []

    def rebuild() -> None:
        try:
            outcomes.append(ProjectionWriter(ledger, store).catch_up())
        except ConsentUnavailable as error:
            outcomes.append(error)

    threads = [threading.Thread(target=rebuild) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 30 in outcomes
    assert store.get(CONSENT_HEAD) == b"30"
    assert writer.catch_up() == 0


def test_a_ledger_that_lost_receipts_shuts_every_gate_until_it_has_them_again(
    ingest: Any, writer: ProjectionWriter, store: OnlineStore
) -> None:
    """A withdrawal may be among those lost: writing the projection anew would allow what a person has withdrawn."""
    ingest.allow("u1")
    ingest.rebuild()
    store.set(CONSENT_HEAD, 5)
    for _ in range(2):
        with pytest.raises(LedgerBehind, match="ends at receipt 1"):
            writer.catch_up()
        with pytest.raises(ConsentUnavailable):
            ingest.projection.read(["u1"])
    for _ in range(4):
        record(ingest.ledger, "withdraw", subject("u1", "a secret"))
    assert writer.catch_up() == 5
    assert store.get(STRANDED) is None
    assert not ingest.projection.read(["u1"])["u1"].allows("personalization")


def test_without_redis_nothing_can_be_told(ledger: Ledger) -> None:
    nowhere = connect("unix:///nowhere.sock")
    writer = ProjectionWriter(ledger, nowhere)
    for call in (writer.catch_up, lambda: writer.apply([receipt(1, "withdraw")])):
        with pytest.raises(ConsentUnavailable):
            call()
    with pytest.raises(ConsentUnavailable):
        ConsentProjection(nowhere, "s").read(["u1"])
