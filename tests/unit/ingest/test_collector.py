"""Every event gets a verdict; what is taken stands in the log, and what is refused leaves nothing behind."""

import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from infra.event_log.port import EventLogUnavailable, GuardChanged
from ingest.consent import Consents
from ingest.events import AcceptedEvent, ConsentUnavailable, Item, now
from ingest.gate import Passage

MakeEvent = Callable[..., dict[str, Any]]


def codes(verdicts: Any) -> list[str]:
    return [verdict.code for verdict in verdicts]


def events_logged(ingest: Any) -> list[AcceptedEvent]:
    return [record for record in ingest.logged() if isinstance(record, AcceptedEvent)]


def test_an_allowed_event_stands_in_the_log_with_its_receipt(ingest: Any, event: MakeEvent) -> None:
    receipt = ingest.allow("u1")
    sent = event(recommendation_id="r1")
    [verdict] = ingest.collector.collect([sent])
    assert verdict == (sent["event_id"], "accepted", "")
    [logged] = events_logged(ingest)
    assert logged.receipt == receipt
    assert now() - logged.accepted_at < timedelta(minutes=1)
    assert logged.model_dump(mode="json", exclude={"receipt", "accepted_at", "kind", "occurred_at"}) == {
        name: value for name, value in sent.items() if name != "occurred_at"
    }


def test_times_are_stored_in_utc(ingest: Any, event: MakeEvent) -> None:
    ingest.allow("u1")
    ingest.collector.collect([event(occurred_at="2024-03-01T20:00:00+05:30")])
    [logged] = events_logged(ingest)
    assert logged.occurred_at == datetime(2024, 3, 1, 14, 30, tzinfo=UTC)
    consumer = ingest.log.consumer(uuid.uuid4().hex)
    assert any(b'"2024-03-01T14:30:00Z"' in record.value for record in consumer.poll(1))
    consumer.close()


LONG = "é" * 65
INVALID: list[tuple[str, dict[str, Any]]] = [
    ("no user", {"user_id": None}),
    ("an id of 130 bytes", {"item_id": LONG}),
    ("an empty id", {"event_id": ""}),
    ("a line break in an id", {"user_id": "a\nb"}),
    ("a number for an id", {"user_id": 7}),
    ("a list for an id", {"user_id": ["u1"]}),
    ("an unknown field", {"receipt": 1}),
    ("no time zone", {"occurred_at": "2024-03-01T20:00:00"}),
    ("no time", {"occurred_at": "yesterday"}),
    ("a long recommendation id", {"recommendation_id": "r" * 257}),
]


@pytest.mark.parametrize("changes", [changes for _, changes in INVALID], ids=[name for name, _ in INVALID])
def test_what_is_no_event_is_invalid(ingest: Any, event: MakeEvent, changes: dict[str, Any]) -> None:
    ingest.allow("u1")
    [verdict] = ingest.collector.collect([event(**changes)])
    assert verdict.code == "invalid_event"
    assert verdict.detail
    assert events_logged(ingest) == []


@pytest.mark.parametrize("raw", [None, 7, "event", [], [{}], {}, {"event_id": 7}, {"event_id": "x" * 5000}], ids=str)
def test_what_is_no_object_is_invalid_and_has_no_id(ingest: Any, raw: Any) -> None:
    [verdict] = ingest.collector.collect([raw])
    assert verdict[:2] == (None, "invalid_event")


def test_an_unknown_type_is_told_which_are_known(ingest: Any, event: MakeEvent) -> None:
    ingest.allow("u1")
    [verdict] = ingest.collector.collect([event(type="sneeze")])
    assert verdict.code == "unknown_type"
    assert "thumbs_up" in verdict.detail


@pytest.mark.parametrize(
    ("occurred_at", "code"),
    [
        ("0001-01-01T00:00:00+05:00", "too_old"),
        ("1989-12-31T23:59:59.999Z", "too_old"),
        ("1990-01-01T00:00:00Z", "accepted"),
        ("9999-12-31T23:59:59-05:00", "in_the_future"),
        (timedelta(seconds=310), "in_the_future"),
        (timedelta(seconds=200), "accepted"),
    ],
    ids=str,
)
def test_the_domain_says_how_old_and_how_early_an_event_may_be(
    ingest: Any, event: MakeEvent, occurred_at: str | timedelta, code: str
) -> None:
    ingest.allow("u1")
    sent = event(occurred_at=occurred_at if isinstance(occurred_at, str) else (now() + occurred_at).isoformat())
    assert codes(ingest.collector.collect([sent])) == [code]


