"""Where training stands: what is served, what there is, what has landed."""

from pydantic import BaseModel

from infra.lake import EVENTS, LakeEmpty
from infra.model_registry import ModelVersion
from training.interactions import Column
from training.parts import Parts
from training.publish import current, kept


class Status(BaseModel):
    """Where training stands.

    Attributes:
        served: version that the online store serves; None before the first.
        kept: versions whose keys may be in the online store.
        versions: of the registry, newest first.
        landed: rows of the lake's table of events.
        lake_duplicates: rows whose (partition, offset) another row has too; must be 0.
    """

    served: int | None
    kept: list[int]
    versions: list[ModelVersion]
    landed: int
    lake_duplicates: int


def read_status(parts: Parts) -> Status:
    """Ask the stores.

    Raises:
        Exception: a store does not answer.
    """
    try:
        rows = parts.lake.snapshot(EVENTS, (Column.PARTITION, Column.OFFSET)).rows
        landed, duplicates = rows.height, rows.height - rows.n_unique()
    except LakeEmpty:
        landed = duplicates = 0
    return Status(
        served=current(parts.store),
        kept=sorted(kept(parts.store)),
        versions=parts.registry.versions(),
        landed=landed,
        lake_duplicates=duplicates,
    )
