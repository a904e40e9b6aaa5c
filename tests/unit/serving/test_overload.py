"""Turning away is bounded in what it costs."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from serving.metrics import RecommendationMetrics
from serving.overload import LONGEST_SECONDS, MOST_A_SECOND, TurningAway

Message = MutableMapping[str, Any]


@pytest.fixture
def metrics() -> RecommendationMetrics:
    """Where refusals are counted."""
    return RecommendationMetrics(CollectorRegistry())


async def _send(_: Message) -> None:
    return


def test_who_is_turned_away_is_told_when_to_come_back(metrics: RecommendationMetrics) -> None:
    """503 with Retry-After, as a problem document, and counted."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(TurningAway(metrics)(send))
    start, body = sent
    assert (start["status"], dict(start["headers"])[b"retry-after"]) == (503, b"1")
    assert orjson.loads(body["body"])["code"] == "overloaded"
    assert metrics.refused[503] == 1


def test_a_crowd_is_turned_away_no_faster_than_is_affordable(metrics: RecommendationMetrics) -> None:
    """Each of them waits for a turn."""

    async def crowd() -> float:
        turn_away, loop = TurningAway(metrics), asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(*(turn_away(_send) for _ in range(100)))
        return loop.time() - began

    assert asyncio.run(crowd()) > 98 / MOST_A_SECOND


def test_nobody_waits_long_for_a_refusal(metrics: RecommendationMetrics) -> None:
    """However many came before."""

    async def after_a_crowd() -> None:
        turn_away = TurningAway(metrics)
        turn_away._turn = asyncio.get_running_loop().time() + 1000
        await asyncio.wait_for(turn_away(_send), 10 * LONGEST_SECONDS)

    asyncio.run(after_a_crowd())
