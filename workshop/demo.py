"""The loop, end to end, on a running platform: what `make demo` shows and what the e2e tests check.

It is a client like any other: it speaks HTTP and types commands. It opens the stores only to count what is in them.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from infra.lake import EVENTS, Lake, LakeEmpty
from infra.online_store import OnlineStore
from ingest.events import now
from training.bundle import history_key, list_key, live_key
from training.interactions import ReadCounts, read_events
from training.main import status
from training.status import Status
from workshop.audience import bars, opts_in, send
from workshop.client import Client
from workshop.datasets import Dataset
from workshop.traces import find_traces

OPT_IN = 0.8
RETURNING_VIEWERS = 40
AT_ONCE = 8
PATIENCE_SECONDS = 60.0
K = 10

T = TypeVar("T")


class DemoError(Exception):
    """A step of the loop did not hold; the message says which, and what was seen instead."""


@dataclass
class Summary:
    """What the demo measured, as `summary.json` holds it."""

    events_accepted: int = 0
    events_refused: int = 0
    events_landed: int = 0
    lake_duplicates: int = 0
    model_versions: int = 0
    ndcg_at_10: float = 0.0
    popularity_ndcg_at_10: float = 0.0
    users_published: int = 0
    event_to_list_seconds: float = 0.0
    erased_user_traces: int = 0
    seconds_total: float = 0.0

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")


@dataclass
class Cast:
    """Viewers with a part in the story; their names are no part of anybody else's, so that they can be searched for."""

    dataset: Dataset
    withdrawing: str
    forgotten: str


