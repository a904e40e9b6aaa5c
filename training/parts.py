"""The adapters that the commands of training work with, made from the settings, and the code's own commit."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from infra.lake import Lake
from infra.model_registry import ModelRegistry
from infra.online_store import OnlineStore, connect
from infra.settings import Settings
from ingest.events import ConsentProjection, Domain, read_domain
from training.interactions import Interactions
from training.publish import Publisher
from training.snapshot import read_lake

PATIENT_SECONDS = 30.0
"""Time-out of the online store: bundles are large."""


@dataclass(frozen=True)
class Parts:
    """The adapters of one command."""

    settings: Settings
    domain: Domain
    store: OnlineStore
    lake: Lake
    consents: ConsentProjection
    registry: ModelRegistry
    publisher: Publisher

    def histories(self) -> Interactions:
        """Today's, of everybody who allows it."""
        return read_lake(self.lake, self.consents, self.domain).histories()

    @property
    def trials(self) -> Path:
        """The file in which `marquee tune` goes on where it ended."""
        return self.settings.data.absolute() / "trials.db"

    @property
    def gap(self) -> timedelta:
        """How long before the hold-out begins training ends."""
        return timedelta(seconds=self.settings.hold_out_gap_seconds)

    @property
    def item_name(self) -> str | None:
        """The attribute that people know items by: the first of the domain's that is a text."""
        return next((name for name, kind in self.domain.items.attributes.items() if kind == "string"), None)


@contextmanager
def open_parts(settings: Settings) -> Iterator[Parts]:
    """The adapters that the settings name, while the block runs."""
    domain = read_domain(settings.domain)
    store = connect(settings.redis_url, PATIENT_SECONDS)
    consents = ConsentProjection(store, settings.secret.get_secret_value())
    try:
        yield Parts(
            settings=settings,
            domain=domain,
            store=store,
            lake=Lake(settings.lake_uri),
            consents=consents,
            registry=ModelRegistry(settings.registry_uri, settings.artifacts, domain.name),
            publisher=Publisher(store, consents, settings.list_length, settings.list_ttl_seconds),
        )
    finally:
        store.close()


def champion_of(settings: Settings) -> int | None:
    """The version that should be served; None before the first. A registry in a file is not made by asking for it.

    Raises:
        infra.model_registry.ModelRegistryError: the registry does not answer.
    """
    file = settings.registry_uri.removeprefix("sqlite:///")
    if file != settings.registry_uri and not Path(file).exists():
        return None
    return ModelRegistry(settings.registry_uri, settings.artifacts, read_domain(settings.domain).name).champion()


def code_commit() -> str:
    """The commit of this code, with `-dirty` where files differ from it; 'unknown' outside a repository.

    An image without a repository names it in GIT_COMMIT.
    """
    if named := os.environ.get("GIT_COMMIT"):
        return named
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() or "unknown"
