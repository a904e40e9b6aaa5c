"""The version that is served, as a retraining sees it."""

from typing import NamedTuple

import structlog

from infra.model_registry import ModelRegistry
from training.bundle import Bundle, BundleError, load
from training.data_checks import Known
from training.recipe import Recipe
from training.run_record import RECEIPTS


class Champion(NamedTuple):
    """The version that is served.

    Attributes:
        receipts: in the ledger when its data was read; None where that was not noted.
    """

    version: int
    bundle: Bundle
    receipts: int | None

    @property
    def recipe(self) -> Recipe:
        """How it was made."""
        manifest = self.bundle.manifest
        return Recipe(manifest.algorithm, manifest.parameters, manifest.recency)

    def known(self, receipts: int) -> Known:
        """What it knew, where there are so many receipts now."""
        since = None if self.receipts is None else max(0, receipts - self.receipts)
        return Known(self.bundle.manifest.snapshot, since)


def read_champion(registry: ModelRegistry) -> Champion | None:
    """The champion; None where there is none, or none that this code can read."""
    version = registry.champion()
    if version is None:
        return None
    try:
        bundle = load(registry.bundle(version))
    except BundleError as error:
        log = structlog.get_logger(__name__)
        log.warning("this code cannot read the champion's bundle", version=version, why=str(error))
        return None
    noted = registry.version(version).tags.get(RECEIPTS)
    return Champion(version, bundle, None if noted is None else int(noted))
