"""How fast events are taken: `marquee ingest` beside a bare route that appends whatever comes.

    make bench-ingest

Batches of 1, 50 and 500 events of 300 bytes, of people who have all opted in, so that every one of them is appended. An
answer means that they are durable. Client, server and log share the machine. Both servers append through the same code;
the bare one parses the body and does nothing else. Needs wrk on PATH and a broker (make kafka). Results:
bench/results/ingest.json, and the exit code is the verdict.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from rich.console import Console
from rich.table import Table

from bench import open_loop
from bench.ingest_servers import FROM_REDIS, PATHS, ROOT, Servers, broker, cpu_seconds, running
from bench.own_platform import KEY, OwnPlatform
from bench.service_levels import BENCH_INGEST, broken, verdict
from bench.serving import by_turns, medians, ratio
from bench.serving_servers import read_wrk
from ingest.events import now

RESULT = ROOT / "bench/results/ingest.json"
EVENT_BYTES = 300
CONNECTIONS, EVENTS_UNDER_WAY = 32, 4000
"""Of wrk. Of batches of 500 there are fewer under way, since 32 of them may take longer than a batch waits (2 s)."""

SCRIPT = """
local requests, last = {{}}, 0
init = function()
  local headers = {{["Authorization"] = "Bearer {key}", ["Content-Type"] = "application/json"}}
  for body in io.lines("{bodies}") do requests[#requests + 1] = wrk.format("POST", nil, headers, body) end
end
request = function()
  last = last % #requests + 1
  return requests[last]
end
"""


class Size(NamedTuple):
    """How much is measured.

    Attributes:
        people: who have opted in.
        events: different ones, sent over and over; ids do not matter to the collector.
        batches: events in a request; the one that is judged is 50.
        seconds: length of one measurement.
    """

    people: int = 4000
    events: int = 20_000
    batches: tuple[int, ...] = (1, 50, 500)
    seconds: int = 5


TRIAL = Size(people=50, events=500, batches=(50,), seconds=1)
JUDGED = 50


class Bodies(NamedTuple):
    """Requests of one size.

    Attributes:
        length: events in each.
        script: of wrk.
        requests: the same as bytes.
    """

    length: int
    script: Path
    requests: Sequence[bytes]


def main() -> None:
    """Measure, write, show, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trial", action="store_true", help="some seconds; the figures are not written")
    trial = parser.parse_args().trial
    result = measure(TRIAL if trial else Size())
    if not trial:
        RESULT.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    show(result)
    sys.exit(1 if broken(BENCH_INGEST, result) else 0)


def measure(size: Size) -> dict[str, Any]:
    """All figures: those that are judged are of batches of 50 on Kafka."""
    result: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count()}
    result |= {"load_average_before": os.getloadavg()[0], "event_bytes": EVENT_BYTES, "people": size.people}
    with tempfile.TemporaryDirectory(prefix="mq-bench-") as name:
        folder = Path(name)
        every = [bodies(size, length, folder) for length in size.batches]
        with broker(folder / "kafka") as (url, pid), running(url, pid) as servers:
            kafka = measure_log(servers, every, size)
        with running(FROM_REDIS) as servers:
            embedded = measure_log(servers, every, size)
    judged = kafka[str(JUDGED)]
    result |= {
        "ratio_to_bare_route": judged["ratio_to_bare_route"],
        "events_per_second": judged["events_per_second"]["ours"],
        "p99_ms_at_half_rate": judged["p99_ms_at_half_rate"],
    }
    return result | {"kafka": kafka, "embedded": embedded, "load_average_after": os.getloadavg()[0]}


def measure_log(servers: Servers, every: Sequence[Bodies], size: Size) -> dict[str, Any]:
    """Batch size → figures, on one log."""
    opt_in(servers.platform, size.people)
    figures: dict[str, Any] = {}
    for of in every:
        found = throughput(servers, of, size)
        half = found["events_per_second"]["ours"] / 2
        figures[str(of.length)] = found | latency(servers.ours.port, of, half, size.seconds)
    return figures


