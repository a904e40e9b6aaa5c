"""CONTRACT: what happened, as every stage may know it: the domain, the event, its wire form, the consent projection.

Everything that happens stands in one log, told apart by `kind` and keyed so that what concerns one person (or one item)
is in order:

| kind           | key         | written by | says                                                       |
|----------------|-------------|------------|------------------------------------------------------------|
| `event`        | user_id     | collector  | a person did something with an item                        |
| `consent`      | user_id     | consent    | what the person allows from here on (nothing: a withdrawal) |
| `erasure`      | user_id     | erasure    | forget this person                                         |
| `item`         | item_id     | collector  | an item's attributes from here on                          |
| `erasure_step` | erasure_id  | each stage | this stage has forgotten; names no person                  |

An event carries the number of the consent receipt it was accepted under. It counts only while that receipt is newer
than the person's last withdrawal: `Consent.covers`. So the order in which marks and events are met does not matter.
"""

import hmac
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self, cast

import orjson
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    StrictBool,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from infra.online_store import OnlineStore, OnlineStoreError
from infra.transport import reason

MAX_ID_BYTES = 128
MAX_BATCH = 500
PERSONALIZATION = "personalization"
Purpose = Literal["personalization", "analytics", "research"]


# --- the domain ------------------------------------------------------------------------------------------------------


class EventType(BaseModel):
    """What a type of event means to the platform."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    history: bool
    weight: float = Field(1.0, ge=0, le=100)
    begins: bool = False


class EventRules(BaseModel):
    """Which events are taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    oldest: AwareDatetime
    future_tolerance_seconds: float = Field(ge=0)
    types: dict[str, EventType] = Field(min_length=1)


class HistoryRules(BaseModel):
    """How much of a person's past a model looks at."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    length: PositiveInt


class ItemFilter(BaseModel):
    """A parameter of a list's address that keeps items by an attribute. Items without the attribute are not kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    attribute: str
    keep: Literal["is", "at_most", "at_least"]


class ItemRules(BaseModel):
    """What an item may carry, and what the platform reads in it.

    Attributes:
        attributes: name → kind.
        name: the attribute that people call the item by.
        category: the attribute whose values are categories.
        available_until: the attribute that says when an item leaves every list.
        filters: name of the parameter → what it keeps. `category`, where there is one, is a filter too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    attributes: dict[str, Literal["string", "strings", "integer", "number", "time"]]
    name: str | None = None
    category: str | None = None
    available_until: str | None = None
    filters: dict[str, ItemFilter] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _attributes_are_known(self) -> Self:
        named = [self.name, self.category, self.available_until, *(each.attribute for each in self.filters.values())]
        if unknown := sorted({name for name in named if name is not None} - self.attributes.keys()):
            raise ValueError(f"{', '.join(unknown)}: not among the attributes")
        if self.available_until is not None and self.attributes[self.available_until] != "time":
            raise ValueError(f"available_until: {self.available_until} has to be of kind time")
        for name, each in self.filters.items():
            if each.keep != "is" and self.attributes[each.attribute] not in ("integer", "number"):
                raise ValueError(f"filters.{name}: {each.keep} needs an attribute of kind integer or number")
        if taken := sorted({"k", "exclude", "explain", "category"} & self.filters.keys()):
            raise ValueError(f"filters.{taken[0]}: the platform has a parameter of that name")
        return self


class PopularityRules(BaseModel):
    """How fast a vote for an item loses half of its weight."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    popular_half_life_days: float = Field(90.0, gt=0)
    trending_half_life_days: float = Field(3.0, gt=0)


