"""What the serving API takes and gives, as its documentation shows it."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
)

from ingest.events import Domain, EventType, Id
from serving.filters import DEFAULT_K, LONGEST, MOST_EXCLUDED
from training.bundle import Manifest

LONGEST_SESSION = 1000
_ITEM = {"item_id": "m1", "title": "Toy Story", "genres": ["Animation", "Comedy"], "year": 1995}


class NamedItem(BaseModel):
    """An item of the person's history, with the attribute that people call it by."""

    model_config = ConfigDict(extra="allow")

    item_id: str
    share: float = Field(description="Its part of all that speaks for the recommended item, 0 to 1.", examples=[0.41])


class Because(BaseModel):
    """Why an item is in a list. The words of `reason` never change: choose your own sentence by them."""

    reason: Literal["history", "popular", "trending"] = Field(
        description="`history`: items of the person's history speak for it. Nothing of the history does: `popular`, or "
        "`trending` for what is watched now and not among the most popular."
    )
    items: list[NamedItem] = Field(
        description="With `history`: up to three of its items, the one that says most first, as the model itself "
        "accounts for its score. Empty where the history is gone since the list was made.",
    )


class RecommendedItem(BaseModel):
    """An item with the attributes that `PUT /v1/items` gave it."""

    model_config = ConfigDict(extra="allow")

    item_id: str
    because: Because | None = Field(None, description="There with `explain=true` only.")


class Recommendations(BaseModel):
    """A ranked list, best first."""

    recommendation_id: str = Field(
        description="Send it back with impressions and plays. `GET /v1/recommendations/{id}` explains it."
    )
    version: int = Field(description="Version of the model; 0 before the first was published.")
    tier: Literal["live", "personal", "popular", "static"] = Field(
        description="Where the list came from: the newest events, the last publish, what most people watched, nothing."
    )
    items: list[RecommendedItem] = Field(examples=[[_ITEM]])


class SimilarItems(BaseModel):
    """Items like one item, most alike first."""

    version: int
    items: list[RecommendedItem] = Field(examples=[[_ITEM]])


class HomeRow(BaseModel):
    """One row of a page."""

    row: Literal["continue", "top_picks", "because_you_watched", "trending", "category"] = Field(
        description="What the row is: begun and not finished; the person's list, spread over categories; like "
        "`because_of`; watched now more than usually; of one `category`."
    )
    recommendation_id: str = Field(description="The row's own: send it back with what follows from this row.")
    tier: Literal["live", "personal", "popular", "static"]
    because_of: RecommendedItem | None = Field(None, description="In rows of `because_you_watched` only.")
    category: str | None = Field(None, description="In rows of `category` only.")
    items: list[RecommendedItem] = Field(examples=[[_ITEM]])


class HomePage(BaseModel):
    """Rows, from the top. No item is in two of them, and what was seen is in `continue` only."""

    version: int = Field(description="Version of the model; 0 before the first was published.")
    rows: list[HomeRow]


def _a_number(value: object) -> object:
    if isinstance(value, str | bool):
        raise ValueError("is no number")
    return value


def _no_number(value: object) -> object:
    if isinstance(value, int | float):
        raise ValueError("is no time of RFC 3339")
    return value


class SessionAct(BaseModel):
    """One act of a session that is not stored."""

    model_config = ConfigDict(extra="forbid")

    item_id: Id = Field(examples=["m1"])
    occurred_at: Annotated[AwareDatetime | None, BeforeValidator(_no_number)] = Field(
        None, description="When; left out: now."
    )
    type: Id | None = Field(None, description="Type of event, as `domain.toml` names it; left out: weight 1.")


class Session(BaseModel):
    """A history that comes with the request. Nothing of it is stored or logged."""

    model_config = ConfigDict(extra="forbid")

    history: list[SessionAct] = Field(max_length=LONGEST_SESSION)
    k: Annotated[int, BeforeValidator(_a_number)] = Field(
        DEFAULT_K, ge=1, le=LONGEST, description="Length of the list."
    )
    filters: dict[str, StrictStr | StrictInt | StrictFloat] = Field(
        default_factory=dict,
        description="Name of a filter → its value, as in the address of a person's list.",
        examples=[{"category": "Comedy"}],
    )
    exclude: list[Id] = Field(default_factory=list, max_length=MOST_EXCLUDED, description="Items that are not wanted.")
    explain: StrictBool = Field(False, description="Say of each item why it is there.")


class ModelLineage(BaseModel):
    """The model behind a list."""

    algorithm: str
    run_id: str = Field(description="The training run in the registry.")
    snapshot_version: int = Field(description="Version of the lake table that it was trained on.")
    snapshot_digest: str = Field(description="SHA-256 of the interactions that it was trained on.")
    watermark: dict[int, int] = Field(description="partition → offset of the event log that it has seen.")
    code: str = Field(description="Commit of the code that trained it.")
    trained_at: datetime

    @classmethod
    def of(cls, manifest: Manifest) -> "ModelLineage":
        """From the manifest of the bundle."""
        return cls(
            algorithm=manifest.algorithm,
            run_id=manifest.run_id,
            snapshot_version=manifest.snapshot.version,
            snapshot_digest=manifest.snapshot.digest,
            watermark=manifest.snapshot.watermark,
            code=manifest.code,
            trained_at=manifest.trained_at,
        )


class RecommendationLineage(BaseModel):
    """Why a list was what it was. All but `model` stands in the id itself: nothing is kept of a request.

    An id speaks for a list, not for each item: the place of an item in its list is known to who was shown it.
    """

    recommendation_id: str
    version: int
    tier: Literal["live", "personal", "popular", "static"]
    at: datetime = Field(description="When it was served.")
    row: Literal["list", "continue", "top_picks", "because_you_watched", "trending", "category"] = Field(
        description="Which row of a page the list was; `list`: it stood alone."
    )
    position: int = Field(description="The row's place on its page, from 1 on; 0: the list stood alone.")
    model: ModelLineage | None = Field(
        description="None before the first version, or while nothing is known of that version here: this process never "
        "served it and the online store does not answer."
    )


class ItemWords(BaseModel):
    """Which attributes of an item are for people; null: none."""

    name: str | None = Field(description="What people call it by.", examples=["title"])
    category: str | None = Field(description="What sort it is of.", examples=["genres"])


class DomainMessage(BaseModel):
    """What is recommended and which acts count, as `domain.toml` has it: what a page needs to speak of it."""

    name: str = Field(examples=["films"])
    items: ItemWords
    event_types: dict[str, EventType] = Field(
        description="`history`: it enters histories, with its `weight`; `begins`: until a later one the item stands in "
        "the row `continue`."
    )

    @classmethod
    def of(cls, domain: Domain) -> "DomainMessage":
        """From the file."""
        words = ItemWords(name=domain.items.name, category=domain.items.category)
        return cls(name=domain.name, items=words, event_types=domain.events.types)


class Readiness(BaseModel):
    """This process can answer. A silent online store does not make it unready: it answers from memory."""

    status: Literal["ready"]
    version: int
    online_store: Literal["answers", "silent"]
