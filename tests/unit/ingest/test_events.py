"""The contract: what the log and the projection hold can be read back, and what is no record is told apart."""

import tomllib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as some
from pydantic import TypeAdapter, ValidationError

from infra.online_store import OnlineStore
from ingest.events import (
    CONSENT_HEAD,
    MAX_ID_BYTES,
    AcceptedEvent,
    Consent,
    ConsentMark,
    ConsentProjection,
    ConsentUnavailable,
    Domain,
    ErasureMark,
    ErasureStep,
    Event,
    Id,
    InvalidRecord,
    Item,
    LogRecord,
    consent_key,
    decode,
    encode,
    encode_accepted,
    is_mark,
    key,
    subject,
)

AN_ID: TypeAdapter[str] = TypeAdapter(Id)
IDS = some.text(min_size=1, max_size=MAX_ID_BYTES).filter(lambda s: s.isprintable() and len(s.encode()) <= MAX_ID_BYTES)
RECEIPTS = some.integers(1, 2**53)
TIMES = some.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=some.just(UTC))
PURPOSES = some.lists(some.sampled_from(["personalization", "analytics", "research"]), unique=True)


@given(some.text(max_size=200))
def test_an_id_is_1_to_128_printable_bytes_of_utf_8(text: str) -> None:
    try:
        expected = text.isprintable() and 1 <= len(text.encode()) <= 128
    except UnicodeEncodeError:
        expected = False
    try:
        AN_ID.validate_python(text)
        accepted = True
    except ValidationError:
        accepted = False
    assert accepted is expected


@pytest.mark.parametrize("text", ["é" * 65, "a" * 129, "", "a\nb", "a\x00", "\ud800"])
def test_some_strings_are_no_ids(text: str) -> None:
    with pytest.raises(ValidationError):
        AN_ID.validate_python(text)


@given(some.integers(0, 2**53), some.integers(0, 2**53), PURPOSES)
def test_a_consent_comes_back_as_it_was_written(granted: int, revoked: int, purposes: list[str]) -> None:
    consent = Consent(granted, revoked, frozenset(purposes))
    assert Consent.decode(consent.encode()) == consent


@given(some.integers(0, 9), some.integers(0, 9), some.integers(1, 9), PURPOSES)
def test_what_is_allowed_now_is_also_covered_now(granted: int, revoked: int, receipt: int, purposes: list[str]) -> None:
    consent = Consent(granted, revoked, frozenset(purposes))
    assert consent.allows("personalization") == (granted > revoked and "personalization" in purposes)
    assert consent.covers(receipt) == (receipt > revoked)
    assert not consent.allows("personalization") or consent.covers(granted)


@given(
    some.one_of(
        some.builds(
            AcceptedEvent, event_id=IDS, type=IDS, user_id=IDS, item_id=IDS, occurred_at=TIMES, accepted_at=TIMES,
            receipt=RECEIPTS, recommendation_id=some.none() | IDS,
        ),
        some.builds(ConsentMark, user_id=IDS, receipt=RECEIPTS, purposes=PURPOSES.map(tuple), at=TIMES),
        some.builds(ErasureMark, user_id=IDS, receipt=RECEIPTS, erasure_id=IDS, at=TIMES),
        some.builds(ErasureStep, erasure_id=IDS, removed=some.none() | some.integers(0, 2**53), at=TIMES),
        some.builds(Item, item_id=IDS, attributes=some.dictionaries(IDS, IDS | some.lists(IDS), max_size=3)),
    )
)  # fmt: skip
def test_a_record_comes_back_as_it_was_written(record: LogRecord) -> None:
    assert decode(encode(record)) == record
    assert key(record)


ZONES = some.integers(-720, 720).map(lambda minutes: timezone(timedelta(minutes=minutes)))
SENT = some.builds(
    Event,
    event_id=IDS,
    type=IDS,
    user_id=IDS,
    item_id=IDS,
    occurred_at=some.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=ZONES),
    recommendation_id=some.none() | IDS,
)