@dataclass
class Demo:
    """The steps, in order; each raises `DemoError` when it does not hold.

    Args:
        client: of the platform, which is up and empty.
        dataset: the viewers and what they did.
        folder: the platform's data folder.
        lake: its lake.
        store: its online store.
        weights: event type → weight, for the types that enter a history.
        console: where to tell the story.
        invite: is told, once a version is served, as whom to look at it; None: nobody looks.
    """

    client: Client
    dataset: Dataset
    folder: Path
    lake: Lake
    store: OnlineStore
    weights: dict[str, float]
    console: Console
    invite: Callable[[str], None] | None = None
    summary: Summary = field(default_factory=Summary)

    async def run(self) -> Summary:
        """The whole loop."""
        cast = cast_viewers(self.dataset)
        await self._collect(cast.dataset)
        await self._train_and_serve(cast)
        await self._watch_more(cast)
        await self._retrain_and_roll_back(cast)
        self._note_model(status())
        await self._withdraw(cast.withdrawing)
        await self._forget(cast.forgotten)
        return self.summary

    async def _collect(self, dataset: Dataset) -> None:
        self._say("1. Viewers opt in, or do not, and send what they did")
        with bars_on(self.console) as progress:
            tally = await send(self.client, dataset, OPT_IN, progress=bars(progress))
            self.summary.events_accepted, self.summary.events_refused = tally.accepted, tally.refused
            _check(set(tally.refused_by_code) == {"consent_missing"}, f"refused for {dict(tally.refused_by_code)}")
            _check(tally.accepted + tally.refused == dataset.acts.height, "some events have no verdict")
            await self._landing(progress)

    async def _train_and_serve(self, cast: Cast) -> None:
        self._say("2. The retraining job makes version 1")
        self._command("train")
        viewers = self._returning(cast)
        first = await self._answer(viewers[0], "served from version 1", lambda answer: answer["version"] == 1)
        _check(first["tier"] in ("personal", "live"), f"a viewer with a history was served from tier {first['tier']}")
        stranger = await self.client.recommendations("a stranger", K)
        _check(stranger["tier"] == "popular", f"a stranger was served from tier {stranger['tier']}")
        self._show_viewer(viewers[0], cast.dataset, first)
        if self.invite:
            self.invite(viewers[-1])

    async def _watch_more(self, cast: Cast) -> None:
        self._say("3. Viewers play the first title of their list: it changes without retraining")
        viewers = self._returning(cast)
        seconds: list[float] = []
        with bars_on(self.console) as progress:
            task = progress.add_task("viewers who come back", total=len(viewers))
            turns = asyncio.Semaphore(AT_ONCE)

            async def come_back(viewer: str) -> None:
                async with turns:
                    seconds.append(await self._play_first(viewer))
                progress.advance(task)

            await asyncio.gather(*map(come_back, viewers))
        self.summary.event_to_list_seconds = round(statistics.median(seconds), 3)

    async def _play_first(self, viewer: str) -> float:
        """Seconds from the acknowledged event to the changed list."""
        before = await self.client.recommendations(viewer, K)
        played = before["items"][0]["item_id"]
        event = {"event_id": f"comes-back-{viewer}", "type": "play", "user_id": viewer, "item_id": played}
        origin = {"occurred_at": _now(), "recommendation_id": before["recommendation_id"]}
        verdicts = await self.client.send_events([{**event, **origin}])
        _check(set(verdicts.values()) == {"accepted"}, f"the returning viewer's event was refused: {verdicts}")
        self.summary.events_accepted += 1
        sent = time.monotonic()
        await self._answer(viewer, "free of the title just watched", lambda answer: played not in _ids(answer))
        return time.monotonic() - sent

    async def _retrain_and_roll_back(self, cast: Cast) -> None:
        self._say("4. A second run makes version 2; back to version 1, and forward again")
        with bars_on(self.console) as progress:
            await self._landing(progress)
        self._command("train")
        await self._expect_version(2, cast)
        for version in (1, 2):
            self._command("rollback", str(version))
            await self._expect_version(version, cast)

    async def _expect_version(self, version: int, cast: Cast) -> None:
        viewer = self._returning(cast)[0]
        served = await self._answer(viewer, f"served from version {version}", lambda a: a["version"] == version)
        self.console.print(f"   version {version} is served, tier {served['tier']}")

    def _note_model(self, training: Status) -> None:
        newest = training.versions[0]
        self.summary.model_versions = len(training.versions)
        self.summary.ndcg_at_10 = round(newest.metrics["ndcg_at_10"], 4)
        self.summary.popularity_ndcg_at_10 = round(newest.metrics["popularity_ndcg_at_10"], 4)
        self.summary.users_published = sum(1 for _ in self.store.scan_iter(list_key(newest.version, "*"), count=1000))
        _check(self.summary.ndcg_at_10 > self.summary.popularity_ndcg_at_10, "the model does not beat the popular list")

    async def _withdraw(self, viewer: str) -> None:
        self._say("5. A viewer withdraws, another is forgotten")
        await self.client.withdraw(viewer)
        event = {"event_id": f"too-late-{viewer}", "type": "play", "user_id": viewer, "item_id": "m1"}
        verdicts = await self.client.send_events([{**event, "occurred_at": _now()}])
        _check(set(verdicts.values()) == {"consent_missing"}, f"an event after the withdrawal got {verdicts}")
        keys = [history_key(viewer), *(key(version, viewer) for key in (list_key, live_key) for version in (1, 2))]
        await self._until("lists and history of who withdrew are gone", lambda: not self.store.exists(*keys))
        await self._until("rows of who withdrew are gone from the lake", lambda: viewer not in self._people())
        self.console.print("   withdrawn: events refused; lists, history and rows gone")

    async def _forget(self, viewer: str) -> None:
        before = find_traces(viewer, self.folder, self.store)
        _check(bool(before), "the search for traces found none of a viewer with a history: it proves nothing")
        erasure_id = await self.client.erase(viewer)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (erasure := await self.client.erasure(erasure_id))["completed_at"] is None:
            _check(time.monotonic() < deadline, f"the erasure was not completed in time: {erasure}")
            await asyncio.sleep(0.2)
        left = find_traces(viewer, self.folder, self.store)
        self.summary.erased_user_traces = len(left)
        _check(not left, f"traces of the forgotten viewer: {left}")
        self.console.print(f"   forgotten: {len(before)} places held the id before, none does now")

    async def _landing(self, progress: Progress) -> None:
        """Wait until the lake holds what was accepted, each event once."""
        accepted = self.summary.events_accepted
        task = progress.add_task("events landed in the lake", total=accepted)

        def all_landed() -> bool:
            counts = self._landed()
            self.summary.events_landed = counts.rows - counts.repeated_positions - counts.repeated_events
            self.summary.lake_duplicates = counts.repeated_positions
            progress.update(task, completed=self.summary.events_landed)
            return self.summary.events_landed >= accepted

        await self._until(f"all {accepted} accepted events are in the lake", all_landed)
        if not self.invite:  # Whoever was invited sends events of their own.
            landed = self.summary.events_landed
            _check(landed == accepted, f"{landed} landed of {accepted} accepted")
        _check(self.summary.lake_duplicates == 0, f"{self.summary.lake_duplicates} events landed twice")

    def _landed(self) -> ReadCounts:
        try:
            return read_events(self.lake.snapshot(EVENTS).rows.lazy(), self.weights).counts
        except LakeEmpty:
            return ReadCounts(0, 0, 0)

    def _people(self) -> set[str]:
        return set(self.lake.snapshot(EVENTS, ["user_id"]).rows["user_id"])

    def _returning(self, cast: Cast) -> Sequence[str]:
        """Viewers who opted in, the busiest left out: they may have watched all there is."""
        busy = cast.dataset.acts.group_by("user_id").len().sort("len", "user_id")["user_id"].to_list()
        named = {cast.withdrawing, cast.forgotten}
        opted_in = [viewer for viewer in busy if opts_in(viewer, OPT_IN) and viewer not in named]
        middle = len(opted_in) // 2
        return opted_in[middle : middle + RETURNING_VIEWERS]

    async def _answer(self, viewer: str, what: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The viewer's list, as soon as it is as it should be."""
        answers: list[dict[str, Any]] = []

        async def ask() -> bool:
            answers[:] = [await self.client.recommendations(viewer, K)]
            return holds(answers[0])

        await self._until(f"the list is {what}", ask, pause=0.02)
        return answers[0]

    async def _until(self, what: str, holds: Callable[[], bool | Awaitable[bool]], pause: float = 0.2) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            held = holds()
            if held if isinstance(held, bool) else await held:
                return
            _check(time.monotonic() < deadline, f"waited {PATIENCE_SECONDS:.0f} s in vain until {what}")
            await asyncio.sleep(pause)

    def _command(self, *words: str) -> None:
        """Type a `marquee` command, as an operator would."""
        self.console.print(f"   $ marquee {' '.join(words)}")
        command = [sys.executable, "-m", "marquee", *words]
        with self.console.status(f"   {' '.join(words)} ..."):
            done = subprocess.run(command, check=False, capture_output=True, text=True)
        _check(done.returncode == 0, f"it ended with {done.returncode}:\n{done.stderr}{done.stdout}")

    def _show_viewer(self, viewer: str, dataset: Dataset, answer: dict[str, Any]) -> None:
        titles = {item.item_id: str(item.attributes.get("title", item.item_id)) for item in dataset.items}
        history = dataset.acts.filter(pl.col("user_id") == viewer)["item_id"].to_list()[-K:][::-1]
        table = Table(
            "watched last", "recommended", title=f"Viewer {viewer}, tier {answer['tier']}", title_justify="left"
        )
        recommended = [str(item.get("title", item["item_id"])) for item in answer["items"]]
        for row in range(max(len(history), len(recommended))):
            table.add_row(*("".join(column[row : row + 1]) for column in ([titles[i] for i in history], recommended)))
        self.console.print(table)

    def _say(self, step: str) -> None:
        self.console.print(f"\n[bold]{step}[/bold]")


def bars_on(console: Console) -> Progress:
    """Progress bars that show how many of how many, and the time."""
    columns = (TextColumn("   {task.description:28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def cast_viewers(dataset: Dataset) -> Cast:
    """Give two viewers of ordinary activity a name that can be searched for, and that opts in."""
    by_activity = dataset.acts.group_by("user_id").len().sort("len", "user_id")["user_id"].to_list()
    middle = len(by_activity) // 2
    names = {by_activity[middle]: _name("withdrawing"), by_activity[middle - 1]: _name("forgotten")}
    acts = dataset.acts.with_columns(pl.col("user_id").replace(names))
    return Cast(Dataset(dataset.name, dataset.items, acts), *names.values())


def _name(part: str) -> str:
    names = (f"the-{part}-viewer-{n:04}" for n in count())
    return next(name for name in names if opts_in(name, OPT_IN))


def _ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def _now() -> str:
    return now().isoformat()


def _check(held: bool, otherwise: str) -> None:
    if not held:
        raise DemoError(otherwise)
