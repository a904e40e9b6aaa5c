"""What the HTTP edge of ingest takes and gives, as it is documented in OpenAPI."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from infra.database import Counts, ErasureState, Receipt
from ingest.collector import ACCEPTED, Verdict
from ingest.events import MAX_BATCH, STAGES, Consent, Event, Id, Item, Purpose

EVENT_EXAMPLE: dict[str, JsonValue] = {
    "event_id": "01J9Z6Q7W3",
    "type": "play",
    "user_id": "u-42",
    "item_id": "m-1",
    "occurred_at": "2026-03-01T20:15:00Z",
}
ITEM_EXAMPLE: dict[str, JsonValue] = {
    "item_id": "m-1",
    "attributes": {"title": "Toy Story", "genres": ["Animation"], "year": 1995},
}


class EventBatch(BaseModel):
    """Up to 500 events, of any people."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"events": [EVENT_EXAMPLE]}]})

    events: Annotated[list[Event], Field(min_length=1, max_length=MAX_BATCH)]


class ItemBatch(BaseModel):
    """Up to 500 items."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"items": [ITEM_EXAMPLE]}]})

    items: Annotated[list[Item], Field(min_length=1, max_length=MAX_BATCH)]


class EventVerdict(BaseModel):
    """What became of one event."""

    event_id: str | None = Field(examples=["01J9Z6Q7W3"])
    code: Literal[
        "accepted", "invalid_event", "unknown_type", "too_old", "in_the_future", "consent_missing", "item_flooded"
    ] = Field(examples=["accepted"])
    detail: str = ""


class ItemVerdict(BaseModel):
    """What became of one item."""

    item_id: str | None = Field(examples=["m-1"])
    code: Literal["accepted", "invalid_item"] = Field(examples=["accepted"])
    detail: str = ""


class EventVerdicts(BaseModel):
    """One verdict an event, in the order they were sent. The accepted are durable in the event log."""

    accepted: int = Field(examples=[1])
    refused: int = Field(examples=[0])
    verdicts: list[EventVerdict]


class ItemVerdicts(BaseModel):
    """One verdict an item, in the order they were sent."""

    accepted: int = Field(examples=[1])
    refused: int = Field(examples=[0])
    verdicts: list[ItemVerdict]


class ConsentRequest(BaseModel):
    """What the person allows from here on, and nothing else."""

    model_config = ConfigDict(extra="forbid")

    purposes: Annotated[list[Purpose], Field(min_length=1, max_length=8, examples=[["personalization"]])]
    policy_version: Id = Field(
        "unversioned", description="Of the text that the person was shown.", examples=["2026-01"]
    )
    source: Id = Field("api", description="Where the person said so.", examples=["settings page"])


class ReceiptMessage(BaseModel):
    """The record of what was said. Its hash covers it and, through `previous`, all that was recorded before it."""

    number: int = Field(examples=[17])
    action: Literal["grant", "withdraw", "erase"]
    purposes: list[str] = Field(examples=[["personalization"]])
    policy_version: str
    source: str
    at: datetime
    previous: str
    hash: str

    @classmethod
    def of(cls, receipt: Receipt) -> Self:
        """As it is in the ledger, without the pseudonym."""
        fields = receipt._asdict()
        del fields["subject"]
        return cls.model_validate(fields)


class ConsentMessage(BaseModel):
    """What the person allows now, and how that came about."""

    purposes: list[str] = Field(description="Empty: nothing is collected.", examples=[["personalization"]])
    receipts: list[ReceiptMessage]

    @classmethod
    def of(cls, consent: Consent, receipts: Sequence[Receipt]) -> Self:
        """From the record."""
        return cls(purposes=sorted(consent.purposes), receipts=[ReceiptMessage.of(receipt) for receipt in receipts])


WHAT: dict[str, str] = {
    "lake": "events in the lake: rows, old files, and the table's own log",
    "dead_letters": "records that could not be landed, with their files",
    "lists": "published lists, of every version",
    "nearline": "history, live lists of every version, votes",
    "log": "records of the event log",
    "models": "versions trained on the person's events: bundles, model cards, plots",
}
"""stage → what of a person is kept there."""


class StepMessage(BaseModel):
    """A stage has forgotten."""

    stage: str = Field(examples=["lake"])
    what: str = Field(examples=[WHAT["lake"]])
    removed: int | None = Field(
        description="Things removed, as far as the run that signed met them; null: they end by retention.",
        examples=[12],
    )
    at: datetime


class RemainsMessage(BaseModel):
    """Something is still there."""

    stage: str = Field(examples=["log"])
    what: str = Field(examples=[WHAT["log"]])
    until: datetime | None = Field(description="When it is gone at the latest; null: not known.")
    why: str


class ErasureMessage(BaseModel):
    """How far an erasure has come: the receipt. It names no person."""

    erasure_id: str
    status: Literal["open", "complete"] = Field(description="Complete: no store holds the person, but for `remains`.")
    opened_at: datetime
    completed_at: datetime | None
    steps: list[StepMessage]
    remains: list[RemainsMessage]

    @classmethod
    def of(cls, state: ErasureState) -> Self:
        """From the record."""
        steps = [
            StepMessage(stage=stage, what=WHAT[stage], removed=step.removed, at=step.at)
            for stage, step in state.steps.items()
        ]
        return cls(
            erasure_id=state.erasure_id,
            status="open" if state.completed_at is None else "complete",
            opened_at=state.opened_at,
            completed_at=state.completed_at,
            steps=sorted(steps, key=lambda step: step.at),
            remains=[
                RemainsMessage(stage=stage, what=WHAT[stage], until=until, why=why)
                for stage, (until, why) in _remains(state).items()
            ],
        )


class ConsentCounts(BaseModel):
    """People by what they allow now; who allows several purposes is counted under each."""

    personalization: int
    analytics: int
    research: int
    withdrawn: int = Field(description="Who allow nothing any more, by a withdrawal or an erasure.")


class ErasureCounts(BaseModel):
    """People who asked to be forgotten."""

    open: int
    complete: int = Field(description="All of whose erasures are.")


class CountsMessage(BaseModel):
    """How many people there are in the ledger. It names none."""

    consents: ConsentCounts
    erasures: ErasureCounts

    @classmethod
    def of(cls, counts: Counts) -> Self:
        """From the record."""

        def allow(purpose: Purpose) -> int:
            return sum(people for purposes, people in counts.allowing.items() if purpose in purposes)

        return cls(
            consents=ConsentCounts(
                personalization=allow("personalization"),
                analytics=allow("analytics"),
                research=allow("research"),
                withdrawn=counts.allowing.get((), 0),
            ),
            erasures=ErasureCounts(open=counts.erasing, complete=counts.erased),
        )


def _remains(state: ErasureState) -> dict[str, tuple[datetime | None, str]]:
    """stage → until when something remains there, and why."""
    found: dict[str, tuple[datetime | None, str]] = {
        stage: (None, "the stage has not signed yet") for stage in STAGES if stage not in state.steps
    }
    log = state.steps.get("log")
    if log is not None and log.removed is None:
        forever = "this log removes no single records, and its topic has no retention: give it one"
        ends = "this log removes no single records: its retention ends them, and nothing reads them as the person's"
        found["log"] = (log.remains_until, forever if log.remains_until is None else ends)
    if "models" not in state.steps:
        found["models"] = (None, "they hold no person; the next retraining that is published replaces them")
    return found


def verdicts_message(verdicts: Sequence[Verdict], id_name: Literal["event_id", "item_id"]) -> dict[str, Any]:
    """An `EventVerdicts` or `ItemVerdicts`, ready to be dumped: for hundreds at a time, models would take too long."""
    accepted = sum(verdict.code == ACCEPTED for verdict in verdicts)
    rows = [
        {id_name: v.id, "code": v.code, "detail": v.detail} if v.detail else {id_name: v.id, "code": v.code}
        for v in verdicts
    ]
    return {"accepted": accepted, "refused": len(verdicts) - accepted, "verdicts": rows}