def throughput(servers: Servers, of: Bodies, size: Size) -> dict[str, Any]:
    """Events a second of each, by turns, and what an event costs the processors."""
    used: dict[str, list[float]] = {}
    asked = {"ours": servers.ours, "bare": servers.bare, "bare_by_our_log": servers.bare}

    def once(name: str) -> float:
        pids = {name: asked[name].pid, f"log_of_{name}": servers.log_pid}
        before = {of_whom: cpu_seconds(pid) for of_whom, pid in pids.items()}
        done = wrk(asked[name].port, PATHS[name], of, size.seconds)
        for of_whom, pid in pids.items():
            used.setdefault(of_whom, []).append((cpu_seconds(pid) - before[of_whom]) / (done * size.seconds) * 1e6)
        return done

    for name, server in asked.items():
        wrk(server.port, PATHS[name], of, 1)
    runs = by_turns({name: partial(once, name) for name in asked})
    return {
        "events_per_second": medians(runs),
        "events_per_second_runs": runs,
        "ratio_to_bare_route": ratio(runs["ours"], runs["bare"]),
        "ratio_to_bare_route_by_our_log": ratio(runs["ours"], runs["bare_by_our_log"]),
        "cpu_microseconds_an_event": {name: round(value, 1) for name, value in medians(used).items()},
    }


def latency(port: int, of: Bodies, rate: float, seconds: int) -> dict[str, Any]:
    """How long an answer takes at a constant rate.

    Args:
        rate: events a second.
    """
    p50: list[float] = []

    def p99() -> float:
        seen = open_loop.measure(port, of.requests, rate / of.length, seconds)
        p50.append(seen["p50_ms"])
        return seen["p99_ms"]

    runs = by_turns({"p99": p99})["p99"]
    return {
        "half_rate_events_per_second": round(rate),
        "p50_ms_at_half_rate": round(statistics.median(p50), 2),
        "p99_ms_at_half_rate": statistics.median(runs),
        "p99_ms_at_half_rate_runs": runs,
    }


def wrk(port: int, path: str, of: Bodies, seconds: int) -> float:
    """Events a second.

    Raises:
        RuntimeError: a batch was refused, or a connection broke.
    """
    connections = min(CONNECTIONS, EVENTS_UNDER_WAY // of.length)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "10s", "-s", str(of.script)]
    done = subprocess.run([*command, f"http://127.0.0.1:{port}{path}"], check=True, capture_output=True, text=True)
    seen = read_wrk(done.stdout)
    if seen.refused:
        raise RuntimeError(f"{seen.refused:.0f} batches a second were refused")
    return seen.rate * of.length


def bodies(size: Size, length: int, folder: Path) -> Bodies:
    """Batches of that length."""
    events = [event(number, size.people) for number in range(size.events)]
    every = [orjson.dumps({"events": events[start : start + length]}) for start in range(0, size.events, length)]
    lines, script = folder / f"bodies-{length}", folder / f"{length}.lua"
    lines.write_bytes(b"\n".join(every))
    script.write_text(SCRIPT.format(key=KEY, bodies=lines))
    head = f"POST {PATHS['ours']} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {KEY}\r\n".encode()
    head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    return Bodies(length, script, [head % (len(body), body) for body in every])


def event(number: int, people: int) -> dict[str, str]:
    """An event of 300 bytes of JSON."""
    fields = {
        "event_id": f"01J9Z6Q7W3{number:010}",
        "type": "play",
        "user_id": person(number * 7919 % people),
        "item_id": f"m-{number % 5000}",
        "occurred_at": now().isoformat(),
        "recommendation_id": "",
    }
    return fields | {"recommendation_id": "r" * (EVENT_BYTES - len(orjson.dumps(fields)))}


def person(number: int) -> str:
    """Id of a person."""
    return f"viewer-{number}"


def opt_in(platform: OwnPlatform, people: int) -> None:
    """Everybody allows personalization."""

    def one(number: int) -> None:
        said = platform.call("ingest", "PUT", f"/v1/users/{person(number)}/consent", {"purposes": ["personalization"]})
        if said[0] != 200:
            raise RuntimeError(f"opting in was answered {said}")

    with ThreadPoolExecutor(8) as callers:
        list(callers.map(one, range(people)))


def show(result: Mapping[str, Any]) -> None:
    """All of it in tables, and the verdict."""
    table = Table("log", "events in a batch", "events/s", "bare route", "ratio", "p50 ms", "p99 ms at half rate")
    for log in ("kafka", "embedded"):
        for length, figures in result[log].items():
            rates = (f"{figures['events_per_second'][name]:,.0f}" for name in ("ours", "bare"))
            rest = (figures[name] for name in ("ratio_to_bare_route", "p50_ms_at_half_rate", "p99_ms_at_half_rate"))
            table.add_row(log, length, *rates, *map(str, rest))
    Console().print(table)
    Console().print(verdict(BENCH_INGEST, result, "make bench-ingest"))


if __name__ == "__main__":
    main()
