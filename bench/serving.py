"""How fast the hot path is: beside a server that does nothing, and beside the plain way to serve a list.

    make bench-serving

100,000 users x top-100 of 20,000 items; client, server and Redis share the machine. Needs wrk on PATH. What compares
two is a ratio of rounds by turns within one run, the median of three. Results: bench/results/serving.json, serving.png.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from bench import freshness, open_loop
from bench.serving_plot import plot
from bench.serving_servers import ROOT, Throughput, body_length, request_of, running, wrk
from bench.serving_store import fill, running_redis
from infra.online_store import OnlineStore
from infra.process import allow_open_files
from training.bundle import HIDDEN

RESULT = ROOT / "bench/results/serving.json"
USERS, ITEMS, LENGTH, ROUNDS = 100_000, 20_000, 100, 3
SHARES = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9)
"""Rates of the plot, as shares of what each server can do."""

OVERLOAD = 5
MOST_WAITING = 200
"""Of the server that is overloaded: with the usual 1024, the crowd is more than wrk and the machine bear themselves."""

HIDDEN_ITEMS = 200
SECONDS_TO_HIDE = 2.0
FILTERS = {
    "category": "&category=Drama",
    "min_year": "&min_year=1980",
    "exclude": "&exclude=" + ",".join(f"m{i}" for i in range(20)),
}

Measurement = Callable[[], float]


def main() -> None:
    """Measure, write, show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=USERS, help="fewer: a trial, whose figures are not written")
    parser.add_argument("--seconds", type=int, default=5, help="length of one measurement")
    options = parser.parse_args()
    allow_open_files()
    result = measure(options.users, options.seconds)
    if options.users == USERS:
        RESULT.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        plot(result["latency_by_rate"], RESULT.with_suffix(".png"))
    show(result)


def measure(users: int, seconds: int) -> dict[str, Any]:
    """All figures."""
    result: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count()}
    result |= {"load_average_before": os.getloadavg()[0], "users": users, "items": ITEMS, "list": LENGTH, "k": 20}
    with tempfile.TemporaryDirectory(prefix="mq-bench-") as name:
        folder = Path(name)
        with running_redis(folder) as store:
            result |= {
                "bytes_per_user": round(fill(store, users, ITEMS, LENGTH)),
                "bytes_per_user_in_theory": 4 * LENGTH,
            }
            with running(["ours"], folder) as ports:
                result["body_bytes"] = body = body_length(ports["ours"])
            with running(["ours", "bare", "plain"], folder, body) as ports:
                result |= throughput(ports, folder, users, seconds)
                result |= latency(ports, users, seconds, result["requests_per_second"])
            with running(["ours"], folder, most_waiting=MOST_WAITING) as ports:
                result |= overload(ports["ours"], folder, users, seconds)
            with running(["ours", "bare"], folder, body, workers=2) as ports:
                result |= scaling(ports, folder, users, seconds, result["requests_per_second"])
            with running(["ours", "without_auth", "without_lineage"], folder) as ports:
                result["cost_of_features"] = features(store, ports, folder, users, seconds)
    result |= freshness.measure()
    return result | {"load_average_after": os.getloadavg()[0]}


def throughput(ports: Mapping[str, int], folder: Path, users: int, seconds: int) -> dict[str, Any]:
    """Requests a second of each server, and ours beside the others."""
    runs = by_turns({name: _rate(port, folder, users, seconds) for name, port in ports.items()})
    return {
        "requests_per_second": medians(runs),
        "requests_per_second_runs": runs,
        "ratio_to_bare_asgi": ratio(runs["ours"], runs["bare"]),
        "ratio_to_plain": ratio(runs["ours"], runs["plain"]),
    }


def latency(ports: Mapping[str, int], users: int, seconds: int, most: Mapping[str, float]) -> dict[str, Any]:
    """Latency at constant rates: ours and bare at half of what ours can do, and each by its own rate."""
    requests = [request_of(user * 7919 % users) for user in range(1000)]
    half = most["ours"] / 2

    def p99(port: int) -> Measurement:
        return lambda: open_loop.measure(port, requests, half, seconds)["p99_ms"]

    runs = by_turns({name: p99(ports[name]) for name in ("ours", "bare")})
    curves = {
        name: [
            {"rate": round(most[name] * share), **open_loop.measure(port, requests, most[name] * share, 3)}
            for share in SHARES
        ]
        for name, port in ports.items()
    }
    return {
        "half_rate": round(half),
        "p99_ms_at_half_rate": medians(runs),
        "p99_ms_at_half_rate_runs": runs,
        "p99_ratio_to_bare_at_half_rate": ratio(runs["ours"], runs["bare"]),
        "latency_by_rate": curves,
    }


