"""Composition root of ingest: the HTTP edge, the lander, and the command that forgets a person."""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

import orjson
import structlog
import typer
import uvicorn

from infra.database import Ledger, LedgerUnavailable
from infra.event_log import open_event_log
from infra.event_log.port import EventLog, EventLogError
from infra.lake import Lake, LakeError
from infra.online_store import OnlineStore, connect
from infra.process import stop_event
from infra.settings import Settings, load_settings
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

REBUILD_EVERY_SECONDS = 1.0
GRACE_SECONDS = 5
ERASURE_SECONDS = 300.0


def serve_ingest() -> None:
    """Run the ingest API until SIGTERM or SIGINT; requests under way are answered first."""
    settings = load_settings()
    configure_logs("ingest", settings.log_format)
    api_key, secret = _key(settings), _secret(settings)
    domain = read_domain(settings.domain)
    parts = _parts(settings)
    registry, passage = new_registry(), Passage()
    consents = Consents(parts.ledger, parts.store, parts.log, secret, passage)
    gate = Gate(ConsentProjection(parts.store, secret), guards=settings.event_log_url == settings.redis_url)
    collector = Collector(domain, gate, parts.log, passage, registry)
    stop, whole = stop_event(), threading.Event()
    keeper = threading.Thread(target=_keep_projection, args=(consents, gate, whole, stop))
    keeper.start()
    try:
        exports = Exports(Lake(settings.lake_uri), consents, parts.store)
        _serve(create_app(collector, consents, exports, registry, ready=whole.is_set, api_key=api_key), settings)
    finally:
        stop.set()
        keeper.join()
        consents.close()
        parts.close()


def land() -> None:
    """Run the lander until SIGTERM or SIGINT. It also follows the erasures to their end."""
    settings = load_settings()
    configure_logs("land", settings.log_format)
    secret = _secret(settings)
    parts, registry = _parts(settings), new_registry()
    serve_metrics(registry, settings.host, settings.lander_metrics_port)
    keeper = ErasureKeeper(parts.ledger, parts.log)
    projection = ConsentProjection(parts.store, secret)
    Lander(parts.log, Lake(settings.lake_uri), projection, keeper, registry).run(stop_event())
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
        typer.echo(check(ledger, store, _secret(settings), kept))
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
        log = open_event_log(settings.event_log_url, settings.topic, settings.partitions)
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
        log = open_event_log(settings.event_log_url, settings.topic, settings.partitions)
    except (LedgerUnavailable, EventLogError, ValueError) as error:
        raise SystemExit(f"Cannot start: {error}") from error
    return _Parts(connect(settings.redis_url), ledger, log)


def _serve(app: Any, settings: Settings) -> None:
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.ingest_port,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,  # Paths name people.
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def _keep_projection(consents: Consents, gate: Gate, whole: threading.Event, stop: threading.Event) -> None:
    """Keep the projection at the ledger's side; `whole` is set when it was seen there for the first time."""
    log = structlog.get_logger(__name__)
    while True:
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


def _key(settings: Settings) -> str:
    return _required(settings.api_key.get_secret_value(), "MARQUEE_API_KEY")


def _secret(settings: Settings) -> str:
    return _required(settings.secret.get_secret_value(), "MARQUEE_SECRET")


def _required(value: str, name: str) -> str:
    if not value:
        raise SystemExit(f"{name} is not set. `marquee up` makes one in the data folder; elsewhere, set it yourself.")
    return value
