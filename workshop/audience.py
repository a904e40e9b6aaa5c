"""Simulated viewers: they opt in or do not, send what they did, come back, look at their lists and play from them."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any
from uuid import uuid4

import polars as pl
from rich.progress import Progress, TaskID

from ingest.events import MAX_BATCH, now
from workshop.client import ACCEPTED, Client
from workshop.datasets import Dataset

SENDERS = 6
CALLS_AT_ONCE = 8
"""More would be slower: for every call, httpx looks through the whole pool of connections."""
LOOKS_FURTHER = 0.2

OnProgress = Callable[[str, int, int], None]
"""Called with (what is sent, how many of them by now, how many in all)."""


# --- what they did ---------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What became of the events: each of them counts once, as accepted or under the code of its refusal."""

    accepted: int = 0
    refused_by_code: Counter[str] = field(default_factory=Counter)
    opted_in: set[str] = field(default_factory=set)

    @property
    def refused(self) -> int:
        """Events that were refused, whatever the reason."""
        return self.refused_by_code.total()

    def count(self, verdicts: Iterable[str]) -> None:
        """Count final verdicts: "accepted" or a code each."""
        for verdict, events in Counter(verdicts).items():
            if verdict == ACCEPTED:
                self.accepted += events
            else:
                self.refused_by_code[verdict] += events


async def send(
    client: Client, dataset: Dataset, share: float = 0.8, seed: int = 1, progress: OnProgress | None = None
) -> Tally:
    """Tell the platform of the items, let a share of the viewers opt in, then send everything that anybody did.

    Viewers who did not opt in send too, and are refused. What one viewer did is sent in the order of time. Sent again,
    the same dataset has the same event ids.

    Args:
        share: part of the viewers who opt in, 0 to 1.
        seed: decides which.
        progress: told after every answer.

    Raises:
        PlatformError: a call failed for good; what was sent before stays sent.
    """
    tally = Tally(opted_in={user for user in dataset.users if opts_in(user, share, seed)})
    await _send_items(client, dataset, _Steps("items", len(dataset.items), progress))
    await _send_consents(client, sorted(tally.opted_in), _Steps("viewers opting in", len(tally.opted_in), progress))
    await _send_acts(client, dataset, tally, _Steps("events", len(dataset.acts), progress))
    return tally


