"""Failure drills: break something on a platform of its own while viewers ask, and judge by the service levels.

    .venv/bin/python -m bench.drill [NAME …]

Prints of each what was injected, what viewers saw, what metric and log said, and the verdict. Writes
bench/results/drills.json; drills that are not run stay as they were. Exits with 1 when a level is broken.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.table import Table

from bench import fault_drills, load_drills, rolling_drill, withdrawal_drill
from bench.injections import FAULTS
from bench.observing import Report
from bench.service_levels import FAULT, OVERLOAD, PUBLISH, ROLLING, WITHDRAWAL, Level, broken, verdict

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench/results/drills.json"

DRILLS: dict[str, tuple[Callable[[], Report], Sequence[Level]]] = {
    **{name: (lambda name=name: run_fault(name), FAULT) for name in FAULTS},  # type: ignore[misc]
    "publish": (load_drills.publish_drill, PUBLISH),
    "rolling-restart": (rolling_drill.rolling_drill, ROLLING),
    "overload": (load_drills.overload_drill, OVERLOAD),
    "withdrawal": (withdrawal_drill.withdrawal_drill, WITHDRAWAL),
}


def run_fault(name: str, size: fault_drills.Size = fault_drills.Size()) -> Report:  # noqa: B008
    """One fault on a platform of its own."""
    with fault_drills.platform_of(size) as platform:
        return fault_drills.drill(name, platform, size)


def main() -> None:
    """Run the drills that are named, or all, and write what they showed."""
    names = sys.argv[1:] or list(DRILLS)
    if unknown := sorted(set(names) - DRILLS.keys()):
        sys.exit(f"No drill is called {', '.join(unknown)}. There are: {', '.join(DRILLS)}")
    console, ill = Console(), []
    for name in names:
        run, levels = DRILLS[name]
        report = run()
        console.print(shown(report, levels))
        write(report, levels)
        ill += [name] if broken(levels, report.figures) else []
    console.print(f"[red]Broken: {', '.join(ill)}[/red]" if ill else f"{len(names)} drills, every service level holds.")
    sys.exit(1 if ill else 0)


def shown(report: Report, levels: Sequence[Level]) -> Group:
    """A report, to read."""
    table = Table("", "answers", "by tier", "by status", "p50 ms", "p99 ms", "worst ms")
    for phase in report.phases:
        found = phase.figures
        tiers, statuses = (_counted(found[key]) for key in ("tiers", "statuses"))
        times = (f"{found[key]:.1f}" for key in ("p50_ms", "p99_ms", "worst_ms"))
        table.add_row(phase.name, str(found["answers"]), tiers, statuses, *times)
    head = f"\n[bold]{report.name}[/bold]  injected: {report.injected}"
    said = [f"  {line[:200]}" for line in report.said]
    return Group(head, table, *said, verdict(levels, report.figures, "Verdict"))


def write(report: Report, levels: Sequence[Level]) -> None:
    """Put a report into the result file."""
    results: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    results[report.name] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"python -m bench.drill {report.name}",
        "cores": os.cpu_count(),
        "injected": report.injected,
        **report.figures,
        "broken": broken(levels, report.figures),
        "phases": [phase.figures for phase in report.phases],
        "said": report.said,
    }
    RESULT.write_text(json.dumps(results, indent=2) + "\n")


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda pair: -pair[1]))


if __name__ == "__main__":
    main()