def test_nobody_is_collected_without_consent(ingest: Any, event: MakeEvent) -> None:
    """Not a stranger, not somebody who allowed something else, not somebody who withdrew."""
    ingest.allow("other-purpose", "analytics", "research")
    ingest.allow("withdrew")
    ingest.consents.withdraw("withdrew", "1", "test")
    ingest.allow("erased")
    ingest.consents.erase("erased", "1", "test")
    batch = [event(user_id=name) for name in ("stranger", "other-purpose", "withdrew", "erased")]
    assert codes(ingest.collector.collect(batch)) == ["consent_missing"] * 4
    assert events_logged(ingest) == []


def test_refused_events_do_not_hold_up_the_others(ingest: Any, event: MakeEvent) -> None:
    ingest.allow("u1")
    batch = [event(), event(user_id="u2"), event(type="sneeze"), None, event(), event(item_id="")]
    verdicts = ingest.collector.collect(batch)
    assert codes(verdicts) == [
        "accepted",
        "consent_missing",
        "unknown_type",
        "invalid_event",
        "accepted",
        "invalid_event",
    ]
    assert [v.id for v in verdicts] == [raw["event_id"] if raw else None for raw in batch]
    assert [e.event_id for e in events_logged(ingest)] == [batch[0]["event_id"], batch[4]["event_id"]]
    counted = {code: ingest.count("marquee_events_total", verdict=code) for code in set(codes(verdicts))}
    assert counted == {"accepted": 2, "consent_missing": 1, "unknown_type": 1, "invalid_event": 2}


