"""Turning requests away when there is more to do than the process can: cheaply, and not faster than it can afford."""

import asyncio

from starlette.types import Send

from infra.http import PROBLEM_JSON, Problem
from serving.metrics import RecommendationMetrics

MOST_A_SECOND = 500
LONGEST_SECONDS = 2.0

BODY = Problem(
    503, "overloaded", "There is more to do than this process can. Ask again after the time that Retry-After says."
).body()
HEADERS = [
    (b"content-type", PROBLEM_JSON.encode()),
    (b"content-length", b"%d" % len(BODY)),
    (b"retry-after", b"1"),
]


class Overloaded(Exception):
    """So much waits already that one more request would only make all of them late."""


class TurningAway:
    """Answers 503 with Retry-After, at most 500 times a second; who comes faster waits for a turn, for 2 s at most.

    A client that does not heed Retry-After asks again as soon as it is turned away. Answered at once, thousands of them
    would leave no time for those who are served: two requests are turned away in the time that one is answered in.

    Args:
        metrics: where they are counted.
    """

    def __init__(self, metrics: RecommendationMetrics) -> None:
        self._metrics = metrics
        self._turn = 0.0

    async def __call__(self, send: Send) -> None:
        """Turn one request away."""
        await asyncio.sleep(self.turn() - asyncio.get_running_loop().time())
        await send({"type": "http.response.start", "status": 503, "headers": HEADERS})
        await send({"type": "http.response.body", "body": BODY})

    def turn(self) -> float:
        """When the next request may be turned away, by the loop's clock; it is counted."""
        self._metrics.refused[503] += 1
        now = asyncio.get_running_loop().time()
        self._turn = min(max(self._turn + 1 / MOST_A_SECOND, now), now + LONGEST_SECONDS)
        return self._turn