class Domain(BaseModel):
    """`domain.toml`: the file that a fork rewrites first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    events: EventRules
    history: HistoryRules
    items: ItemRules
    popularity: PopularityRules = PopularityRules()

    @model_validator(mode="after")
    def _what_begins_is_told_by_its_weight(self) -> Self:
        weights = [kind.weight for kind in self.events.types.values() if kind.history]
        for name, kind in self.events.types.items():
            if kind.begins and (not kind.history or weights.count(kind.weight) > 1):
                raise ValueError(f"events.types.{name}: what begins an item enters histories, with a weight of its own")
        return self

    @property
    def begins_weights(self) -> frozenset[float]:
        """The weights in a history that say: begun, and not finished since."""
        return frozenset(kind.weight for kind in self.events.types.values() if kind.begins)

    @property
    def history_weights(self) -> dict[str, float]:
        """Event type → weight, for the types that enter a history."""
        return {name: kind.weight for name, kind in self.events.types.items() if kind.history}


def read_domain(path: Path) -> Domain:
    """Read and check `domain.toml`.

    Raises:
        FileNotFoundError: there is no such file.
        tomllib.TOMLDecodeError: it is not TOML; the message names the line.
        pydantic.ValidationError: a table or value is missing or wrong; the message names it.
    """
    return Domain.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))


# --- records of the log ----------------------------------------------------------------------------------------------


def _short_enough(value: str) -> str:
    if len(value.encode()) > MAX_ID_BYTES:
        raise ValueError(f"longer than {MAX_ID_BYTES} bytes")
    if not value.isprintable():
        raise ValueError("has unprintable characters")
    return value


_PRINTABLE = {"pattern": "^[^\\x00-\\x1f\\x7f]+$"}
"""For readers of the schema: the part of the rule that JSON Schema has words for."""

Id = Annotated[
    str, Field(min_length=1, max_length=MAX_ID_BYTES, json_schema_extra=_PRINTABLE), AfterValidator(_short_enough)
]
"""An opaque string of 1 to 128 bytes in UTF-8, printable."""


def _storable(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except (OverflowError, ValueError):
        raise ValueError("out of range") from None


Moment = Annotated[AwareDatetime, AfterValidator(_storable)]
"""A time with its zone, within the years 1 to 9999 in UTC too."""

Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
ReceiptNumber = Annotated[int, Field(gt=0, lt=2**63)]
"""Number of a receipt in the consent ledger."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Event(_Strict):
    """What a client sends: one act of one person with one item."""

    event_id: Id
    type: Id
    user_id: Id
    item_id: Id
    occurred_at: AwareDatetime
    recommendation_id: Annotated[str, Field(max_length=256)] | None = None


class AcceptedEvent(Event):
    """An event as it stands in the log: with the receipt it was accepted under and the time of that."""

    kind: Literal["event"] = "event"
    occurred_at: Moment
    receipt: ReceiptNumber
    accepted_at: Moment


class ConsentMark(_Strict):
    """What the person allows from here on. No purposes: a withdrawal."""

    kind: Literal["consent"] = "consent"
    user_id: Id
    receipt: ReceiptNumber
    purposes: tuple[str, ...]
    at: AwareDatetime


class ErasureMark(_Strict):
    """Forget this person: all that was accepted under receipts older than this one."""

    kind: Literal["erasure"] = "erasure"
    user_id: Id
    receipt: ReceiptNumber
    erasure_id: Id
    at: AwareDatetime


class Item(_Strict):
    """An item's attributes from here on; `hidden` takes it out of every list."""

    kind: Literal["item"] = "item"
    item_id: Id
    attributes: dict[str, str | Whole | Finite | list[str]] = Field(default_factory=dict, max_length=64)
    hidden: StrictBool = False


Stage = Literal["log", "lake", "dead_letters", "lists", "nearline", "models"]
STAGES: tuple[Stage, ...] = ("log", "lake", "lists", "nearline")
"""Whose signatures complete an erasure. `dead_letters` is signed with the lake; `models` hold no person, and are signed
when the next retraining has replaced them."""


class ErasureStep(_Strict):
    """A stage's signature under an erasure. It names no person."""

    kind: Literal["erasure_step"] = "erasure_step"
    erasure_id: Id
    stage: Stage
    removed: int | None = Field(description="Things removed; None where they end by retention.")
    at: AwareDatetime


