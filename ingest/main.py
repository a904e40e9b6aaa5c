"""Composition root of ingest: the HTTP edge, the lander, and the command that forgets a person."""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

import orjson
import structlog
import typer

from infra.access import Access, open_access
from infra.database import Ledger, LedgerUnavailable
from infra.disk import DiskFloor
from infra.event_log import open_event_log
from infra.event_log.port import EventLog, EventLogBehind, EventLogError, EventLogUnavailable
from infra.key_file import KeysError
from infra.lake import EVENTS, Lake, LakeError, LakeUnavailable
from infra.limited_http import run_edge
from infra.online_store import OnlineStore, connect
from infra.origins import allow_origins
from infra.process import stop_event
from infra.settings import Settings, load_settings, required
from infra.telemetry import configure_logs, new_registry, serve_metrics
from ingest.account import take_account
from ingest.api import create_app
from ingest.chain import LedgerBroken
from ingest.collector import ACCEPTED, Collector
from ingest.consent import Consents
from ingest.dead_letters import DeadLetters, LetterError, LetterId, read_document
from ingest.erasure import ErasureKeeper
from ingest.events import ConsentProjection, ConsentUnavailable, read_domain
from ingest.export import Exports
from ingest.gate import Gate, Passage
from ingest.lander import Lander
from ingest.ledger_check import check
from ingest.projection import LedgerBehind
from ingest.quota import Floods, Intake, Quotas
from ingest.reconciliation import Reconciliation

REBUILD_EVERY_SECONDS = 1.0
STORE_SECONDS = 1.2
"""A stopped Redis is answered with 503 within 2 s, the wait for a turn included."""

ERASURE_SECONDS = 300.0


def serve_ingest() -> None:
    """Run the ingest API until SIGTERM or SIGINT; requests under way are answered first."""
    settings = load_settings()
    configure_logs("ingest", settings.log_format)
    access, secret = _access(settings), settings.signing_secret
    domain = read_domain(settings.domain)
    parts = _parts(settings)
    registry, passage = new_registry(), Passage()
    consents = Consents(parts.ledger, parts.store, parts.log, secret, passage)
    gate = Gate(ConsentProjection(parts.store, secret), guards=settings.event_log_url == settings.redis_url)
    collector = Collector(domain, gate, parts.log, passage, registry)
    intake = Intake(collector, Quotas(parts.store, secret), Floods(settings.item_flood_per_minute), registry)
    stop, whole = stop_event(), threading.Event()
    lake = Lake(settings.lake_uri)
    keep_log = partial(parts.log.keep, partial(lake.landed, EVENTS))
    keeper = threading.Thread(target=_keep, args=(consents, gate, keep_log, whole, stop))
    keeper.start()
    try:
        exports = Exports(lake, consents, parts.store)
        room = DiskFloor(settings.embedded_folders, settings.disk_floor_mb).check
        app = create_app(collector, intake, consents, exports, registry, ready=whole.is_set, access=access, room=room)
        run_edge(allow_origins(app, settings.origins), settings.host, settings.ingest_port)
    finally:
        stop.set()
        keeper.join()
        collector.close()
        consents.close()
        parts.close()


def land() -> None:
    """Run the lander until SIGTERM or SIGINT. It also follows the erasures to their end."""
    settings = load_settings()
    configure_logs("land", settings.log_format)
    secret = settings.signing_secret
    parts, registry = _parts(settings), new_registry()
    serve_metrics(registry, settings.host, settings.lander_metrics_port)
    keeper = ErasureKeeper(parts.ledger, parts.log)
    projection = ConsentProjection(parts.store, secret)
    lake, stop = Lake(settings.lake_uri), stop_event()
    try:
        lake.check()
    except LakeUnavailable as error:
        structlog.get_logger(__name__).warning("the lake does not answer yet", why=str(error))
    except LakeError as error:
        raise SystemExit(f"Cannot start: {error}") from None
    consents = Consents(parts.ledger, parts.store, parts.log, secret, Passage())
    reconciliation = Reconciliation(lake, parts.store, parts.log, projection, consents)
    beside = threading.Thread(target=reconciliation.keep, args=(stop,))
    beside.start()
    folder = [] if settings.lake_uri.startswith("s3://") else [Path(settings.lake_uri.removeprefix("file://"))]
    floor = DiskFloor([*folder, *settings.embedded_folders], settings.disk_floor_mb)
    Lander(parts.log, lake, projection, keeper, registry, room=floor.check).run(stop)
    beside.join()
    consents.close()
    parts.close()


def erase(user_id: str) -> int:
    """Have the ingest API forget a person, wait until every stage has signed, and print the receipt.

    Returns:
        The exit code: 0 when the erasure is complete, 1 when it is not (yet).
    """
    settings = load_settings()
    base, key = f"http://{settings.host}:{settings.ingest_port}/v1", _key(settings)
    deadline = time.monotonic() + ERASURE_SECONDS
    try:
        state = _call("DELETE", f"{base}/users/{quote(user_id, safe='')}", key)
        while state["status"] != "complete" and time.monotonic() < deadline:
            time.sleep(0.5)
            state = _call("GET", f"{base}/erasures/{state['erasure_id']}", key)
    except HTTPError as error:
        typer.echo(f"The ingest API answered {error.code}: {error.read().decode()}", err=True)
        return 1
    except OSError as error:
        typer.echo(f"The ingest API does not answer at {base}: {error}. Is `marquee up` running?", err=True)
        return 1
    typer.echo(json.dumps(state, indent=2))
    return 0 if state["status"] == "complete" else 1