def opts_in(user_id: str, share: float, seed: int = 1) -> bool:
    """Whether this viewer is among the share who opt in: the same answer in every run.

    >>> opts_in("u1", share=1.0), opts_in("u1", share=0.0)
    (True, False)
    """
    digest = blake2b(f"{seed} {user_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64


@dataclass
class _Steps:
    """Counts one kind of thing for whoever watches."""

    what: str
    total: int
    progress: OnProgress | None
    done: int = 0

    def add(self, count: int) -> None:
        self.done += count
        if self.progress:
            self.progress(self.what, self.done, self.total)


async def _send_items(client: Client, dataset: Dataset, steps: _Steps) -> None:
    for begin in range(0, len(dataset.items), MAX_BATCH):
        batch = dataset.items[begin : begin + MAX_BATCH]
        await client.put_items(batch)
        steps.add(len(batch))


async def _send_consents(client: Client, users: Sequence[str], steps: _Steps) -> None:
    waiting = iter(users)

    async def work() -> None:
        for user in waiting:
            await client.put_consent(user)
            steps.add(1)

    await _together(work() for _ in range(CALLS_AT_ONCE))


async def _send_acts(client: Client, dataset: Dataset, tally: Tally, steps: _Steps) -> None:
    """Every sender has viewers of its own and waits for each answer, so that a viewer's order is kept."""

    async def work(acts: pl.DataFrame) -> None:
        for rows in acts.iter_slices(MAX_BATCH):
            events = list(_events(dataset.name, rows))
            verdicts = await client.send_events(events)
            tally.count(verdicts[event["event_id"]] for event in events)
            steps.add(len(events))

    sender = (pl.col("user_id").hash() % SENDERS).alias("sender")
    shards = dataset.acts.with_columns(sender).partition_by("sender", maintain_order=True, include_key=False)
    await _together(work(shard) for shard in shards)


def _events(dataset: str, acts: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """The acts as events. Their ids follow from what they say, so that the same act always has the same."""
    for act in acts.iter_rows(named=True):
        said = f"{dataset}\n{act['user_id']}\n{act['item_id']}\n{act['type']}\n{act['occurred_at'].isoformat()}"
        yield {"event_id": blake2b(said.encode(), digest_size=16).hexdigest(), **act}


# --- coming back -----------------------------------------------------------------------------------------------------


@dataclass
class Visits:
    """What happened while viewers came back.

    Attributes:
        made: visits made.
        tiers: how many of their lists came from each tier.
        tally: what became of the events.
        seconds: how long it took.
    """

    made: int = 0
    tiers: Counter[str] = field(default_factory=Counter)
    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0


async def browse(
    client: Client,
    viewers: Sequence[str],
    items: Sequence[str],
    *,
    events_per_second: float,
    seconds: float,
    seed: int = 1,
    k: int = 10,
    progress: OnProgress | None = None,
) -> Visits:
    """Let viewers come back: each looks at a list, is shown its items, and plays one of them or something else.

    Args:
        viewers: user ids to draw from; they opted in before, or are refused.
        items: item ids for those who look further than their list.
        events_per_second: pace that is aimed at, impressions included; a slower platform gets a slower pace.
        seconds: how long to go on.
        seed: decides who comes and what is played.
        k: length of the lists.
        progress: told after every visit.

    Raises:
        PlatformError: a call failed for good.
    """
    visits = Visits()
    planned = max(1, round(events_per_second * seconds / (k + 1)))
    steps = _Steps("visits", planned, progress)
    run, begin = uuid4().hex[:12], time.monotonic()
    turns = iter(range(planned))

    async def work() -> None:
        for turn in turns:
            await asyncio.sleep(begin + turn * seconds / planned - time.monotonic())
            if turn and time.monotonic() - begin > seconds:
                return
            visit = _Visit(f"{run}-{turn}", random.Random(f"{seed} {turn}"))
            await visit.make(client, viewers, items, k, visits)
            steps.add(1)

    await _together(work() for _ in range(CALLS_AT_ONCE))
    visits.seconds = time.monotonic() - begin
    return visits


@dataclass
class _Visit:
    """One viewer's look at a list.

    Attributes:
        name: tells this visit from all others, of other runs too.
        rng: decides who comes and what is played.
    """

    name: str
    rng: random.Random

    async def make(self, client: Client, viewers: Sequence[str], items: Sequence[str], k: int, visits: Visits) -> None:
        viewer = self.rng.choice(viewers)
        answer = await client.recommendations(viewer, k)
        shown = [item["item_id"] for item in answer["items"]]
        played, from_list = self._choose(shown, items)
        origin = {"recommendation_id": answer["recommendation_id"]}
        acts: list[dict[str, Any]] = [{"type": "impression", "item_id": item, **origin} for item in shown]
        acts.append({"type": "play", "item_id": played, **(origin if from_list else {})})
        verdicts = await client.send_events(
            {"event_id": f"{self.name}-{n}", "user_id": viewer, "occurred_at": now(), **act}
            for n, act in enumerate(acts)
        )
        visits.made += 1
        visits.tiers[answer["tier"]] += 1
        visits.tally.count(verdicts.values())

    def _choose(self, shown: Sequence[str], items: Sequence[str]) -> tuple[str, bool]:
        """What is played, and whether the list led there: what stands first is taken most often."""
        if not shown or self.rng.random() < LOOKS_FURTHER:
            return self.rng.choice(items), False
        return self.rng.choices(shown, [1 / (1 + place) for place in range(len(shown))])[0], True


# --- together --------------------------------------------------------------------------------------------------------


async def _together(jobs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all of them at once; the first that fails ends the others, and its error is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


def bars(progress: Progress) -> OnProgress:
    """Show progress as bars of `progress`, one a kind of thing that is sent."""
    tasks: dict[str, TaskID] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = progress.add_task(what, total=total)
        progress.update(tasks[what], completed=done)

    return show
