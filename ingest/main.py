"""Composition root of ingest: the HTTP edge, the lander, and the command that forgets a person."""

import json
import threading
import time
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

import structlog
import typer
import uvicorn

from infra.database import Ledger, LedgerUnavailable
from infra.event_log import open_event_log
from infra.event_log.port import EventLog, EventLogError
from infra.lake import Lake
from infra.online_store import OnlineStore, connect
from infra.process import stop_event
from infra.settings import Settings, load_settings
from infra.telemetry import configure_logs, new_registry, serve_metrics
from ingest.api import create_app
from ingest.collector import Collector
from ingest.consent import Consents, Passage
from ingest.erasure import ErasureKeeper
from ingest.events import ConsentProjection, ConsentUnavailable, read_domain
from ingest.lander import Lander
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
    collector = Collector(domain, ConsentProjection(parts.store, secret), parts.log, passage, registry)
    stop, whole = stop_event(), threading.Event()
    keeper = threading.Thread(target=_keep_projection, args=(consents, whole, stop))
    keeper.start()
    try:
        _serve(create_app(collector, consents, registry, whole.is_set, api_key), settings)
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


def _keep_projection(consents: Consents, whole: threading.Event, stop: threading.Event) -> None:
    """Keep the projection at the ledger's side; `whole` is set when it was seen there for the first time."""
    log = structlog.get_logger(__name__)
    while True:
        try:
            if added := consents.rebuild():
                log.debug("projection caught up", receipts=added)
            whole.set()
        except (LedgerUnavailable, ConsentUnavailable) as error:
            log.warning("projection not kept", reason=str(error))
        except LedgerBehind as error:
            log.error("collecting nothing", reason=str(error))
        if stop.wait(REBUILD_EVERY_SECONDS):
            return


def _call(method: str, url: str, api_key: str) -> dict[str, Any]:
    request = Request(url, method=method, headers={"Authorization": f"Bearer {api_key}"})  # noqa: S310
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