def overload(port: int, folder: Path, users: int, seconds: int) -> dict[str, Any]:
    """What is left of the throughput when five times as many ask as may wait, each again as soon as it is answered."""
    crowd = OVERLOAD * MOST_WAITING
    seen: list[Throughput] = []

    def crowded() -> float:
        seen.append(wrk(port, folder, users, 2 * seconds, connections=crowd))
        return seen[-1].rate

    runs = by_turns({"usual": _rate(port, folder, users, seconds), "crowded": crowded})
    refused = statistics.median(run.refused for run in seen)
    return {
        "goodput_at_5x": ratio(runs["crowded"], runs["usual"]),
        "overload": {"connections": crowd, "refused_per_second": round(refused), "requests_per_second_runs": runs},
    }


def scaling(
    ports: Mapping[str, int], folder: Path, users: int, seconds: int, alone: Mapping[str, float]
) -> dict[str, Any]:
    """Two workers instead of one."""
    runs = by_turns({name: _rate(port, folder, users, seconds) for name, port in ports.items()})
    two = medians(runs)
    return {"requests_per_second_by_workers": {name: {"1": alone[name], "2": two[name]} for name in ports}}


def features(store: OnlineStore, ports: Mapping[str, int], folder: Path, users: int, seconds: int) -> dict[str, float]:
    """Throughput with a feature, as a share of that without it."""
    measurements = {name: _rate(port, folder, users, seconds) for name, port in ports.items()}
    for name, query in FILTERS.items():
        measurements[name] = _rate(ports["ours"], folder, users, seconds, query)
    runs = by_turns({**measurements, "hidden": _hidden(store, measurements["ours"])})
    shares = {name.removeprefix("without_"): ratio(runs["ours"], runs[name]) for name in ports if name != "ours"}
    return shares | {name: ratio(runs[name], runs["ours"]) for name in (*FILTERS, "hidden")}


def by_turns(measurements: Mapping[str, Measurement]) -> dict[str, list[float]]:
    """Each measurement three times, one after the other, so that what else happens here meets them alike."""
    runs: dict[str, list[float]] = {name: [] for name in measurements}
    for _ in range(ROUNDS):
        for name, once in measurements.items():
            runs[name].append(round(once(), 3))
    return runs


def ratio(runs: Sequence[float], to: Sequence[float]) -> float:
    """Median over the rounds."""
    return round(statistics.median(one / other for one, other in zip(runs, to, strict=True)), 3)


def medians(runs: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Median of each."""
    return {name: statistics.median(of) for name, of in runs.items()}


def show(result: Mapping[str, Any]) -> None:
    """A table of the figures that service levels and README name."""
    table = Table("figure", "measured", "goal")
    for name, goal in {
        "ratio_to_bare_asgi": ">= 0.5",
        "ratio_to_plain": ">= 5",
        "p99_ratio_to_bare_at_half_rate": "<= 3",
        "bytes_per_user": "<= 620",
        "goodput_at_5x": ">= 0.9",
        "freshness_p50_ms": "<= 150",
        "freshness_p99_ms": "<= 1000",
    }.items():
        table.add_row(name, str(result.get(name, "not measured")), goal)
    for name, by_workers in result["requests_per_second_by_workers"].items():
        table.add_row(
            f"requests/s of {name}, 1 and 2 workers", " and ".join(f"{n:,.0f}" for n in by_workers.values()), ""
        )
    for name, share in result["cost_of_features"].items():
        table.add_row(f"throughput with {name} / without", str(share), "")
    Console().print(table)


def _rate(port: int, folder: Path, users: int, seconds: int, query: str = "") -> Measurement:
    def once() -> float:
        seen = wrk(port, folder, users, seconds, query=query)
        if seen.refused:
            raise RuntimeError(f"{seen.refused:.0f} requests a second were refused")
        return seen.rate

    return once


def _hidden(store: OnlineStore, once: Measurement) -> Measurement:
    def measured() -> float:
        store.sadd(HIDDEN, *(f"m{index * 97 % ITEMS}" for index in range(HIDDEN_ITEMS)))
        time.sleep(SECONDS_TO_HIDE)
        try:
            return once()
        finally:
            store.delete(HIDDEN)
            time.sleep(SECONDS_TO_HIDE)

    return measured


if __name__ == "__main__":
    main()
