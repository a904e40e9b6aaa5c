"""How many lists a second one, two and three serving workers answer, by themselves and behind HAProxy.

    .venv/bin/python -m bench.workers [--seconds 4] [--rounds 3]

Clients (wrk), HAProxy, workers and Redis share this machine's cores, so this shows what a worker more costs and gives
where cores are short, and the price of the balancer; not how workers scale on machines of their own. Everything is
measured by turns, and the median is quoted. Needs wrk and haproxy on PATH. Writes bench/results/workers.json.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from bench.editions import put, user
from bench.load_drills import wait_for_version
from bench.own_platform import ROOT, OwnPlatform, wait_until
from bench.rolling_drill import CONFIGURATION
from bench.serving_servers import wrk
from workshop.fresh_platform import free_ports

RESULT = ROOT / "bench/results/workers.json"
USERS = 5000
CONNECTIONS = 64
MOST_WORKERS = 3


def main(arguments: Sequence[str]) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args(arguments)
    found = measure(asked.seconds, asked.rounds)
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    Console().print_json(data=found)


def measure(seconds: int, rounds: int) -> dict[str, Any]:
    """Lists a second, by number of workers; median of the rounds."""
    load = os.getloadavg()[0]
    rates: dict[str, list[float]] = {}
    ports = free_ports(MOST_WORKERS - 1)
    with OwnPlatform(("serve",), proxied=False) as platform:
        put(platform.store, 1, [user(number) for number in range(USERS)])
        wait_for_version(platform, 1)
        for number, port in enumerate(ports):
            platform.start_another(f"serve-{number + 2}", "serve", port)
            wait_until(lambda port=port: platform.ready_version(port) == 1, "another worker is up")  # type: ignore[misc]
        workers = [platform.ports["SERVING"], *ports]
        fronts = [_front(platform, workers[:count]) for count in range(1, MOST_WORKERS + 1)]
        for _ in track(range(rounds), "workers", console=Console(stderr=True)):
            for count in range(1, MOST_WORKERS + 1):
                rates.setdefault(f"{count} direct", []).append(_rate(platform, workers[:count], seconds))
                rates.setdefault(f"{count} behind haproxy", []).append(_rate(platform, [fronts[count - 1]], seconds))
    middle = {name: round(statistics.median(each)) for name, each in rates.items()}
    one = middle["1 direct"]
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python -m bench.workers",
        "cores": os.cpu_count(),
        "load_average_before": load,
        "lists_per_second": middle,
        "ratio_to_one_worker": {name: round(rate / one, 2) for name, rate in middle.items()},
        "rounds": rates,
    }


def _front(platform: OwnPlatform, workers: Sequence[int]) -> int:
    """Start an HAProxy before these workers; its port."""
    [port] = free_ports(1)
    head, _, _ = CONFIGURATION.read_text().partition("    server serving-1")
    servers = (f"    server serving-{number} 127.0.0.1:{worker}\n" for number, worker in enumerate(workers, 1))
    configuration = Path(platform.folder) / f"haproxy-{len(workers)}.cfg"
    configuration.write_text(head + "".join(servers))
    command = ["haproxy", "-db", "-f", str(configuration)]
    platform.start_program(f"haproxy-{len(workers)}", command, {"FRONT": f"127.0.0.1:{port}"})
    wait_until(lambda: platform.ready_version(port) == 1, "haproxy answers")
    return port


def _rate(platform: OwnPlatform, ports: Sequence[int], seconds: int) -> float:
    """Lists a second of all these together, each asked by a client of its own."""
    each = CONNECTIONS // len(ports)
    with ThreadPoolExecutor(len(ports)) as beside:
        asked = [beside.submit(wrk, port, platform.folder, USERS, connections=each, seconds=seconds) for port in ports]
        return sum(one.result().rate for one in asked)


if __name__ == "__main__":
    main(sys.argv[1:])
