"""Composition root of the workshop: the demo, and the commands that send traffic to a running platform."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infra.embedded import make_secrets
from infra.lake import Lake
from infra.online_store import connect
from infra.settings import SECRETS_FILE, Settings, load_settings
from ingest.events import MAX_BATCH, read_domain
from workshop.audience import Tally, Visits, bars, browse, send
from workshop.client import Client, PlatformError
from workshop.datasets import Dataset, DatasetError, Export, read_export, read_movielens
from workshop.demo import Demo, DemoError, Summary, bars_on
from workshop.invented import generate

DEMO_VIEWERS = 2500
DEMO_ITEMS = 1200
DEMO_ACTS = 200_000
READY_SECONDS = 60.0
NEVER = str(10**9)
TUNE_SECONDS = "5"
PORTS = ("SERVING", "INGEST", "LANDER_METRICS", "NEARLINE_METRICS", "TRAINER_METRICS")


def demo(data: Path | None, folder: Path) -> int:
    """Run the loop on a platform of its own; returns the exit code."""
    console = Console(highlight=False)
    started = time.monotonic()
    try:
        dataset = (
            read_movielens(data, max_users=DEMO_VIEWERS) if data else generate(DEMO_VIEWERS, DEMO_ITEMS, DEMO_ACTS)
        )
        settings = _fresh_platform(folder)
        with _running(settings, folder / "platform.log"):
            summary = asyncio.run(_run(settings, dataset, console))
    except DatasetError as error:
        console.print(f"[red]{escape(str(error))}[/red]")
        return 1
    except (DemoError, PlatformError) as error:
        console.print(f"\n[red]The demo did not hold: {escape(str(error))}[/red]\nLogs: {folder / 'platform.log'}")
        return 1
    summary.seconds_total = round(time.monotonic() - started, 1)
    summary.write(folder / "summary.json")
    console.print(_table(summary), f"The same figures are in {folder / 'summary.json'}.")
    return 0


def load_movielens(folder: Path, opt_in: float, max_users: int | None) -> int:
    """Send a MovieLens folder to the running platform; returns the exit code."""
    console = Console(highlight=False)
    try:
        dataset = read_movielens(folder, max_users)
        tally = asyncio.run(_send(load_settings(), dataset, opt_in, console))
    except (DatasetError, PlatformError) as error:
        console.print(f"[red]{escape(str(error))}[/red]")
        return 1
    refused = ", ".join(f"{events} {code}" for code, events in tally.refused_by_code.items()) or "none"
    console.print(f"{tally.accepted} events accepted, refused: {refused}. Next: marquee train")
    return 0


def load_export(file: Path) -> int:
    """Send what another platform told a person of that person to the running one; returns the exit code."""
    console = Console(highlight=False)
    try:
        tally = asyncio.run(_send_export(load_settings(), read_export(file)))
    except (DatasetError, PlatformError) as error:
        console.print(f"[red]{escape(str(error))}[/red]")
        return 1
    refused = ", ".join(f"{events} {code}" for code, events in tally.refused_by_code.items()) or "none"
    console.print(f"{tally.accepted} events accepted, refused: {refused}.")
    return 0


async def _send_export(settings: Settings, export: Export) -> Tally:
    tally = Tally()
    async with _client(settings) as client:
        if export.purposes:
            await client.put_consent(export.user_id, export.purposes)
        for begin in range(0, len(export.events), MAX_BATCH):
            tally.count((await client.send_events(export.events[begin : begin + MAX_BATCH])).values())
    return tally


def audience(users: int, seconds: float, rate: float, opt_in: float) -> int:
    """Send generated viewers' past to the running platform, then let them come back; returns the exit code."""
    console = Console(highlight=False)
    try:
        dataset = generate(users, DEMO_ITEMS, users * 80)
        visits = asyncio.run(_visit(load_settings(), dataset, console, opt_in=opt_in, rate=rate, seconds=seconds))
    except PlatformError as error:
        console.print(f"[red]{escape(str(error))}[/red]")
        return 1
    tiers = ", ".join(f"{count} {tier}" for tier, count in visits.tiers.most_common())
    console.print(f"{visits.made} visits in {visits.seconds:.0f} s; lists by tier: {tiers}")
    return 0


