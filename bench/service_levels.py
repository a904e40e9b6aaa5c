"""The service levels, as data: docs/service-levels.md quotes them, and the load kit judges by them.

python -m bench.service_levels bench/results/serving.json     judge the figures of `make bench-serving`
"""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table


class Level(NamedTuple):
    """What is promised of one figure.

    Attributes:
        key: name of the figure in result files.
        text: what it is.
        bound: the worst value that is still well.
        at_least: True: the figure has to reach the bound; False: it must not exceed it.
        unit: of the bound.
    """

    key: str
    text: str
    bound: float
    at_least: bool = False
    unit: str = ""

    def holds(self, value: float | None) -> bool:
        """Whether a figure is well; one that was not measured is not."""
        if value is None:
            return False
        return value >= self.bound if self.at_least else value <= self.bound

    @property
    def promise(self) -> str:
        """The bound in words, as the document has it.

        >>> Level("p99_ms", "…", 100, unit="ms").promise
        'at most 100 ms'
        """
        return f"{'at least' if self.at_least else 'at most'} {self.bound:g} {self.unit}".rstrip()


FRESHNESS = (
    Level("freshness_p50_ms", "from an event's 202 to the list that knows of it, median", 150, unit="ms"),
    Level("freshness_p99_ms", "the same, 99 of 100 events", 1000, unit="ms"),
)

LOADTEST = (
    Level("availability_percent", "requests answered as they should be, events included", 99.9, True, "%"),
    Level("list_p99_ms", "time of a list, 99 of 100 requests", 100, unit="ms"),
    Level("home_p99_ms", "time of a home page, 99 of 100 requests", 250, unit="ms"),
    *FRESHNESS,
)

BENCH_SERVING = (
    Level("ratio_to_bare_asgi", "lists/s of one worker, of what a bare ASGI app answers", 0.5, True),
    Level("ratio_to_plain", "lists/s of one worker, of what a FastAPI route with one GET answers", 5, True),
    Level("p99_ratio_to_bare_at_half_rate", "p99 at half the maximum rate, of the bare app's there", 3),
    Level("bytes_per_user", "what Redis takes for a list of 100, all told", 620, unit="bytes"),
    *FRESHNESS,
)

BENCH_INGEST = (
    Level(
        "ratio_to_bare_route", "events/s of one process, of what a route without validation or gate takes", 0.6, True
    ),
    Level("events_per_second", "events/s of one process in batches of 50, durable when answered", 10_000, True),
    Level("p99_ms_at_half_rate", "time of a batch of 50 at half of that rate, 99 of 100", 100, unit="ms"),
)

FAULT = (
    Level("failed", "viewers' requests answered with 5xx or not at all while a fault lasts, and after it", 0),
    Level("fault_p99_ms", "time of a list while the fault lasts, 99 of 100 requests", 100, unit="ms"),
    Level("recovery_seconds", "from the end of the fault until lists and new events are as before", 10, unit="s"),
    Level("unready", "readiness probes not answered with 200 meanwhile", 0),
    Level("events_lost", "events answered with anything but 202 or 503 meanwhile", 0),
    Level("untold", "of metric and log, how many do not say what happened", 0),
)

PUBLISH = (
    Level("failed", "viewers' requests answered with 5xx or not at all while a version is published", 0),
    Level("mixed", "answers that hold anything of another version than they name", 0),
    Level("publish_p99_ms", "time of a list meanwhile, 99 of 100 requests", 100, unit="ms"),
    Level("rollback_seconds", "from the call until the last answer of the version that was left", 1, unit="s"),
)

ROLLING = (
    Level("failed", "requests answered with 5xx or not at all while workers are replaced", 0),
    Level("mixed", "answers that hold anything of another version than they name", 0),
    Level("rolling_p99_ms", "time of a list meanwhile, 99 of 100 requests", 100, unit="ms"),
)

OVERLOAD = (
    Level("goodput_ratio", "lists/s with five times as many callers as may wait, of the usual maximum", 0.9, True),
    Level("wrong", "answers under overload that are neither 200 nor 503 with Retry-After", 0),
    Level("recovery_seconds", "from the end of the overload until lists are as before", 10, unit="s"),
)

WITHDRAWAL = (
    Level("gone_worst_ms", "from a withdrawal's 200 until list, live list and history are gone", 1000, unit="ms"),
    Level("brought_back", "people who withdrew and have any of them after the next publish", 0),
    Level("failed", "viewers' requests answered with 5xx or not at all meanwhile", 0),
)

GROUPS = {
    "make loadtest": LOADTEST,
    "make bench-serving": BENCH_SERVING,
    "make bench-ingest": BENCH_INGEST,
    "make drill, every fault": FAULT,
    "make drill, publish": PUBLISH,
    "make drill, rolling-restart": ROLLING,
    "make drill, overload": OVERLOAD,
    "make drill, withdrawal": WITHDRAWAL,
}


def broken(levels: Iterable[Level], figures: Mapping[str, Any]) -> list[str]:
    """Keys of the levels that the figures break, or that have no figure."""
    return [level.key for level in levels if not level.holds(figures.get(level.key))]


def verdict(levels: Iterable[Level], figures: Mapping[str, Any], title: str) -> Table:
    """Levels beside figures."""
    table = Table("service level", "promised", "found", "", title=title, title_justify="left")
    for level in levels:
        value = figures.get(level.key)
        found = "not measured" if value is None else f"{value:,.6g} {level.unit}".rstrip()
        mark = "[green]holds[/green]" if level.holds(value) else "[red]broken[/red]"
        table.add_row(level.text, level.promise, found, mark)
    return table


def main() -> None:
    """Judge a result file; exits with 1 when a level is broken."""
    figures = json.loads(Path(sys.argv[1]).read_text())
    Console().print(verdict(BENCH_SERVING, figures, f"Verdict over {sys.argv[1]}"))
    sys.exit(1 if broken(BENCH_SERVING, figures) else 0)


if __name__ == "__main__":
    main()
