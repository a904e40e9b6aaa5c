"""Composition root of the workshop: the demo, and the commands that send traffic to a running platform."""

import asyncio
import os
import time
import webbrowser
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import quote

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infra.lake import Lake
from infra.online_store import connect
from infra.process import stop_event
from infra.settings import Settings, load_settings
from ingest.events import MAX_BATCH, read_domain
from workshop.audience import Tally, Visits, bars, browse, send
from workshop.capacity import Assumptions, Load, UnitsMissing, plan, read_units
from workshop.capacity_report import as_json, as_table
from workshop.client import Client, PlatformError
from workshop.datasets import Dataset, DatasetError, Export, read_export, read_movielens
from workshop.demo import Demo, DemoError, Summary, bars_on
from workshop.fresh_platform import FreshPlatform
from workshop.invented import generate
from workshop.rounds import ARMS, play
from workshop.rounds_report import Played
from workshop.world import Plan

DEMO_VIEWERS = 2500
DEMO_ITEMS = 1200
DEMO_ACTS = 200_000
TUNE_SECONDS = "5"
"""Of the demo's search for a recipe, unless MARQUEE_TUNE_SECONDS says otherwise."""
STOPPED = 130
"""As shells say it of a program that Ctrl-C ended."""


def demo(data: Path | None, folder: Path, opened: bool) -> int:
    """Run the loop on a platform of its own; returns the exit code.

    Args:
        data: a MovieLens folder; None: generated viewers.
        folder: where the platform lives.
        opened: show the storefront in a browser meanwhile, and keep the platform up afterwards.
    """
    console = Console(highlight=False)
    started = time.monotonic()
    try:
        dataset = (
            read_movielens(data, max_users=DEMO_VIEWERS) if data else generate(DEMO_VIEWERS, DEMO_ITEMS, DEMO_ACTS)
        )
        with FreshPlatform(folder, {"TUNE_SECONDS": os.environ.get("MARQUEE_TUNE_SECONDS", TUNE_SECONDS)}) as platform:
            summary = asyncio.run(_run(platform.settings, dataset, console, opened))
            summary.seconds_total = round(time.monotonic() - started, 1)
            summary.write(folder / "summary.json")
            console.print(_table(summary), f"The same figures are in {folder / 'summary.json'}.")
            if opened:
                _keep_up(platform.settings, console)
    except DatasetError as error:
        console.print(f"[red]{escape(str(error))}[/red]", soft_wrap=True)
        return 1
    except (DemoError, PlatformError) as error:
        console.print(f"\n[red]The demo did not hold: {escape(str(error))}[/red]\nLogs: {folder / 'platform.log'}")
        return 1
    return 0


def load_movielens(folder: Path, opt_in: float, max_users: int | None) -> int:
    """Send a MovieLens folder to the running platform; returns the exit code."""
    console = Console(highlight=False)
    try:
        dataset = read_movielens(folder, max_users)
        tally = asyncio.run(_send(load_settings(), dataset, opt_in, console))
    except (DatasetError, PlatformError) as error:
        console.print(f"[red]{escape(str(error))}[/red]", soft_wrap=True)
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
        console.print(f"[red]{escape(str(error))}[/red]", soft_wrap=True)
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
        console.print(f"[red]{escape(str(error))}[/red]", soft_wrap=True)
        return 1
    tiers = ", ".join(f"{count} {tier}" for tier, count in visits.tiers.most_common())
    console.print(f"{visits.made} visits in {visits.seconds:.0f} s; lists by tier: {tiers}")
    return 0


def _client(settings: Settings) -> Client:
    edges = [f"http://{settings.host}:{port}" for port in (settings.ingest_port, settings.serving_port)]
    return Client(edges[0], edges[1], settings.api_key.get_secret_value())


async def _run(settings: Settings, dataset: Dataset, console: Console, opened: bool) -> Summary:
    async with _client(settings) as client:
        loop = Demo(
            client=client,
            dataset=dataset,
            folder=settings.data,
            lake=Lake(settings.lake_uri),
            store=connect(settings.redis_url),
            weights=read_domain(settings.domain).history_weights,
            console=console,
            invite=partial(_invite, settings, console) if opened else None,
        )
        return await loop.run()


def _invite(settings: Settings, console: Console, viewer: str) -> None:
    """Show the storefront in the system's browser, as a viewer sees it."""
    address = f"{_storefront(settings)}?viewer={quote(viewer, safe='')}"
    console.print(f"\nThe storefront, as {viewer} sees it: {address}", soft_wrap=True)
    webbrowser.open(address)


def _keep_up(settings: Settings, console: Console) -> None:
    """Until Ctrl-C or SIGTERM."""
    stop = stop_event()
    storefront, key = _storefront(settings), settings.api_key.get_secret_value()
    console.print(
        f"\nStorefront: {storefront}", f"Console: {storefront}console", f"API key: {key}", sep="\n", soft_wrap=True
    )
    console.print("Ctrl-C stops everything.")
    stop.wait()


def _storefront(settings: Settings) -> str:
    return f"http://{settings.host}:{settings.serving_port}/"


async def _send(settings: Settings, dataset: Dataset, opt_in: float, console: Console) -> Tally:
    with bars_on(console) as progress:
        async with _client(settings) as client:
            return await send(client, dataset, opt_in, progress=bars(progress))


def rounds(number: int, seeds: int, viewers: int, out: Path) -> int:
    """Play the closed loop in so many worlds, show the figures and write them; returns the exit code.

    Ctrl-C ends it: the worlds that were played to their end are shown and written.
    """
    console = Console(highlight=False)
    plan, rates = Plan(viewers=viewers), []
    with bars_on(console) as progress, suppress(KeyboardInterrupt):
        bar = progress.add_task("rounds in all worlds", total=number * seeds)
        for seed in range(1, seeds + 1):
            rates.append(play(plan, number, seed, on_round=lambda: progress.advance(bar)))
    if not rates:
        console.print("[red]Stopped in the first world: there is nothing to show.[/red]")
        return STOPPED
    command = f"marquee audience --rounds {number} --seeds {seeds} --users {viewers}"
    played = Played(command, plan, tuple(ARMS), np.array(rates))
    picture = played.write(out)
    console.print(played.table(), f"Figures: {out}\nPlot: {picture}\nWhat they mean, and do not: docs/simulation.md")
    if len(rates) < seeds:
        console.print(f"[red]Stopped: {len(rates)} of {seeds} worlds.[/red]")
        return STOPPED
    return 0


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


def capacity(load: Load, assumed: Assumptions, as_text: bool) -> int:
    """Print what a load needs; returns the exit code.

    Args:
        load: what is asked of the platform.
        assumed: what nobody measured.
        as_text: as JSON, with units and assumptions.
    """
    console = Console(highlight=False)
    try:
        units = read_units()
    except UnitsMissing as error:
        Console(stderr=True, highlight=False).print(f"[red]{escape(str(error))}[/red]")
        return 1
    found = plan(load, units, assumed)
    if as_text:
        console.print_json(data=as_json(load, assumed, units, found))
    else:
        console.print(as_table(load, assumed, found))
    return 0
