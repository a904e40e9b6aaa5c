"""Composition root of training: retraining, the schedule, tuning, and which version is served."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import structlog
from rich.text import Text

from infra.event_log import open_event_log
from infra.event_log.port import EventLogError
from infra.lake import Lake, LakeError
from infra.model_registry import ModelRegistryError
from infra.online_store import OnlineStoreError, connect
from infra.process import stop_event
from infra.settings import load_settings
from infra.telemetry import configure_logs, new_registry, serve_metrics
from ingest.events import ConsentUnavailable
from training.algorithms.base import CatalogueTooLarge
from training.bundle import BundleError, load
from training.engine import EngineError
from training.holdout_evaluation import evaluate_hold_out
from training.holdout_files import HoldOutFiles, check_writable, read_hold_out
from training.interaction_files import BadFile
from training.job import Job, TrainingError
from training.list_diff import diff_lists
from training.lock import AlreadyTraining, one_at_a_time
from training.metrics import TrainingMetrics
from training.model_card import CARD
from training.parts import EngineName, OpenedParts, Parts, champion_of, code_commit, open_engine, open_parts
from training.progress import shown
from training.publish import PublishError, current
from training.purging import purge_and_sign
from training.report import report_on
from training.restoration import Restoration, start_rollback
from training.rollback import ByHand, NothingToRollBackTo, NotLetIn, roll_back, who_types
from training.rollback import promote as promote_version
from training.schedule import Due, Schedule
from training.search import HoldOut
from training.search import tune as search_and_record
from training.snapshot import read_lake
from training.split import NothingHeldOut
from training.status import Status, read_status
from training.tables import (
    diff_tables,
    model_tables,
    models_table,
    show,
    show_outcome,
    status_table,
    trials_table,
)

OK, FAILED, REFUSED = 0, 1, 3

FAILURES = (
    TrainingError,
    EngineError,
    AlreadyTraining,
    NothingToRollBackTo,
    NotLetIn,
    NothingHeldOut,
    PublishError,
    BundleError,
    ConsentUnavailable,
    LakeError,
    ModelRegistryError,
    EventLogError,
    *OnlineStoreError,
)


def train_once(accept_data: str | None = None, engine: EngineName | None = None) -> int:
    """Retrain once and print what came of it.

    Args:
        accept_data: why to go on where a check on the data fails; None: do not go on.
        engine: where models are fitted and lists are made; None: as the settings say.

    Returns:
        0 when a version was published, 1 when it failed, 3 when the gate refused the challenger or a check the data.
    """

    def work(parts: Parts) -> int:
        purge_and_sign(parts.registry, parts.store, parts.consents, parts.open_log)  # What a killed run left undone.
        with open_engine(parts, engine) as (fits, publisher), shown(parts.store) as run:
            job = Job(
                lake=parts.lake,
                consents=parts.consents,
                registry=parts.registry,
                publisher=publisher,
                domain=parts.domain,
                code=code_commit(),
                tune_seconds=parts.settings.tune_seconds,
                gap=parts.gap,
                engine=fits,
            )
            outcome = run.outcome = job.run(accept_data, run.phases)
        show_outcome(outcome)
        purge_and_sign(parts.registry, parts.store, parts.consents, parts.open_log)
        return OK if outcome.result == "published" else REFUSED

    return _command("train", "nothing was published", work, alone=True)


def train_on_schedule() -> None:
    """Retrain when it is due, and forget the lists of those who withdraw, until SIGTERM or SIGINT."""
    settings = load_settings()
    configure_logs("trainer", settings.log_format)
    stop, metrics = stop_event(), new_registry()
    serve_metrics(metrics, settings.host, settings.trainer_metrics_port)
    log = open_event_log(settings.event_log_url, settings.topic, settings.partitions, fences=None)
    store = connect(settings.redis_url)
    try:
        Schedule(
            log=log,
            store=store,
            due=Due(settings.train_every_seconds, settings.train_after_events, settings.list_ttl_seconds / 2),
            start=_start_training,
            restoration=Restoration(store, lambda: champion_of(settings), start_rollback),
            metrics=TrainingMetrics(metrics),
        ).run(stop)
    finally:
        log.close()


def operate() -> None:
    """Run the operator's API until SIGTERM or SIGINT; requests under way are answered first."""
    # The commands and the schedule do without what an HTTP edge needs: loading that takes longer than some of them.
    from infra.access import open_access
    from infra.key_file import KeysError
    from infra.limited_http import run_edge
    from infra.origins import allow_origins
    from training.api import create_app
    from training.operations import Watch
    from training.person_lists import Bundles
    from training.services import Services

    settings = load_settings()
    configure_logs("operate", settings.log_format)
    try:
        access = open_access(settings)
    except KeysError as error:
        raise SystemExit(f"Cannot start: {error}") from None
    _ = settings.signing_secret  # The commands' adapters need it: who lacks it is told now.
    parts, store = OpenedParts(settings), connect(settings.redis_url)
    watch = Watch(settings.processes, store, Lake(settings.lake_uri))
    app = create_app(Services(parts, store, watch, Bundles(), new_registry()), access)
    try:
        run_edge(allow_origins(app, settings.origins), settings.host, settings.operator_port)
    finally:
        watch.close()
        store.close()
        parts.close()


