"""What the serving API takes and gives, as its documentation shows it."""

from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from ingest.events import Id
from serving.catalogue import LONGEST
from training.bundle import Manifest

LONGEST_SESSION = 1000
_ITEM = {"item_id": "m1", "title": "Toy Story", "genres": ["Animation", "Comedy"], "year": 1995}


class RecommendedItem(BaseModel):
    """An item with the attributes that `PUT /v1/items` gave it."""

    model_config = ConfigDict(extra="allow")

    item_id: str


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


class SessionAct(BaseModel):
    """One act of a session that is not stored."""

    model_config = ConfigDict(extra="forbid")

    item_id: Id = Field(examples=["m1"])
    occurred_at: AwareDatetime | None = Field(None, description="When; left out: now.")
    type: Id | None = Field(None, description="Type of event, as `domain.toml` names it; left out: weight 1.")


class Session(BaseModel):
    """A history that comes with the request. Nothing of it is stored or logged."""

    model_config = ConfigDict(extra="forbid")

    history: list[SessionAct] = Field(max_length=LONGEST_SESSION)
    k: int = Field(20, ge=1, le=LONGEST, description="Length of the list.")


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
    """Why a list was what it was."""

    recommendation_id: str
    version: int
    tier: Literal["live", "personal", "popular", "static"]
    at: datetime = Field(description="When it was served.")
    model: ModelLineage | None = Field(description="None when this process has not served that version.")


class Readiness(BaseModel):
    """This process can answer. A silent online store does not make it unready: it answers from memory."""

    status: Literal["ready"]
    version: int
    online_store: Literal["answers", "silent"]
