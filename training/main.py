"""Composition root of training: one retraining, the schedule, rollback, status."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from infra.event_log import open_event_log
from infra.event_log.port import EventLogError
from infra.lake import EVENTS, Lake, LakeEmpty, LakeError
from infra.model_registry import ModelRegistry, ModelRegistryError, ModelVersion
from infra.online_store import OnlineStore, OnlineStoreError, connect
from infra.process import stop_event
from infra.settings import Settings, load_settings
from infra.telemetry import configure_logs, new_registry, serve_metrics
from ingest.events import ConsentProjection, ConsentUnavailable, Domain, read_domain
from training.bundle import BundleError
from training.interactions import Column, Interactions
from training.job import Job, Outcome, TrainingError
from training.lock import AlreadyTraining, one_at_a_time
from training.metrics import TrainingMetrics
from training.publish import Publisher, PublishError, current, kept
from training.rollback import NothingToRollBackTo, roll_back
from training.schedule import Due, Schedule
from training.snapshot import read_lake

OK, FAILED, REFUSED = 0, 1, 3
COLUMNS = ("version", "registered", "algorithm", "nDCG@10", "recall@20", "stale", "popular", "gate", "")
FIGURES = ("ndcg_at_10", "recall_at_20", "stale_ndcg_at_10", "popularity_ndcg_at_10")
PATIENT_SECONDS = 30.0
"""Time-out of the online store: bundles are large."""

FAILURES = (
    TrainingError,
    AlreadyTraining,
    NothingToRollBackTo,
    PublishError,
    BundleError,
    ConsentUnavailable,
    LakeError,
    ModelRegistryError,
    EventLogError,
    OnlineStoreError,
)


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


@dataclass(frozen=True)
class Parts:
    """The adapters that a run works with."""

    domain: Domain
    store: OnlineStore
    lake: Lake
    consents: ConsentProjection
    registry: ModelRegistry
    publisher: Publisher


def train_once() -> int:
    """Retrain once and print what came of it.

    Returns:
        0 when a version was published, 1 when it failed, 3 when the gate refused the challenger.
    """
    settings = load_settings()
    configure_logs("train", settings.log_format)
    try:
        with one_at_a_time(connect(settings.redis_url)), _parts(settings) as parts:
            outcome = Job(
                lake=parts.lake,
                consents=parts.consents,
                registry=parts.registry,
                publisher=parts.publisher,
                domain=parts.domain,
                code=code_commit(),
            ).run()
    except FAILURES as error:
        return _failed("nothing was published", error)
    _print_outcome(outcome)
    return OK if outcome.result == "published" else REFUSED


def train_on_schedule() -> None:
    """Retrain when it is due, and forget the lists of those who withdraw, until SIGTERM or SIGINT."""
    settings = load_settings()
    configure_logs("trainer", settings.log_format)
    stop = stop_event()
    metrics = new_registry()
    serve_metrics(metrics, settings.host, settings.trainer_metrics_port)
    log = open_event_log(settings.event_log_url, settings.topic, settings.partitions)
    try:
        Schedule(
            log=log,
            store=connect(settings.redis_url),
            due=Due(settings.train_every_seconds, settings.train_after_events, settings.list_ttl_seconds / 2),
            start=_start_training,
            metrics=TrainingMetrics(metrics),
        ).run(stop)
    finally:
        log.close()


def rollback(version: int | None) -> int:
    """Serve another version: this one, or the one before where None.

    Returns:
        0 when it is served now, 1 when it failed.
    """
    settings = load_settings()
    configure_logs("rollback", settings.log_format)
    try:
        with one_at_a_time(connect(settings.redis_url)), _parts(settings) as parts:

            def histories() -> Interactions:
                return read_lake(parts.lake, parts.consents, parts.domain).histories()

            served = roll_back(parts.store, parts.registry, parts.publisher, histories, version)
    except FAILURES as error:
        return _failed("the version was not changed", error)
    Console(highlight=False).print(f"version {served} is served now")
    return OK


def status() -> Status:
    """Where training stands.

    Raises:
        Exception: a store does not answer.
    """
    settings = load_settings()
    with _parts(settings) as parts:
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


def print_status() -> int:
    """Print where training stands.

    Returns:
        0, or 1 when a store does not answer.
    """
    configure_logs("status", load_settings().log_format)
    try:
        found = status()
    except FAILURES as error:
        return _failed("the status is not known", error)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(_table(found))
    if found.versions:
        console.print(f"gate on version {found.versions[0].version}: {found.versions[0].tags.get('reasons', '')}")
    console.print(f"events in the lake: {found.landed}, written twice: {found.lake_duplicates}")
    return OK


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


@contextmanager
def _parts(settings: Settings) -> Iterator[Parts]:
    domain = read_domain(settings.domain)
    store = connect(settings.redis_url, PATIENT_SECONDS)
    consents = ConsentProjection(store, settings.secret.get_secret_value())
    try:
        yield Parts(
            domain=domain,
            store=store,
            lake=Lake(settings.lake_uri),
            consents=consents,
            registry=ModelRegistry(settings.registry_uri, settings.artifacts, domain.name),
            publisher=Publisher(store, consents, settings.list_length, settings.list_ttl_seconds),
        )
    finally:
        store.close()


def _start_training() -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-m", "marquee", "train"], stdout=subprocess.PIPE, text=True)


def _failed(consequence: str, error: Exception) -> int:
    structlog.get_logger(__name__).error(consequence, why=str(error), error=type(error).__name__)
    return FAILED


def _print_outcome(outcome: Outcome) -> None:
    """For people on a terminal, else as one line of JSON: the schedule reads it."""
    if not sys.stdout.isatty():
        sys.stdout.write(outcome.model_dump_json() + "\n")
        return
    console = Console(highlight=False)
    console.print(f"version {outcome.version} ({outcome.algorithm}): {outcome.result}")
    for reason in outcome.reasons:
        console.print(f"  {reason}")
    console.print(f"lists published: {outcome.users_published}")


def _table(found: Status) -> Table:
    table = Table(*COLUMNS, box=None, caption="stale and popular: nDCG@10 with old histories, and of the popular list")
    for one in found.versions:
        table.add_row(
            str(one.version),
            f"{one.registered_at:%Y-%m-%d %H:%M}",
            one.tags.get("algorithm", ""),
            *(f"{one.metrics.get(name, 0):.4f}" for name in FIGURES),
            one.tags.get("verdict", ""),
            ", ".join(
                word for word, holds in (("served", one.version == found.served), ("champion", one.champion)) if holds
            ),
        )
    return table
