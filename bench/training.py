"""How fast, and in how much memory, training works at 1M, 10M and 50M interactions.

    .venv/bin/python -m bench.training                 1M and 10M
    .venv/bin/python -m bench.training --with-50m      50M too; takes 6 GB of disk

Each size has a lake and a Redis of its own, and each measurement a process of its own. Writes
bench/results/training.json; what it says of a size that is not measured this time stays.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from bench.serving_store import running_redis
from bench.training_data import Size, fill_lake, grant_everybody
from infra.lake import Lake

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench/results/training.json"
STEPS = ("read", "memory", "fit", "publish")
SIZES = {"1M": Size(1_000_000, 20_000, 10_000), "10M": Size(10_000_000, 138_000, 27_000)}
LARGE = {"50M": Size(50_000_000, 500_000, 50_000)}
ROUNDS = {"1M": 5, "10M": 3, "50M": 1}
ITERATIONS = {"1M": 15, "10M": 5, "50M": 2}
REPORTED = "10M"
"""The size whose figures stand for the run."""


def main(arguments: Sequence[str]) -> None:
    """Measure each size and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--with-50m", action="store_true", help="measure 50M interactions too")
    sizes = SIZES | LARGE if parser.parse_args(arguments).with_50m else SIZES
    known = {one["name"]: one for one in _read().get("sizes", [])}
    for name, size in sizes.items():
        known[name] = measure(name, size)
        _write([known[each] for each in SIZES | LARGE if each in known])
    Console().print_json(data=_read())


def measure(name: str, size: Size) -> dict[str, Any]:
    """All figures of one size."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="mq-bench-") as folder, running_redis(Path(folder)) as store:
        lake = Path(folder) / "lake"
        fill_lake(Lake(str(lake)), size)
        grant_everybody(store, size)
        address = [str(lake), f"unix://{folder}/redis.sock", str(ROUNDS[name]), str(ITERATIONS[name])]
        found = {step: _step(step, address) for step in track(STEPS, name, console=Console(stderr=True))}
    when = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "load_average_before": load}
    quoted = figures(found, ITERATIONS[name])
    return {"name": name, **when, "interactions": size.interactions, **quoted, "measured": found}


def figures(found: dict[str, dict[str, Any]], iterations: int) -> dict[str, Any]:
    """What is quoted, of what was measured.

    Args:
        found: what each step measured.
        iterations: rounds of each fit.
    """
    memory, fit, publish = found["memory"], found["fit"], found["publish"]
    seconds = statistics.median(found["read"]["seconds"])
    model = memory["matrix_bytes"] + memory["factor_bytes"]
    return {
        "rows_per_second": round(memory["rows"] / seconds),
        "fit_ratio_to_library": _ratio(fit["seconds"], fit["library_seconds"]),
        "publish_ratio_to_recommend": _ratio(publish["recommend_seconds"], publish["seconds"]),
        "peak_memory_ratio": round(memory["peak_bytes"] / model, 2),
        "peak_memory_ratio_to_matrix": round(
            (memory["peak_bytes"] - memory["factor_bytes"]) / memory["matrix_bytes"], 2
        ),
        "lists_per_second": round(publish["lists"] / statistics.median(publish["seconds"])),
        "read_seconds": round(seconds, 2),
        "fit_seconds_an_iteration": round(statistics.median(fit["seconds"]) / iterations, 3),
    }


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over the rounds of ours to theirs."""
    return round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 3)


def _step(step: str, address: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.training_steps", step, *address]
    printed = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(printed)
    return found


def _read() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    return found


def _write(sizes: list[dict[str, Any]]) -> None:
    quoted = ("rows_per_second", "fit_ratio_to_library", "publish_ratio_to_recommend", "peak_memory_ratio")
    reported = next((one for one in sizes if one["name"] == REPORTED), sizes[-1])
    whole = {
        "at": reported["at"],
        "command": "python -m bench.training",
        "cores": os.cpu_count(),
        "of": reported["name"],
    }
    whole |= {key: reported[key] for key in quoted} | {"sizes": sizes}
    RESULT.write_text(json.dumps(whole, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
