"""The adapters that the commands of training work with, made from the settings, and the code's own commit."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

from infra.event_log import open_event_log
from infra.event_log.port import EventLog
from infra.lake import Lake
from infra.model_registry import ModelRegistry
from infra.online_store import OnlineStore, connect
from infra.settings import Settings
from ingest.events import ConsentProjection, Domain, read_domain
from training.engine import Engine, OneProcess
from training.interactions import Interactions
from training.publish import Publisher
from training.snapshot import read_lake

EngineName = Literal["process", "spark"]
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

    @contextmanager
    def open_log(self) -> Iterator[EventLog]:
        """The event log, while the block runs."""
        log = open_event_log(self.settings.event_log_url, self.settings.topic, self.settings.partitions)
        try:
            yield log
        finally:
            log.close()

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
    consents = ConsentProjection(store, settings.signing_secret)
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


@contextmanager
def open_engine(parts: Parts, named: EngineName | None = None) -> Iterator[tuple[Engine, Publisher]]:
    """What fits models, and what publishes them, while the block runs.

    Args:
        parts: the other adapters.
        named: which engine; None: the one of the settings.

    Raises:
        training.engine.EngineError: it cannot be had.
    """
    settings = parts.settings
    if (named or settings.engine) == "process":
        yield OneProcess(), parts.publisher
        return
    # Loading it takes what few installations have.
    from training.spark.session import open_session

    with open_session(settings.spark_master) as session:
        from training.spark.engine import SparkEngine

        engine = SparkEngine(
            session,
            parts.lake,
            weights=parts.domain.history_weights,
            length=parts.domain.history.length,
            list_length=settings.list_length,
            ttl_seconds=settings.list_ttl_seconds,
        )
        length, ttl_seconds = settings.list_length, settings.list_ttl_seconds
        yield engine, Publisher(parts.store, parts.consents, length, ttl_seconds, engine.write)


class OpenedParts:
    """The adapters, opened by whoever asks first, so that a registry that is down keeps nobody from the rest.

    Args:
        settings: name them.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._exit = ExitStack()
        self._parts: Parts | None = None

    def __call__(self) -> Parts | None:
        """The adapters; None while a registry in a file has none: it is not made by asking for it.

        Raises:
            infra.model_registry.ModelRegistryError: the registry does not answer.
        """
        with self._lock:
            if self._parts is None and _has_file(self._settings):
                self._parts = self._exit.enter_context(open_parts(self._settings))
            return self._parts

    def close(self) -> None:
        """Give back connections."""
        self._exit.close()


def _has_file(settings: Settings) -> bool:
    """Whether a registry in a file has it; one that is in none is taken to be there."""
    file = settings.registry_uri.removeprefix("sqlite:///")
    return file == settings.registry_uri or Path(file).exists()


def champion_of(settings: Settings) -> int | None:
    """The version that should be served; None before the first. A registry in a file is not made by asking for it.

    Raises:
        infra.model_registry.ModelRegistryError: the registry does not answer.
    """
    if not _has_file(settings):
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