LogRecord = AcceptedEvent | ConsentMark | ErasureMark | Item | ErasureStep
_LOG_RECORD: TypeAdapter[LogRecord] = TypeAdapter(Annotated[LogRecord, Field(discriminator="kind")])


class InvalidRecord(Exception):
    """Bytes in the log that are no record of ours: a matter for the dead letters."""


def encode(record: LogRecord) -> bytes:
    """The record's wire form: JSON in UTF-8, times in RFC 3339.

    >>> encode(Item(item_id="m1", attributes={"title": "Toy Story"}))
    b'{"kind":"item","item_id":"m1","attributes":{"title":"Toy Story"},"hidden":false}'
    """
    fields = record.model_dump()
    return orjson.dumps({"kind": fields.pop("kind"), **fields}, option=orjson.OPT_UTC_Z)


def encode_accepted(event: Event, receipt: int, accepted_at: datetime) -> bytes:
    """What `encode` makes of the event once it is accepted, without making and dumping a second model of it."""
    fields = {"kind": "event", **vars(event), "occurred_at": event.occurred_at.astimezone(UTC)}
    return orjson.dumps({**fields, "receipt": receipt, "accepted_at": accepted_at}, option=orjson.OPT_UTC_Z)


def decode(value: bytes) -> LogRecord:
    """The record that `value` is the wire form of.

    Raises:
        InvalidRecord: it is none; the message says why, without the record's content.
    """
    try:
        return _LOG_RECORD.validate_json(value)
    except ValidationError as error:
        raise InvalidRecord(describe(error)) from None


def describe(error: ValidationError) -> str:
    """Where and why a validation failed, without the offending values."""
    return "; ".join(
        f"{'.'.join(map(str, e['loc'])) or 'record'}: {e['msg']}" for e in error.errors(include_input=False)
    )


def key(record: LogRecord) -> bytes:
    """What decides the record's partition: the person, else the item, else the erasure."""
    match record:
        case Item(item_id=owner) | ErasureStep(erasure_id=owner):
            return owner.encode()
        case _:
            return record.user_id.encode()


def now() -> datetime:
    """The present moment in UTC, to the millisecond: the finest that the platform stores."""
    moment = datetime.now(UTC)
    return moment - timedelta(microseconds=moment.microsecond % 1000)


# --- the consent projection ------------------------------------------------------------------------------------------

CONSENT_HEAD = "{consent}:head"
"""Redis key (string, no TTL; writer: ingest): number of the ledger's last receipt in the projection. Missing: the
projection is not to be trusted."""


def subject(user_id: str, secret: str) -> str:
    """The pseudonym under which ledger and projection know a person: 128 bits of HMAC-SHA256, in hex.

    >>> subject("u1", "s") == subject("u1", "s") != subject("u1", "t")
    True
    """
    return hmac.digest(secret.encode(), user_id.encode(), "sha256")[:16].hex()


def consent_key(subject: str) -> str:
    """Redis key of a consent (string, no TTL; writer: ingest; readers: the gate, lander, publish, nearline)."""
    return f"{{consent}}:{subject}"


class Consent(NamedTuple):
    """What a person allows now.

    Attributes:
        granted: number of the receipt in force, 0 when there is none.
        revoked: number of the last receipt that withdrew or erased, 0 when there is none.
        purposes: what the receipt in force allows.
    """

    granted: int = 0
    revoked: int = 0
    purposes: frozenset[str] = frozenset()

    def allows(self, purpose: str) -> bool:
        """Whether something may be collected or used for `purpose` now."""
        return self.granted > self.revoked and purpose in self.purposes

    def covers(self, receipt: int) -> bool:
        """Whether what was accepted under `receipt` may still be kept."""
        return receipt > self.revoked

    def encode(self) -> bytes:
        """Its form in Redis.

        >>> Consent.decode(Consent(7, 3, frozenset({"personalization"})).encode())
        Consent(granted=7, revoked=3, purposes=frozenset({'personalization'}))
        """
        return orjson.dumps([self.granted, self.revoked, sorted(self.purposes)])

    @classmethod
    def decode(cls, value: bytes | None) -> "Consent":
        """From its form in Redis; of no value: a person who never said anything."""
        if value is None:
            return cls()
        granted, revoked, purposes = orjson.loads(value)
        return cls(granted, revoked, frozenset(purposes))