def as_accepted(event: Event, receipt: int, at: datetime) -> AcceptedEvent:
    fields = event.model_dump() | {"occurred_at": event.occurred_at.astimezone(UTC)}
    return AcceptedEvent(**fields, receipt=receipt, accepted_at=at)


@given(SENT, RECEIPTS, TIMES)
def test_the_short_way_to_the_wire_form_ends_in_the_same_bytes(event: Event, receipt: int, at: datetime) -> None:
    """Times with microseconds and of every zone included."""
    slow = as_accepted(event, receipt, at)
    assert encode_accepted(event, receipt, at) == encode(slow)
    assert decode(encode_accepted(event, receipt, at)) == slow


def test_a_short_way_that_keeps_the_zone_would_be_found() -> None:
    event = Event(
        event_id="e",
        type="play",
        user_id="u",
        item_id="m",
        occurred_at=datetime.fromisoformat("2024-03-01T20:00+05:30"),
    )
    at = datetime(2026, 3, 1, tzinfo=UTC)
    fields = {"kind": "event", **vars(event), "receipt": 1, "accepted_at": at}
    assert orjson.dumps(fields, option=orjson.OPT_UTC_Z) != encode(as_accepted(event, 1, at))


@pytest.mark.parametrize("value", [b"", b"{}", b"\xff", b'{"kind":"event"}', b'{"kind":"other"}', b"[1]", b"null"])
def test_other_bytes_are_no_record(value: bytes) -> None:
    with pytest.raises(InvalidRecord):
        decode(value)


def test_the_reason_does_not_quote_the_record() -> None:
    with pytest.raises(InvalidRecord) as raised:
        decode(b'{"kind":"erasure","user_id":["canary"],"receipt":"canary","erasure_id":"e","at":"canary"}')
    assert "canary" not in str(raised.value)


def test_a_mark_ends_something() -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    mark: dict[str, Any] = {"user_id": "u", "receipt": 1, "at": at}
    assert is_mark(ErasureMark(**mark, erasure_id="e"))
    assert is_mark(ConsentMark(**mark, purposes=("analytics",)))
    assert not is_mark(ConsentMark(**mark, purposes=("personalization",)))
    assert not is_mark(Item(item_id="m"))


def test_the_projection_is_read_in_one_round_trip_and_only_while_it_is_whole(store: OnlineStore) -> None:
    projection = ConsentProjection(store, "s")
    store.set(consent_key(subject("u1", "s")), Consent(3, 0, frozenset({"personalization"})).encode())
    with pytest.raises(ConsentUnavailable, match="not whole"):
        projection.read(["u1"])
    store.set(CONSENT_HEAD, 3)
    assert projection.read(["u1", "u2", "u1"]) == {"u1": Consent(3, 0, frozenset({"personalization"})), "u2": Consent()}
    assert projection.receipts() == 3


# --- the domain ------------------------------------------------------------------------------------------------------

DOMAIN = Path(__file__).parents[3] / "domain.toml"


def test_what_begins_an_item_is_told_by_its_weight() -> None:
    assert Domain.model_validate(tomllib.loads(DOMAIN.read_text())).begins_weights == {1.0}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t["events"]["types"]["complete"].update(weight=1.0), "a weight of its own"),
        (lambda t: t["events"]["types"]["impression"].update(begins=True), "enters histories"),
        (lambda t: t["items"].update(category="genre"), "genre: not among the attributes"),
        (lambda t: t["items"].update(available_until="title"), "has to be of kind time"),
        (lambda t: t["items"]["filters"]["min_year"].update(attribute="title"), "needs an attribute of kind integer"),
        (lambda t: t["items"]["filters"].update(k=t["items"]["filters"]["min_year"]), "a parameter of that name"),
    ],
)
def test_a_domain_that_contradicts_itself_is_refused(change: Callable[[Any], None], complaint: str) -> None:
    tables = tomllib.loads(DOMAIN.read_text())
    change(tables)
    with pytest.raises(ValidationError, match=complaint):
        Domain.model_validate(tables)
