"""What viewers see while something goes on: answers by tier and status, their times, and when all was well again."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from bench.constant_rate import Answer, ConstantRate, get
from bench.editions import GENRES, mixes, user
from bench.own_platform import KEY, OwnPlatform

OWN = frozenset({"live", "personal"})
"""Tiers of a viewer whose list is there."""

QUIET_SECONDS = 1.0
LONGEST_RECOVERY_SECONDS = 15.0
OF_A_CATEGORY = 0.1


class Seen(NamedTuple):
    """What one answer showed.

    Attributes:
        tier: of the list; "" where the answer is none.
        version: that it names; 0 where there is none.
        mixed: whether it holds anything of another version.
        retry_after: whether it says when to come again.
    """

    tier: str
    version: int
    mixed: bool = False
    retry_after: bool = False


@dataclass
class Phase:
    """What viewers saw in one stretch of time, for the table and the result file."""

    name: str
    answers: Sequence[Answer]
    figures: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        times = np.array([answer.seconds for answer in self.answers] or [0.0]) * 1000
        self.figures = {
            "phase": self.name,
            "answers": len(self.answers),
            "tiers": dict(Counter(answer.seen.tier for answer in self.answers if answer.status == 200)),
            "statuses": {str(status): count for status, count in Counter(a.status for a in self.answers).items()},
            "p50_ms": round(float(np.percentile(times, 50)), 2),
            "p99_ms": round(float(np.percentile(times, 99)), 2),
            "worst_ms": round(float(times.max()), 2),
        }


@dataclass
class Report:
    """One drill: what was injected, what viewers saw, what the platform said of it, and the figures that are judged."""

    name: str
    injected: str
    phases: list[Phase] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


def look(status: int, head: bytes, body: bytes) -> Seen:
    """What an answer to a request for a list shows."""
    if status != 200:
        return Seen("", 0, retry_after=bool(header(head, b"retry-after")))
    tier, version = header(head, b"marquee-tier"), int(header(head, b"marquee-version"))
    return Seen(tier, version, mixes(body, tier=tier) if version else False)


def header(head: bytes, name: bytes) -> str:
    """A header's value; names are in lower case."""
    return head.partition(b"\r\n" + name + b":")[2].partition(b"\r\n")[0].strip().decode()


def viewers(platform: OwnPlatform, users: int, rate: float, seconds: float, port: int | None = None) -> ConstantRate:
    """Viewers at a constant rate, each asking for a list of 20, one in ten for 5 of a category.

    Args:
        platform: whom they ask.
        users: how many there are.
        rate: requests a second.
        seconds: for how long, at most.
        port: where they ask; None: the serving worker itself.
    """
    paths = [f"/v1/users/{user(number)}/recommendations?k=20" for number in range(users)]
    whole = [get(path, KEY) for path in paths]
    of_category = [get(f"{path[:-2]}5&category={GENRES[n % len(GENRES)]}", KEY) for n, path in enumerate(paths)]
    draw = random.Random(1)  # noqa: S311

    def request() -> bytes:
        return draw.choice(of_category if draw.random() < OF_A_CATEGORY else whole)

    return ConstantRate(port or platform.ports["SERVING"], request, rate, seconds, look=look)


def between(answers: Iterable[Answer], begin: float, end: float) -> list[Answer]:
    """Answers to requests that were due in a stretch of time."""
    return [answer for answer in answers if begin <= answer.at < end]


def failed(answers: Iterable[Answer]) -> int:
    """How many got an error of the server or no answer."""
    return sum(1 for answer in answers if answer.status == 0 or answer.status >= 500)


def p99_ms(answers: Sequence[Answer]) -> float:
    """In milliseconds."""
    return round(float(np.percentile([answer.seconds * 1000 for answer in answers], 99)), 2) if answers else 0.0


def is_own(answer: Answer) -> bool:
    """Whether a viewer got a list of their own."""
    return answer.status == 200 and answer.seen.tier in OWN


def recovered(load: ConstantRate, since: float, well: Callable[[Answer], bool] = is_own) -> float:
    """Seconds from `since` until every answer is well again; waits for it, or a while longer than is promised."""
    deadline = since + LONGEST_RECOVERY_SECONDS
    while (now := time.monotonic()) < deadline:
        ill = [answer.at + answer.seconds for answer in load.answers if answer.at >= since and not well(answer)]
        last = max(ill, default=since)
        if now - max(last, since) > QUIET_SECONDS:
            return round(last - since, 2)
        time.sleep(0.1)
    return LONGEST_RECOVERY_SECONDS
