"""Composition root of the whole platform in one terminal, `marquee up`, and of the commands for its keys."""

import asyncio
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import cycle

import typer
from rich.console import Console
from rich.markup import escape

from infra.embedded import EmbeddedError, make_login_key, make_secrets, redis_command
from infra.key_file import PREFIX, KeyFile, KeyScope, KeysError, Quota
from infra.origins import LOOPBACK, origin_of
from infra.settings import Settings, load_settings
from infra.supervisor import Program, Supervisor

STAGES = {
    "ingest": ("ingest",),
    "land": ("land",),
    "nearline": ("nearline",),
    "train": ("train", "--schedule"),
    "operate": ("operate",),
    "serve": ("serve",),
}
READY_SECONDS = 60.0


def up() -> int:
    """Start the embedded stores and every process, say where they are, and stop them on Ctrl-C or SIGTERM.

    Returns:
        The exit code: 1 when something it needs is missing; the reason has been printed.
    """
    console = Console(highlight=False, soft_wrap=True)
    settings = load_settings()
    try:
        make_secrets(settings.data, KeyFile(settings.keys_file))
        settings = load_settings()
        stores = [] if settings.redis else [Program("redis", redis_command(settings.embedded_socket))]
        _check_ports(settings)
    except (EmbeddedError, KeysError) as error:
        console.print(f"[red]{escape(str(error))}[/red]")
        return 1
    os.environ.setdefault("MARQUEE_DATA", str(settings.data))
    if not settings.allowed_origins:
        os.environ["MARQUEE_ALLOWED_ORIGINS"] = ",".join(_own_pages(settings))
    if _may_sign_in(settings):
        os.environ["MARQUEE_DEMO_LOGIN"] = "true"
        os.environ["MARQUEE_JWT_KEY_FILE"] = str(make_login_key(settings.login_key_file))
    os.environ.setdefault("MARQUEE_LOG_FORMAT", "console" if console.is_terminal else "json")
    programs = [Program(name, [sys.executable, "-m", "marquee", *words]) for name, words in STAGES.items()]
    asyncio.run(_run(settings, stores, programs, console))
    console.print("Everything is stopped.")
    return 0


async def _run(settings: Settings, stores: Sequence[Program], programs: Sequence[Program], console: Console) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    colours = dict(zip([p.name for p in [*stores, *programs]], cycle(["cyan", "green", "magenta", "yellow", "blue"])))
    width = max(map(len, colours))

    def write(name: str, line: str) -> None:
        console.print(f"[{colours[name]}]{name:>{width}}[/] │ {escape(line)}")

    greeting = asyncio.create_task(_greet(settings, console, stop))
    await Supervisor(stores, programs, write).run(stop)
    await greeting


async def _greet(settings: Settings, console: Console, stop: asyncio.Event) -> None:
    """Once both edges are ready, say where they are and what to try."""
    ingest = f"http://{settings.host}:{settings.ingest_port}"
    serving = f"http://{settings.host}:{settings.serving_port}"
    deadline = asyncio.get_running_loop().time() + READY_SECONDS
    while not stop.is_set():
        if await asyncio.to_thread(_is_ready, ingest) and await asyncio.to_thread(_is_ready, serving):
            operator = f"http://{settings.host}:{settings.operator_port}"
            console.print(_greeting(ingest, serving, operator, settings.api_key.get_secret_value()))
            return
        if asyncio.get_running_loop().time() > deadline:
            console.print(f"[red]Not ready after {READY_SECONDS:.0f} s: the lines above say why.[/red]")
            return
        await asyncio.sleep(0.2)


def _may_sign_in(settings: Settings) -> bool:
    """Whether the login for demonstrations is wanted: on this machine alone, and where no other login is configured."""
    refused = "demo_login" in settings.model_fields_set and not settings.demo_login
    return settings.host in LOOPBACK and not settings.jwt_key_file and not refused


def _own_pages(settings: Settings) -> list[str]:
    """The origins under which a browser on this machine finds the pages of serving."""
    return [origin_of(host, settings.serving_port) for host in dict.fromkeys([settings.host, "127.0.0.1", "localhost"])]


