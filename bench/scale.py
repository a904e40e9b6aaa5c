"""One process against Spark: seconds and memory at 1M, 10M and 50M interactions, and from which size Spark pays.

    .venv/bin/python -m bench.scale                     all sizes: half an hour, 6 GB of disk
    .venv/bin/python -m bench.scale --sizes 1M 10M      some; what the file says of the others stays

Each engine reads the same lake, fits ALS (64 factors, 3 rounds) and publishes everybody's list of 100, in a process of
its own, by turns. Spark has `local[*]`: the same cores, so this measures what Spark costs and how that changes with
size, not what a cluster gives. Memory is what the process and all below it hold together, seen ten times a second.
Writes bench/results/scale.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from bench.serving_store import running_redis
from bench.training import LARGE, SIZES
from bench.training_data import SECRET, Size, fill_lake, grant_everybody
from bench.training_steps import bundle_of
from infra.lake import Lake
from infra.online_store import connect
from ingest.events import ConsentProjection, read_domain
from training.engine import OneProcess
from training.publish import Lists
from training.recipe import Recipe
from training.snapshot import read_lake

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench/results/scale.json"
ENGINES = ("process", "spark")
ROUNDS = {"1M": 3, "10M": 1, "50M": 1}
RECIPE = Recipe("als", {"factors": 64, "iterations": 3})
LIST_LENGTH, TTL_SECONDS, PATIENT_SECONDS = 100, 86_400, 60
DRIVER_MEMORY = "10g"
LOOK_SECONDS = 0.1

Figures = dict[str, Any]


def main(arguments: Sequence[str]) -> None:
    """Measure each size and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = SIZES | LARGE
    parser.add_argument("--sizes", nargs="+", choices=every, default=list(every), help="default: all")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.step:
        sys.stdout.write(json.dumps(step(*asked.step)))
        return
    known = {one["name"]: one for one in json.loads(RESULT.read_text())["sizes"]} if RESULT.exists() else {}
    for name in asked.sizes:
        known[name] = measure(name, every[name])
        RESULT.write_text(json.dumps(report([known[each] for each in every if each in known]), indent=2) + "\n")
    Console().print_json(RESULT.read_text())


def measure(name: str, size: Size) -> Figures:
    """Both engines on one size, by turns."""
    console = Console(stderr=True)
    rounds: dict[str, list[Figures]] = {engine: [] for engine in ENGINES}
    with tempfile.TemporaryDirectory(prefix="mq-bench-") as folder, running_redis(Path(folder)) as store:
        console.log(f"{name}: landing {size.interactions:,} interactions")
        fill_lake(Lake(f"{folder}/lake"), size)
        grant_everybody(store, size)
        for number in range(ROUNDS[name]):
            for engine in ENGINES if number % 2 else ENGINES[::-1]:
                found = run(engine, folder)
                rounds[engine].append(found)
                console.log(f"{name}: {engine}: {found['seconds']:.0f} s, {found['peak_memory_mb']:,.0f} MB")
                for keys in iter(lambda: store.scan(match="list:*", count=10_000)[1], []):
                    store.unlink(*keys)
                store.delete("published-parts:1")
    return {"name": name, **size._asdict(), "at": datetime.now(UTC).isoformat(timespec="seconds"), "rounds": rounds}


def run(engine: str, folder: str) -> Figures:
    """One engine, in a process of its own; how long it took and what it held at most."""
    environment = {
        **os.environ,
        "MARQUEE_DATA": folder,
        "MARQUEE_REDIS": f"unix://{folder}/redis.sock",
        "MARQUEE_SECRET": SECRET,
    }
    command = [sys.executable, "-m", "bench.scale", "--step", engine, f"{folder}/lake", environment["MARQUEE_REDIS"]]
    begin, peak = time.monotonic(), 0
    with tempfile.TemporaryFile() as output:
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None:
                peak = max(peak, _held(process.pid))
                time.sleep(LOOK_SECONDS)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        output.seek(0)
        found: Figures = json.loads(output.read())
    return {"seconds": round(time.monotonic() - begin, 1), "peak_memory_mb": round(peak / 2**20), **found}


def step(engine: str, lake: str, redis: str) -> Figures:
    """Read, fit, publish; seconds of each, and the number of lists."""
    domain, store = read_domain(ROOT / "domain.toml"), connect(redis, PATIENT_SECONDS)
    consents, took = ConsentProjection(store, SECRET), dict[str, float]()
    begin = time.monotonic()

    def done(phase: str) -> None:
        nonlocal begin
        took[f"{phase}_seconds"] = round(time.monotonic() - begin, 1)
        begin = time.monotonic()

    interactions = read_lake(Lake(lake), consents, domain).histories()
    done("read")
    if engine == "process":
        model = OneProcess().fit(RECIPE, interactions)
        done("fit")
        lists = Lists(store, consents, LIST_LENGTH, TTL_SECONDS).write(1, bundle_of(model, interactions), interactions)
        done("publish")
    else:
        from training.spark.engine import SparkEngine
        from training.spark.session import open_session

        with open_session("local[*]", {"spark.driver.memory": DRIVER_MEMORY}) as session:
            done("start")
            spark = SparkEngine(
                session,
                Lake(lake),
                weights=domain.history_weights,
                length=domain.history.length,
                list_length=LIST_LENGTH,
                ttl_seconds=TTL_SECONDS,
            )
            model = spark.fit(RECIPE, interactions)
            done("fit")
            lists = spark.write(1, bundle_of(model, interactions), interactions)
            done("publish")
    return {**took, "lists": lists}


def report(sizes: Sequence[Figures]) -> Figures:
    """The file: medians, ratios, and what they say in words."""
    told = [_told(size) for size in sizes]
    return {
        "command": "python -m bench.scale",
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "in_words": in_words(told),
        "sizes": told,
    }


def _told(size: Mapping[str, Any]) -> Figures:
    middle = {
        engine: {
            key: statistics.median(one[key] for one in size["rounds"][engine]) for key in size["rounds"][engine][0]
        }
        for engine in ENGINES
    }
    one, spark = middle["process"], middle["spark"]
    ratios = {
        "seconds_ratio": round(spark["seconds"] / one["seconds"], 2),
        "memory_ratio": round(spark["peak_memory_mb"] / one["peak_memory_mb"], 2),
    }
    return {**size, **ratios, **middle}


def in_words(sizes: Sequence[Mapping[str, Any]]) -> str:
    """From which size Spark pays, as far as these sizes tell.

    >>> in_words([{"name": "1M", "seconds_ratio": 5.0}, {"name": "10M", "seconds_ratio": 2.0}])
    'On the same cores Spark pays at none of these sizes: it takes 5.0 times as long at 1M, 2.0 times as long at 10M.'
    >>> in_words([{"name": "1M", "seconds_ratio": 5.0}, {"name": "10M", "seconds_ratio": 0.9}])
    'On the same cores Spark pays from 10M on: it takes 5.0 times as long at 1M, 0.9 times as long at 10M.'
    """
    pays = [one["name"] for one in sizes if one["seconds_ratio"] < 1]
    takes = ", ".join(f"{one['seconds_ratio']:.1f} times as long at {one['name']}" for one in sizes)
    return (
        f"On the same cores Spark pays {f'from {pays[0]} on' if pays else 'at none of these sizes'}: it takes {takes}."
    )


def _held(pid: int) -> int:
    """Bytes that a process and all below it hold; what they share is counted once."""
    held = 0
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with process.oneshot():
                memory = process.memory_info()
                held += memory.rss - memory.shared
    except psutil.Error:
        pass
    return held


if __name__ == "__main__":
    main(sys.argv[1:])
