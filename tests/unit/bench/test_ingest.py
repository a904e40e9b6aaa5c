"""The benchmark of ingest, in small: its events are what it says, and all that it compares takes them."""

import os
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import orjson
import pytest

import bench.serving
from bench import ingest, open_loop
from bench.ingest import TRIAL, Bodies, event, measure
from bench.ingest_servers import PATHS
from bench.service_levels import BENCH_INGEST


@pytest.mark.parametrize("number", [0, 7, 19_999])
def test_an_event_has_300_bytes(number: int) -> None:
    assert len(orjson.dumps(event(number, 4000))) == 300


@pytest.mark.kafka
def test_a_small_benchmark_has_all_figures(kafka_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the real servers, by a small client instead of wrk; how fast they are is not asked here."""

    def a_few(port: int, path: str, of: Bodies, seconds: int) -> float:
        del seconds
        asked = [each.replace(b"/v1/events ", path.encode() + b" ") for each in of.requests]
        return of.length * 10 / sum(open_loop.ask(port, asked, rate=20, seconds=1, connections=2))

    monkeypatch.setattr(ingest, "wrk", a_few)
    monkeypatch.setattr(ingest, "broker", lambda _: nullcontext((kafka_url, os.getpid())))
    monkeypatch.setattr(bench.serving, "ROUNDS", 1)
    result = measure(TRIAL)
    assert all(isinstance(result[level.key], float) for level in BENCH_INGEST)
    for log in ("kafka", "embedded"):
        figures: Mapping[str, Any] = result[log]["50"]
        assert figures["events_per_second"].keys() == PATHS.keys()
        assert figures["p99_ms_at_half_rate"] > 0
    ingest.show(result)