def _is_ready(edge: str) -> bool:
    try:
        with urllib.request.urlopen(f"{edge}/readyz", timeout=2) as answer:  # noqa: S310  # nosec B310 - our own address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _greeting(ingest: str, serving: str, operator: str, key: str) -> str:
    send = f'-H "Authorization: Bearer {key}" -H "Content-Type: application/json" -d'
    consent = '{"purposes": ["personalization"]}'
    event = (
        '{"events": [{"event_id": "\'$(date +%s%N)\'", "type": "play", "user_id": "you", "item_id": "m1",'
        ' "occurred_at": "\'$(date -u +%Y-%m-%dT%H:%M:%SZ)\'"}]}'
    )
    return escape(
        f"""
Marquee is up.
  storefront  {serving}/
  console     {serving}/console   the API key opens it
  ingest      {ingest}   texts and examples: {ingest}/docs
  serving     {serving}   texts and examples: {serving}/docs
  operate     {operator}   texts and examples: {operator}/docs
  API key     {key}

Try next, in another terminal: opt in, watch something, ask for a list.
  curl -X PUT {ingest}/v1/users/you/consent {send} '{consent}'
  curl -X POST {ingest}/v1/events {send} '{event}'
  curl "{serving}/v1/users/you/recommendations?k=5" -H "Authorization: Bearer {key}"

Fill it:  .venv/bin/marquee load movielens DIR   or   .venv/bin/marquee audience,   then   .venv/bin/marquee train
Ctrl-C stops everything.
"""
    )


# --- keys ------------------------------------------------------------------------------------------------------------


def create_key(
    name: str, scopes: Sequence[str], rate: float | None, burst: float | None, expires: datetime | None
) -> int:
    """Make a key and print it, once; returns the exit code.

    Args:
        rate: events a second that it may send; None: any number.
        burst: events that it may send at once; None: ten seconds' worth.
        expires: when it ends, in UTC; None: never.
    """
    ends = None if expires is None else expires.replace(tzinfo=UTC)
    quota = None if rate is None else Quota.of(rate, burst)
    return _with_keys(lambda keys: typer.echo(keys.create(name, [KeyScope(scope) for scope in scopes], quota, ends)))


def list_keys() -> int:
    """Print all keys, oldest first, without what they are; returns the exit code."""

    def show(keys: KeyFile) -> None:
        now = datetime.now(UTC)
        for key in keys.read():
            quota = f"{key.quota.rate:g}/s, {key.quota.burst:g} at once" if key.quota else "no quota"
            ends = f"until {key.expires_at:%Y-%m-%d %H:%M}" if key.expires_at else ""
            words = [key.id, key.state(now), f"{key.created_at:%Y-%m-%d}", " ".join(key.scopes), quota, ends, key.name]
            typer.echo("  ".join(filter(None, words)))

    return _with_keys(show)


def revoke_key(key_id: str) -> int:
    """End a key within a second or two, everywhere; returns the exit code."""
    return _with_keys(lambda keys: keys.revoke(key_id))


def rotate_key(key_id: str, grace: float) -> int:
    """Give a key a new secret and print it; the old one works for `grace` seconds more. Returns the exit code."""

    def rotate(keys: KeyFile) -> None:
        typer.echo(keys.rotate(key_id, timedelta(seconds=grace)))
        if load_settings().api_key.get_secret_value().startswith(f"{PREFIX}{key_id}_"):
            typer.echo("MARQUEE_API_KEY holds this key as it was: exchange it, too.", err=True)

    return _with_keys(rotate)


def _with_keys(work: Callable[[KeyFile], object]) -> int:
    try:
        work(KeyFile(load_settings().keys_file))
    except KeysError as error:
        typer.echo(error, err=True)
        return 1
    return 0


def _check_ports(settings: Settings) -> None:
    ports = {name: value for name, value in settings.model_dump().items() if name.endswith("_port")}
    for name, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
            except OSError:
                raise EmbeddedError(
                    f"Port {port} is taken: is a platform up already? Set MARQUEE_{name.upper()} to a free one."
                ) from None
