"""`make loadtest`: viewers by Locust on a platform of its own, or on another one, and a verdict by the service levels.

    .venv/bin/python -m bench.loadtest [--users 40] [--seconds 60] [--ui] [--host URL --ingest URL]

Headless it writes var/loadtest/report.html. With --ui Locust's page is on http://127.0.0.1:8089 until Ctrl-C. On
another platform the key is MARQUEE_API_KEY; the viewers are new people there, who withdraw at the end. Exits with 1
when a level is broken.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.own_platform import KEY, OwnPlatform, wait_until
from bench.past import publish_past
from bench.service_levels import LOADTEST, broken, verdict

ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "var/loadtest"
UI_PORT = 8089
ARRIVING = 10
STOP_SECONDS = 10


def main() -> None:
    """Run the load and judge it."""
    options = _options()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    figures = OUTPUT / "figures.json"
    figures.unlink(missing_ok=True)
    with _target(options) as environment:
        environment |= {"LOADTEST_FIGURES": str(figures)}
        _run(_command(options, environment), environment)
    found: dict[str, Any] = json.loads(figures.read_text()) if figures.exists() else {}
    Console().print(verdict(LOADTEST, found, f"Verdict over {found.get('requests', 0)} requests"))
    sys.exit(1 if broken(LOADTEST, found) else 0)


def _run(command: list[str], environment: dict[str, str]) -> None:
    """Run Locust to its end; Ctrl-C is for Locust, which ends by it and writes what it has."""
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | environment) as locust:
        with suppress(KeyboardInterrupt):
            locust.wait()
        locust.wait()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=40, help="viewers at the same time")
    parser.add_argument("--seconds", type=int, default=60, help="for how long")
    parser.add_argument("--ui", action="store_true", help="Locust's page on loopback instead of a report")
    parser.add_argument("--host", help="serving API of another platform")
    parser.add_argument("--ingest", help="ingest API of that platform")
    options = parser.parse_args()
    if bool(options.host) != bool(options.ingest):
        parser.error("--host and --ingest go together: lists come from one, events go to the other")
    if options.host and not os.environ.get("MARQUEE_API_KEY"):
        parser.error("set MARQUEE_API_KEY to the key of that platform")
    return options


@contextmanager
def _target(options: argparse.Namespace) -> Iterator[dict[str, str]]:
    """The variables for the viewers; the platform, where it is our own, lives as long as the context."""
    if options.host:
        yield {"LOADTEST_HOST": options.host, "LOADTEST_INGEST": options.ingest}
        return
    with OwnPlatform(proxied=False) as platform:
        people = OUTPUT / "viewers.txt"
        people.write_text("\n".join(publish_past(platform.store)))
        wait_until(lambda: platform.call("serve", "GET", "/readyz")[1]["version"] == 1, "version 1 is served")
        edges = {"LOADTEST_HOST": platform.url("serve"), "LOADTEST_INGEST": platform.url("ingest")}
        yield {**edges, "MARQUEE_API_KEY": KEY, "LOADTEST_VIEWERS": str(people)}


def _command(options: argparse.Namespace, environment: dict[str, str]) -> list[str]:
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "bench/viewers.py"), "--host"]
    command += [environment["LOADTEST_HOST"], "--users", str(options.users), "--spawn-rate", str(ARRIVING)]
    command += ["--stop-timeout", str(STOP_SECONDS)]
    if options.ui:
        return [*command, "--web-host", "127.0.0.1", "--web-port", str(UI_PORT)]
    report = ["--html", str(OUTPUT / "report.html"), "--only-summary"]
    return [*command, "--headless", "--run-time", f"{options.seconds}s", *report]


if __name__ == "__main__":
    main()