def _fresh_platform(folder: Path) -> Settings:
    """Settings of a new platform in `folder`, on free ports, that retrains only when it is told to."""
    folder = folder.absolute()
    if folder.exists() and any(folder.iterdir()) and not (folder / SECRETS_FILE).exists():
        raise DemoError(f"{folder} is not empty and holds no platform: name another folder, this one would be emptied")
    shutil.rmtree(folder, ignore_errors=True)
    make_secrets(folder)
    os.environ["MARQUEE_DATA"] = str(folder)
    os.environ |= {"MARQUEE_TRAIN_EVERY_SECONDS": NEVER, "MARQUEE_TRAIN_AFTER_EVENTS": NEVER}
    os.environ["MARQUEE_TUNE_SECONDS"] = TUNE_SECONDS
    os.environ |= {f"MARQUEE_{name}_PORT": str(port) for name, port in zip(PORTS, _free_ports(len(PORTS)), strict=True)}
    return load_settings()


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def _running(settings: Settings, log: Path) -> Iterator[None]:
    """`marquee up` in a process of its own, ready on entry, stopped on exit."""
    with log.open("wb") as output:
        platform = subprocess.Popen([sys.executable, "-m", "marquee", "up"], stdout=output, stderr=subprocess.STDOUT)
    try:
        for port in (settings.ingest_port, settings.serving_port):
            _wait_until_ready(f"http://{settings.host}:{port}/readyz", platform)
        yield
    finally:
        platform.terminate()
        platform.wait()


def _wait_until_ready(url: str, platform: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while platform.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own address
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise DemoError("the platform did not start")


def _client(settings: Settings) -> Client:
    edges = [f"http://{settings.host}:{port}" for port in (settings.ingest_port, settings.serving_port)]
    return Client(edges[0], edges[1], settings.api_key.get_secret_value())


async def _run(settings: Settings, dataset: Dataset, console: Console) -> Summary:
    async with _client(settings) as client:
        loop = Demo(
            client=client,
            dataset=dataset,
            folder=settings.data,
            lake=Lake(settings.lake_uri),
            store=connect(settings.redis_url),
            weights=read_domain(settings.domain).history_weights,
            console=console,
        )
        return await loop.run()


async def _send(settings: Settings, dataset: Dataset, opt_in: float, console: Console) -> Tally:
    with bars_on(console) as progress:
        async with _client(settings) as client:
            return await send(client, dataset, opt_in, progress=bars(progress))


async def _visit(
    settings: Settings, dataset: Dataset, console: Console, *, opt_in: float, rate: float, seconds: float
) -> Visits:
    with bars_on(console) as progress:
        async with _client(settings) as client:
            tally = await send(client, dataset, opt_in, progress=bars(progress))
            items = [item.item_id for item in dataset.items]
            return await browse(
                client,
                sorted(tally.opted_in),
                items,
                events_per_second=rate,
                seconds=seconds,
                progress=bars(progress),
            )


def _table(summary: Summary) -> Table:
    table = Table("What happened", "", title="The loop held", title_justify="left")
    rows = {
        "events accepted": f"{summary.events_accepted:,}",
        "events refused for want of consent, and kept nowhere": f"{summary.events_refused:,}",
        "events landed in the lake, each once": f"{summary.events_landed:,}",
        "model versions": str(summary.model_versions),
        "nDCG@10 of the model on the hold-out": f"{summary.ndcg_at_10:.3f}",
        "nDCG@10 of the popular list on the same": f"{summary.popularity_ndcg_at_10:.3f}",
        "viewers with a published list": f"{summary.users_published:,}",
        "seconds from an event to the changed list (median)": f"{summary.event_to_list_seconds:.3f}",
        "traces of the forgotten viewer": str(summary.erased_user_traces),
        "seconds in all": f"{summary.seconds_total:.0f}",
    }
    for row in rows.items():
        table.add_row(*row)
    return table