def verify_ledger(kept: str | None) -> int:
    """Walk the chain of receipts and say whether each is as it was recorded.

    Args:
        kept: the end that an earlier run printed, NUMBER:HASH.

    Returns:
        The exit code: 0 when all of it is whole, 1 when it is not or cannot be told.
    """
    settings = load_settings()
    ledger, store = Ledger(settings.database_url), connect(settings.redis_url)
    try:
        typer.echo(check(ledger, store, settings.signing_secret, kept))
    except (LedgerBroken, LedgerUnavailable, ValueError) as error:
        typer.echo(f"The ledger is not whole: {error}" if isinstance(error, LedgerBroken) else str(error), err=True)
        return 1
    finally:
        ledger.close()
        store.close()
    return 0


def account() -> int:
    """Print what became of every record of the log; returns the exit code: 0 if all of them are accounted for."""
    settings = load_settings()
    try:
        log = _open_log(settings)
        found = take_account(log, Lake(settings.lake_uri))
        log.close()
    except (EventLogError, LakeError, ValueError) as error:
        typer.echo(str(error), err=True)
        return 1
    for line in found.lines():
        typer.echo(line)
    return 0 if found.unaccounted == 0 else 1


def list_dead_letters() -> int:
    """Print the dead letters, newest first; returns the exit code."""

    def show(letters: DeadLetters) -> int:
        for row in letters.listed().iter_rows(named=True):
            lost = "" if row["kept"] else "  (bytes not kept)"
            typer.echo(f"{row['partition']}:{row['offset']}  {row['at']:%Y-%m-%d %H:%M:%S}  {row['reason']}{lost}")
        return 0

    return _with_dead_letters(show)


def show_dead_letter(letter: str) -> int:
    """Print one dead letter as JSON that can be edited and replayed; returns the exit code."""

    def show(letters: DeadLetters) -> int:
        document = orjson.dumps(letters.shown(LetterId.parse(letter)), option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z)
        typer.echo(document.decode())
        return 0

    return _with_dead_letters(show)


def replay_dead_letters(files: Sequence[Path]) -> int:
    """Send letters in again, as their files were edited; returns the exit code: 0 if all of them were accepted."""

    def replay(letters: DeadLetters) -> int:
        refused = 0
        for file in files:
            verdict = letters.replay(read_document(file))
            refused += verdict != ACCEPTED
            typer.echo(f"{file}: {verdict}")
        return 1 if refused else 0

    return _with_dead_letters(replay)


def _with_dead_letters(work: Callable[[DeadLetters], int]) -> int:
    settings = load_settings()
    base, key = f"http://{settings.host}:{settings.ingest_port}/v1", settings.api_key.get_secret_value()

    def send(method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return _call(method, f"{base}{path}", key, body)
        except HTTPError as error:
            answer: dict[str, Any] = json.loads(error.read())
            if "verdicts" not in answer:
                raise LetterError(f"The ingest API answered {error.code}: {answer.get('detail')}") from None
            return answer

    try:
        return work(DeadLetters(Lake(settings.lake_uri), send))
    except OSError as error:
        typer.echo(f"The ingest API does not answer at {base}: {error}. Is `marquee up` running?", err=True)
    except (LetterError, LakeError) as error:
        typer.echo(str(error), err=True)
    return 1


class _Parts(NamedTuple):
    store: OnlineStore
    ledger: Ledger
    log: EventLog

    def close(self) -> None:
        self.log.close()
        self.ledger.close()
        self.store.close()


def _parts(settings: Settings) -> _Parts:
    settings.data.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(settings.database_url)
    try:
        ledger.create_tables()
        log = _open_log(settings)
    except (LedgerUnavailable, EventLogError, LakeError, ValueError) as error:
        raise SystemExit(f"Cannot start: {error}") from error
    return _Parts(connect(settings.redis_url, STORE_SECONDS), ledger, log)


def _open_log(settings: Settings) -> EventLog:
    """The log, which ingest makes where it does not exist: it knows what was landed."""
    fences = partial(Lake(settings.lake_uri).landed, EVENTS)
    return open_event_log(
        settings.event_log_url, settings.topic, settings.partitions, settings.log_retention_seconds, fences
    )


def _keep(
    consents: Consents, gate: Gate, keep_log: Callable[[], None], whole: threading.Event, stop: threading.Event
) -> None:
    """Keep the projection at the ledger's side, and the log above what was landed.

    Args:
        whole: set when the projection was seen at the ledger's side for the first time.
    """
    log = structlog.get_logger(__name__)
    while True:
        try:
            keep_log()
        except EventLogBehind as error:
            log.error("collecting nothing", reason=str(error))
        except (EventLogUnavailable, LakeError) as error:
            log.warning("log not kept", reason=str(error))
        try:
            gate.compare(consents.rebuild)
            whole.set()
        except (LedgerUnavailable, ConsentUnavailable) as error:
            log.warning("projection not kept", reason=str(error))
        except LedgerBehind as error:
            log.error("collecting nothing", reason=str(error))
        if stop.wait(REBUILD_EVERY_SECONDS):
            return


def _call(method: str, url: str, api_key: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    content = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
    request = Request(url, method=method, headers=headers, data=content)  # noqa: S310
    with build_opener(ProxyHandler({})).open(request, timeout=20) as answer:
        state: dict[str, Any] = json.load(answer)
    return state


def _access(settings: Settings) -> Access:
    try:
        return open_access(settings)
    except KeysError as error:
        raise SystemExit(f"Cannot start: {error}") from None


def _key(settings: Settings) -> str:
    return required(settings.api_key, "MARQUEE_API_KEY")