ERASURES = "{consent}:erasures"
"""Redis key (string, no TTL; writer: ingest; reader: training): `Erasures`. It names no person."""


class Erasures(NamedTuple):
    """The ledger's erasures, as far as models have to know.

    Attributes:
        last: number of the newest receipt by which somebody was erased, 0 where there is none. What was learned when
            the ledger ended before it may have been learned from that person.
        waiting: erasure_id → number of its receipt, of those that `models` has not signed.
    """

    last: int = 0
    waiting: Mapping[str, int] = {}

    def encode(self) -> bytes:
        """Its form in Redis.

        >>> Erasures.decode(Erasures(7, {"e": 7}).encode())
        Erasures(last=7, waiting={'e': 7})
        """
        return orjson.dumps([self.last, self.waiting], option=orjson.OPT_SORT_KEYS)

    @classmethod
    def decode(cls, value: bytes | None) -> "Erasures":
        """From its form in Redis; of no value: nobody was ever erased."""
        return cls() if value is None else cls(*orjson.loads(value))


class ConsentUnavailable(Exception):
    """Nobody can tell now what a person allows: treat it as a no, and try again."""


class ConsentProjection:
    """Reads the projection of the consent ledger.

    Args:
        store: the online store.
        secret: key of the pseudonyms.
    """

    def __init__(self, store: OnlineStore, secret: str) -> None:
        self._store = store
        self._secret = secret

    def read(self, user_ids: Sequence[str]) -> Mapping[str, Consent]:
        """user_id → what that person allows now, in one round trip.

        Raises:
            ConsentUnavailable: Redis does not answer, or the projection in it is not whole.
        """
        return self.read_at(user_ids)[1]

    def read_at(self, user_ids: Sequence[str]) -> tuple[int, Mapping[str, Consent]]:
        """The same, with how many receipts of the ledger are in the projection. Raises as `read`."""
        people = list(dict.fromkeys(user_ids))
        head, values = self._ask([self.key(person) for person in people])
        return head, {person: Consent.decode(value) for person, value in zip(people, values, strict=True)}

    def key(self, user_id: str) -> str:
        """Redis key of this person's consent."""
        return consent_key(subject(user_id, self._secret))

    def receipts(self) -> int:
        """How many receipts of the ledger are in the projection.

        Raises:
            ConsentUnavailable: as `read`.
        """
        return self._ask([])[0]

    def erasures(self) -> Erasures:
        """The ledger's erasures, as they were at most a second ago.

        Raises:
            ConsentUnavailable: Redis does not answer, or nobody has told it yet.
        """
        (value,) = self._ask([ERASURES])[1]
        return Erasures.decode(value)

    def _ask(self, keys: list[str]) -> tuple[int, list[bytes | None]]:
        """The head, and the values of these keys."""
        try:
            head, *values = cast("list[bytes | None]", self._store.mget([CONSENT_HEAD, *keys]))
        except OnlineStoreError as error:
            raise ConsentUnavailable(f"the consent projection does not answer: {reason(error)}") from error
        if head is None:
            raise ConsentUnavailable(
                "the consent projection is not whole; an ingest process rebuilds it from the ledger"
            )
        return int(head), values


def is_mark(record: LogRecord) -> bool:
    """Whether the record ends something: a withdrawal of personalization or an erasure."""
    match record:
        case ErasureMark():
            return True
        case ConsentMark(purposes=purposes):
            return PERSONALIZATION not in purposes
        case _:
            return False
