"""Composition root of the whole platform in one terminal: `marquee up`."""

import asyncio
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from itertools import cycle

from rich.console import Console
from rich.markup import escape

from infra.embedded import EmbeddedError, make_secrets, redis_command
from infra.settings import Settings, load_settings
from infra.supervisor import Program, Supervisor

STAGES = {
    "ingest": ("ingest",),
    "land": ("land",),
    "nearline": ("nearline",),
    "train": ("train", "--schedule"),
    "serve": ("serve",),
}
READY_SECONDS = 60.0


def up() -> int:
    """Start the embedded stores and every process, say where they are, and stop them on Ctrl-C or SIGTERM.

    Returns:
        The exit code: 1 when something it needs is missing; the reason has been printed.
    """
    console = Console(highlight=False, soft_wrap=True)
    make_secrets(load_settings().data)
    settings = load_settings()
    try:
        stores = [] if settings.redis else [Program("redis", redis_command(settings.embedded_socket))]
        _check_ports(settings)
    except EmbeddedError as error:
        console.print(f"[red]{escape(str(error))}[/red]")
        return 1
    os.environ.setdefault("MARQUEE_DATA", str(settings.data))
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
            console.print(_greeting(ingest, serving, settings.api_key.get_secret_value()))
            return
        if asyncio.get_running_loop().time() > deadline:
            console.print(f"[red]Not ready after {READY_SECONDS:.0f} s: the lines above say why.[/red]")
            return
        await asyncio.sleep(0.2)


def _is_ready(edge: str) -> bool:
    try:
        with urllib.request.urlopen(f"{edge}/readyz", timeout=2) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _greeting(ingest: str, serving: str, key: str) -> str:
    send = f'-H "Authorization: Bearer {key}" -H "Content-Type: application/json" -d'
    consent = '{"purposes": ["personalization"]}'
    event = (
        '{"events": [{"event_id": "\'$(date +%s%N)\'", "type": "play", "user_id": "you", "item_id": "m1",'
        ' "occurred_at": "\'$(date -u +%Y-%m-%dT%H:%M:%SZ)\'"}]}'
    )
    return escape(
        f"""
Marquee is up.
  ingest   {ingest}   texts and examples: {ingest}/docs
  serving  {serving}   texts and examples: {serving}/docs
  API key  {key}

Try next, in another terminal: opt in, watch something, ask for a list.
  curl -X PUT {ingest}/v1/users/you/consent {send} '{consent}'
  curl -X POST {ingest}/v1/events {send} '{event}'
  curl "{serving}/v1/users/you/recommendations?k=5" -H "Authorization: Bearer {key}"

Fill it:  .venv/bin/marquee load movielens DIR   or   .venv/bin/marquee audience,   then   .venv/bin/marquee train
Ctrl-C stops everything.
"""
    )


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