def test_a_refused_event_leaves_nothing_anywhere(
    ingest: Any, event: MakeEvent, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every key and value of Redis, every file and every line that was printed is searched."""
    ingest.allow("u1")
    refused = [
        event(user_id="canary-a", event_id="canary-b", item_id="canary-c"),
        event(event_id="canary-d", type="canary-e"),
        event(event_id="canary-f", canary="canary-g"),
        event(event_id="canary-h", occurred_at="1950-01-01T00:00:00Z"),
    ]
    ingest.collector.collect([*refused, event(event_id="taken")])
    found = everything(ingest)
    assert b"taken" in found
    assert b"canary" not in found
    assert "canary" not in "".join(capfd.readouterr())


def everything(ingest: Any) -> bytes:
    """All that is stored: Redis (keys, and values as they are dumped) and the ledger's files."""
    keys = ingest.store.keys()
    values = [ingest.store.dump(key) or b"" for key in keys]
    files = [file.read_bytes() for file in Path(ingest.folder).rglob("*") if file.is_file()]
    records = [record.model_dump_json().encode() for record in ingest.logged()]
    return b"\n".join([*keys, *values, *files, *records])


def test_whoever_opts_out_is_refused_and_not_even_asked_about(ingest: Any, event: MakeEvent) -> None:
    """What is on record changes nothing, and Redis is not told of the person."""
    ingest.allow("u1")
    ingest.store.delete("{consent}:head")
    verdicts = ingest.collector.collect([event(event_id="e1"), event(type="sneeze"), None], opted_out=True)
    assert codes(verdicts) == ["consent_missing", "unknown_type", "invalid_event"]
    assert verdicts[0] == ("e1", "consent_missing", "the request carries Sec-GPC: 1, which counts as a refusal")
    assert events_logged(ingest) == []
    assert ingest.count("marquee_events_total", verdict="consent_missing") == 1


def test_a_batch_that_was_let_through_before_a_withdrawal_elsewhere_is_judged_again(
    ingest: Any, event: MakeEvent
) -> None:
    """The log looks at the projection in the step that appends; others of the batch are taken."""
    ingest.allow("u1")
    ingest.allow("u2")
    append = ingest.log.append
    other = Consents(ingest.ledger, ingest.store, ingest.log, "a secret", Passage())

    def append_after_a_withdrawal(records: Any, guard: Any) -> Any:
        if not withdrawn:
            withdrawn.append(other.withdraw("u1", "1", "test"))
        return append(records, guard)

    withdrawn: list[Any] = []
    ingest.collector._log = type("Late", (), {"append": staticmethod(append_after_a_withdrawal)})()
    assert codes(ingest.collector.collect([event(), event(user_id="u2")])) == ["consent_missing", "accepted"]
    assert [record.user_id for record in events_logged(ingest)] == ["u2"]
    other.close()


def test_a_consent_that_changes_without_pause_is_a_no(ingest: Any, event: MakeEvent) -> None:
    class Changing:
        def append(self, _: Any, guard: Any) -> None:
            raise GuardChanged

    ingest.allow("u1")
    ingest.collector._log = Changing()
    with pytest.raises(ConsentUnavailable, match="without pause"):
        ingest.collector.collect([event()])


def test_after_a_withdrawal_is_answered_nothing_of_the_person_is_accepted(ingest: Any, event: MakeEvent) -> None:
    """Batches under way included: senders go on without pause while the person withdraws, twenty times over."""
    for _ in range(20):
        ingest.allow("u1")
        stop = threading.Event()
        senders = [threading.Thread(target=send_until, args=(ingest, event, stop)) for _ in range(3)]
        for sender in senders:
            sender.start()
        threading.Event().wait(0.01)
        ingest.consents.withdraw("u1", "1", "test")
        end = ingest.log.end_offsets()
        threading.Event().wait(0.01)
        stop.set()
        for sender in senders:
            sender.join(10)
        assert ingest.log.end_offsets() == end
    assert len(events_logged(ingest)) > 20


def send_until(ingest: Any, event: MakeEvent, stop: threading.Event) -> None:
    while not stop.is_set():
        ingest.collector.collect([event(), event()])


def test_without_the_projection_nothing_is_taken(ingest: Any, event: MakeEvent) -> None:
    ingest.allow("u1")
    ingest.store.delete("{consent}:head")
    with pytest.raises(ConsentUnavailable):
        ingest.collector.collect([event()])
    assert events_logged(ingest) == []
    assert ingest.count("marquee_events_total", verdict="accepted") == 0


def test_without_the_log_nothing_is_called_accepted(ingest: Any, event: MakeEvent) -> None:
    class Down:
        def append(self, _: Any, guard: Any) -> None:
            raise EventLogUnavailable("down")

    ingest.allow("u1")
    ingest.collector._log = Down()
    with pytest.raises(EventLogUnavailable):
        ingest.collector.collect([event()])
    assert ingest.count("marquee_events_total", verdict="accepted") == 0


# --- together --------------------------------------------------------------------------------------------------------


class Together:
    """Holds up the first batch until some others wait behind it."""

    def __init__(self, ingest: Any) -> None:
        self.appended: list[list[bytes]] = []
        self.judged: list[int] = []
        self._append, self._judge = ingest.log.append, ingest.gate.judge
        self._collector = ingest.collector
        ingest.gate.judge = self.judge
        ingest.collector._log = self

    def judge(self, people: Any, purpose: str) -> Any:
        self.judged.append(len(people))
        return self._judge(people, purpose)

    def append(self, records: Any, guard: Any) -> Any:
        while not self.appended and len(self._collector._commit._waiting) < 3:
            threading.Event().wait(0.001)
        self.appended.append([key for key, _ in records])
        return self._append(records, guard)


def collect_at_once(ingest: Any, first: Any, others: list[Any]) -> list[list[str]]:
    """Codes of the others, which come while the first is on its way."""
    answers: dict[int, list[str]] = {}

    def collect(number: int, batch: Any) -> None:
        answers[number] = codes(ingest.collector.collect(batch))

    threads = [threading.Thread(target=collect, args=pair) for pair in enumerate([first, *others])]
    for number, thread in enumerate(threads):
        thread.start()
        while number and len(ingest.collector._commit._waiting) < number and thread.is_alive():
            threading.Event().wait(0.001)
        while not number and not ingest.collector._log.judged:
            threading.Event().wait(0.001)
    for thread in threads:
        thread.join(20)
    return [answers[number] for number in range(1, len(threads))]


def test_batches_that_come_at_the_same_time_are_judged_and_appended_together(ingest: Any, event: MakeEvent) -> None:
    """In the order in which they came; and each is told of its own events."""
    for person in ("u1", "u2", "u3"):
        ingest.allow(person)
    together = Together(ingest)
    others = [
        [event(user_id="u2"), event(user_id="stranger")],
        [event(user_id="stranger"), event(type="sneeze"), event(user_id="u3")],
        [event(user_id="u3")],
    ]
    assert collect_at_once(ingest, [event()], others) == [
        ["accepted", "consent_missing"],
        ["consent_missing", "unknown_type", "accepted"],
        ["accepted"],
    ]
    assert together.judged == [1, 5]
    assert together.appended == [[b"u1"], [b"u2", b"u3", b"u3"]]


def test_who_waits_too_long_behind_others_is_told_that_the_log_does_not_answer(
    ingest: Any, event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what had not begun by then is never appended."""
    ingest.allow("u1")
    monkeypatch.setattr("ingest.collector.TURN_SECONDS", 0.05)
    held, go_on = threading.Event(), threading.Event()
    append = ingest.log.append

    def held_up(records: Any, guard: Any) -> Any:
        held.set()
        go_on.wait(20)
        return append(records, guard)

    ingest.collector._log = type("Slow", (), {"append": staticmethod(held_up)})()
    with pytest.raises(EventLogUnavailable):
        ingest.collector.collect([event(event_id="begun")])
    assert held.wait(20)
    with pytest.raises(EventLogUnavailable):
        ingest.collector.collect([event(event_id="late")])
    go_on.set()
    ingest.collector.close()
    assert [record.event_id for record in events_logged(ingest)] == ["begun"]


ONE_OF_EACH: list[dict[str, Any]] = [
    {},
    {"user_id": "stranger"},
    {"type": "sneeze"},
    {"occurred_at": "1950-01-01T00:00:00Z"},
    {"occurred_at": "2999-01-01T00:00:00Z"},
    {"event_id": ""},
    {"item_id": 7},
    {"recommendation_id": "r"},
    {"canary": "x"},
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(some.lists(some.sampled_from(ONE_OF_EACH), min_size=1, max_size=12))
def test_a_batch_gets_the_verdicts_that_its_events_would_get_alone(
    ingest: Any, event: MakeEvent, batch: list[dict[str, Any]]
) -> None:
    if not ingest.projection.read(["u1"])["u1"].granted:
        ingest.allow("u1")
    sent = [event(**changes) for changes in batch]
    alone = [ingest.collector.collect([each])[0] for each in sent]
    assert ingest.collector.collect(sent) == alone


SCALARS = some.none() | some.booleans() | some.integers() | some.floats() | some.text()
JSON = some.recursive(SCALARS, lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner), max_leaves=12)
FIELDS = ["event_id", "type", "user_id", "item_id", "occurred_at", "recommendation_id", "kind", "receipt"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(some.lists(JSON | some.dictionaries(some.sampled_from(FIELDS), JSON), max_size=5))
def test_whatever_is_sent_gets_a_verdict_each(ingest: Any, batch: list[Any]) -> None:
    assert set(codes(ingest.collector.collect(batch))) <= {"invalid_event"}
    assert len(ingest.collector.register_items(batch)) == len(batch)


# --- items -----------------------------------------------------------------------------------------------------------


def test_an_item_stands_in_the_log(ingest: Any) -> None:
    attributes = {"title": "Toy Story", "genres": ["Animation", "Comedy"], "year": 1995}
    attributes |= {"available_until": "2030-01-01T00:00:00Z"}
    verdicts = ingest.collector.register_items([{"item_id": "m1", "attributes": attributes}, {"item_id": "m2"}])
    assert codes(verdicts) == ["accepted", "accepted"]
    items = {record.item_id: record for record in ingest.logged()}
    assert items == {"m1": Item(item_id="m1", attributes=attributes), "m2": Item(item_id="m2")}
    assert ingest.count("marquee_items_total", verdict="accepted") == 2


@pytest.mark.parametrize(
    "raw",
    [
        None,
        {},
        {"item_id": "x" * 129},
        {"item_id": "m1", "hidden": "perhaps"},
        {"item_id": "m1", "price": 3},
        {"item_id": "m1", "attributes": {"price": 3}},
        {"item_id": "m1", "attributes": {"title": 3}},
        {"item_id": "m1", "attributes": {"title": None}},
        {"item_id": "m1", "attributes": {"genres": "Comedy"}},
        {"item_id": "m1", "attributes": {"genres": ["Comedy", 3]}},
        {"item_id": "m1", "attributes": {"year": "1995"}},
        {"item_id": "m1", "attributes": {"year": 1995.5}},
        {"item_id": "m1", "attributes": {"year": True}},
        {"item_id": "m1", "attributes": {"available_until": "tomorrow"}},
        {"item_id": "m1", "attributes": {"available_until": "2030-01-01T00:00:00"}},
        {"item_id": "m1", "attributes": {"available_until": 1893456000}},
        {"item_id": "m1", "attributes": {"title": {"en": "Toy Story"}}},
    ],
    ids=str,
)
def test_an_item_has_to_be_what_the_domain_says(ingest: Any, raw: Any) -> None:
    [verdict] = ingest.collector.register_items([raw])
    assert verdict.code == "invalid_item"
    assert verdict.detail
    assert ingest.logged() == []
