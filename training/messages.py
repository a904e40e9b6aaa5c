"""What the operator's API takes and gives, as it is documented in OpenAPI."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from infra.model_registry import PURGED, ModelVersion
from training.rollback import PROMOTED_AT, PROMOTED_BECAUSE, PROMOTED_BY
from training.run_record import FORCED, GATE, PASSED
from training.verdict import Verdict, from_tags

HIGHEST = 2**31 - 1
"""Of version numbers: the registry's database has no room for more."""

Version = Annotated[int, Field(ge=1, le=HIGHEST, examples=[2])]
Reason = Annotated[
    str,
    Field(max_length=1000, pattern="^[^\\x00-\\x1f\\x7f]*$", description="Why; kept with the version.", examples=[""]),
]


# --- versions --------------------------------------------------------------------------------------------------------


class GateVerdict(BaseModel):
    """What one rule of the gate said."""

    check: str = Field(examples=["popularity"])
    passed: bool
    reason: str

    @classmethod
    def of(cls, verdict: Verdict) -> Self:
        """As the registry has it."""
        return cls(check=verdict.name, passed=verdict.passed, reason=verdict.reason)


class Gate(BaseModel):
    """What the gate said of a version."""

    passed: bool | None = Field(description="null: it was not asked.")
    verdicts: list[GateVerdict]


class Promotion(BaseModel):
    """That somebody had a version served by hand."""

    by: str = Field(description="Name of the key, or of who typed.")
    at: datetime
    reason: str
    forced: bool


class ModelMessage(BaseModel):
    """A version of the model."""

    version: int
    created_at: datetime
    algorithm: str
    recipe: str
    served: bool
    kept: bool = Field(description="It is whole in the online store: it is served at once when it is asked for.")
    purged: bool = Field(description="Its files are gone, since it knew who was erased: it cannot be served again.")
    gate: Gate
    metrics: dict[str, float]
    promotion: Promotion | None = Field(description="The last one by hand; null: there was none.")

    @classmethod
    def of(cls, found: ModelVersion, served: int | None, kept: bool) -> Self:
        """As the registry has it."""
        tags = found.tags
        verdict = tags.get("verdict")
        return cls(
            version=found.version,
            created_at=found.registered_at,
            algorithm=tags.get("algorithm", ""),
            recipe=tags.get("recipe", ""),
            served=found.version == served,
            kept=kept,
            purged=PURGED in tags,
            gate=Gate(
                passed=None if verdict is None else verdict == PASSED,
                verdicts=[GateVerdict.of(one) for one in from_tags(GATE, tags)],
            ),
            metrics={name: value for name, value in found.metrics.items() if abs(value) < float("inf")},
            promotion=_promotion(tags),
        )


def _promotion(tags: Mapping[str, str]) -> Promotion | None:
    if PROMOTED_AT not in tags:
        return None
    at, reason = datetime.fromisoformat(tags[PROMOTED_AT]), tags.get(PROMOTED_BECAUSE, "")
    return Promotion(by=tags.get(PROMOTED_BY, ""), at=at, reason=reason, forced=FORCED in tags)


class Models(BaseModel):
    """The versions, newest first."""

    served: int | None
    models: list[ModelMessage]


class PromotionRequest(BaseModel):
    """An operator's word on a version."""

    model_config = ConfigDict(extra="forbid", strict=True)

    force: bool = Field(False, description="Also where the gate refused it; needs a reason.")
    reason: Reason = ""

    @model_validator(mode="after")
    def _force_has_a_reason(self) -> Self:
        if self.force and not self.reason.strip():
            raise ValueError("force needs a reason: it is kept with the version")
        return self


class RollbackRequest(BaseModel):
    """Which version to go back to."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: Version | None = Field(None, description="null: the newest one before, of those that may be served.")


class Served(BaseModel):
    """The version that is served now."""

    served: int


# --- lists -----------------------------------------------------------------------------------------------------------


class ItemMessage(BaseModel):
    """An item with its attributes."""

    model_config = ConfigDict(extra="allow")

    item_id: str

    @classmethod
    def of(cls, item_id: str, attributes: Mapping[str, Any]) -> Self:
        """As a version knows it."""
        return cls(**{**attributes, "item_id": item_id})


class VersionList(BaseModel):
    """What a version would recommend."""

    version: int
    served: bool
    items: list[ItemMessage]


class PersonLists(BaseModel):
    """A person's history, and what each version makes of it."""

    user_id: str
    history: list[ItemMessage] = Field(description="Newest first.")
    lists: list[VersionList]


# --- operations ------------------------------------------------------------------------------------------------------


class Process(BaseModel):
    """A process of the platform."""

    name: str = Field(examples=["serving"])
    answers: bool


class Sample(BaseModel):
    """One value that a process shows on /metrics."""

    process: str
    name: str = Field(examples=["marquee_log_lag"])
    labels: dict[str, str]
    value: float


class Lag(BaseModel):
    """Records of the log that each group has not read yet; null: nobody tells."""

    lander: int | None = None
    nearline: int | None = None
    trainer: int | None = None


class BytesAPerson(BaseModel):
    """Room in the online store, on average over a sample of people."""

    list: float
    live: float
    history: float
    total: float


class RedisFigures(BaseModel):
    """What the online store holds."""

    used_bytes: int
    people: int = Field(description="Who have a history.")
    bytes_a_person: BytesAPerson | None = Field(description="null: nobody has a list or a history.")


class Operations(BaseModel):
    """The platform now. What does not answer is null."""

    at: AwareDatetime
    processes: list[Process]
    samples: list[Sample]
    landed_rows: int | None = Field(description="Rows of the lake's table of events.")
    lag: Lag
    redis: RedisFigures | None