def tune(budget: float | None, hold_out: HoldOut) -> int:
    """Search for recipes that the next retraining tries first, and print the best trials.

    Args:
        budget: seconds to look; None: as long as a retraining does.
        hold_out: to choose on.

    Returns:
        0, or 1 when it failed.
    """

    def work(parts: Parts) -> int:
        found = search_and_record(
            parts.registry,
            read_lake(parts.lake, parts.consents, parts.domain),
            hold_out,
            {"code": code_commit()},
            seconds=parts.settings.tune_seconds if budget is None else budget,
            storage=parts.trials,
            gap=parts.gap,
        )
        show(trials_table(found.best, len(found.trials)), "The next retraining tries the best of them first.")
        return OK

    return _command("tune", "nothing was tuned", work)


def evaluate(files: HoldOutFiles, budget_seconds: float, ks: Sequence[int], out: Path | None, refit: bool) -> int:
    """Choose a model on valid, judge it on test, and print the report: see `marquee evaluate --help`.

    Returns:
        0, or 1 when the files cannot be used.
    """
    configure_logs("evaluate", load_settings().log_format)
    try:
        check_writable(out)
        report = evaluate_hold_out(read_hold_out(files), budget_seconds=budget_seconds, ks=ks, refit=refit)
    except (BadFile, CatalogueTooLarge) as error:
        structlog.get_logger(__name__).error("nothing was evaluated", why=str(error))
        return FAILED
    if out is not None:  # Before anything is printed: who pipes the report into `head` wants the lists too.
        report.recommendations.write_parquet(out)
    show(*report_on(report, ks))
    return OK


def rollback(version: int | None) -> int:
    """Serve another version: this one, or the one before where None.

    Returns:
        0 when it is served now, 1 when it failed.
    """

    def work(parts: Parts) -> int:
        served = roll_back(parts.store, parts.registry, parts.publisher, parts.histories, version)
        show(f"version {served} is served now")
        return OK

    return _command("rollback", "the version was not changed", work, alone=True)


def promote(version: int, force: bool, reason: str) -> int:
    """Serve a version, and record who said so and why.

    Args:
        version: the one to serve.
        force: also where the gate refused it.
        reason: why.

    Returns:
        0 when it is served now, 1 when it failed.
    """

    def work(parts: Parts) -> int:
        by_hand = ByHand(who_types(), reason, force)
        promote_version(parts.registry, parts.publisher, parts.histories, version, by_hand)
        show(f"version {version} is served now")
        return OK

    return _command("promote", "the version was not changed", work, alone=True)


def print_models(version: int | None, card: bool = False) -> int:
    """Print the versions, or everything about one.

    Args:
        version: the one; None: all.
        card: print its model card instead, as it is.

    Returns:
        0, or 1 when there is no such version or the registry does not answer.
    """

    def work(parts: Parts) -> int:
        served = current(parts.store)
        if version is None:
            show(models_table(parts.registry.versions(), served))
        else:
            found = parts.registry.version(version)
            if card:
                sys.stdout.write(parts.registry.file(version, CARD).decode())
                return OK
            run = parts.registry.runs.with_ids([found.run_id])[found.run_id]
            show(*model_tables(found, run, served))
        return OK

    return _command("models", "the models are not known", work)


def print_diff(before: int, after: int, people: int) -> int:
    """Print what two versions would show the same people. Nobody is named.

    Args:
        before: a version.
        after: another one.
        people: compared at most.

    Returns:
        0, or 1 when it failed.
    """

    def work(parts: Parts) -> int:
        old, new = (load(parts.registry.bundle(version)) for version in (before, after))
        found = diff_lists(old, new, parts.histories(), people)
        show(*diff_tables((before, after), found, parts.item_name))
        return OK

    return _command("diff", "the versions were not compared", work)


def status() -> Status:
    """Where training stands.

    Raises:
        Exception: a store does not answer.
    """
    with open_parts(load_settings()) as parts:
        return read_status(parts)


def print_status() -> int:
    """Print where training stands.

    Returns:
        0, or 1 when a store does not answer.
    """

    def work(parts: Parts) -> int:
        found = read_status(parts)
        show(status_table(found.versions, found.served))
        if found.versions:
            newest = found.versions[0]
            show(Text(f"gate on version {newest.version}: {newest.tags.get('reasons', '')}"))
        show(f"events in the lake: {found.landed}, written twice: {found.lake_duplicates}")
        return OK

    return _command("status", "the status is not known", work)


def _command(name: str, otherwise: str, work: Callable[[Parts], int], *, alone: bool = False) -> int:
    """Do a command's work and return its exit code.

    Args:
        name: of the command, for the logs.
        otherwise: what it means when it fails.
        work: with the adapters that the settings name.
        alone: while nobody else trains or changes what is served.
    """
    settings = load_settings()
    configure_logs(name, settings.log_format)
    try:
        with ExitStack() as stack:
            if alone:
                stack.enter_context(one_at_a_time(connect(settings.redis_url)))
            return work(stack.enter_context(open_parts(settings)))
    except FAILURES as error:
        structlog.get_logger(__name__).error(otherwise, why=str(error), error=type(error).__name__)
        return FAILED


def _start_training() -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-m", "marquee", "train"], stdout=subprocess.PIPE, text=True)
