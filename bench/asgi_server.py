"""Which ASGI server carries the hot path: uvicorn (uvloop, httptools) or granian, one worker, wrk and Redis beside it.

    .venv/bin/pip install --target /tmp/granian granian
    PYTHONPATH=/tmp/granian .venv/bin/python -m bench.asgi_server

Needs wrk on PATH. Writes bench/results/asgi_server.json; a server that is not installed is left out.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.serving_store import fill, running_redis
from infra.settings import load_settings
from serving.api import ServingApp
from serving.main import build_app

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench/results/asgi_server.json"
PORT = 18099
KEY = "bench"
USERS, ITEMS, LENGTH, ROUNDS = 5000, 2000, 100, 3
WRK = ["wrk", "-t1", "-c64", "-d5s", "--latency"]
SERVERS = {
    "uvicorn": ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"],
    "granian": [
        "--interface",
        "asgi",
        "--loop",
        "uvloop",
        "--workers",
        "1",
        "--no-access-log",
        "--log-level",
        "warning",
    ],
}
SCRIPT = """
wrk.headers["Authorization"] = "Bearer {key}"
request = function()
  return wrk.format("GET", "/v1/users/u" .. math.random(0, {last}) .. "/recommendations?k=20")
end
"""


def app() -> ServingApp:
    """The app that is measured: the platform's own, from the environment."""
    return build_app(load_settings())


def main() -> None:
    """Measure each server by turns, and write what came out."""
    load = os.getloadavg()[0]
    servers = [name for name in SERVERS if find_spec(name)]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
    with tempfile.TemporaryDirectory(prefix="mq-bench-") as folder, running_redis(Path(folder)) as store:
        fill(store, USERS, ITEMS, LENGTH)
        script = Path(folder) / "users.lua"
        script.write_text(SCRIPT.format(key=KEY, last=USERS - 1))
        for _ in range(ROUNDS):
            for name in servers:
                with running_server(name, Path(folder)):
                    runs[name].append(measure(script))
    medians = {name: {key: statistics.median(run[key] for run in of) for key in of[0]} for name, of in runs.items()}
    result: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "command": " ".join(WRK)}
    result |= {"cores": os.cpu_count(), "load_average_before": load, "load_average_after": os.getloadavg()[0]}
    result |= {"users": USERS, "items": ITEMS, "k": 20, "median": medians, "runs": runs}
    if len(medians) == len(SERVERS):
        result["granian_to_uvicorn"] = {
            key: round(medians["granian"][key] / medians["uvicorn"][key], 3) for key in medians["uvicorn"]
        }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    Console().print_json(data=result)


def measure(script: Path) -> dict[str, float]:
    """One run of wrk, after a short one that warms up: requests a second, p99 in milliseconds."""
    command = [*WRK, "-s", str(script), f"http://127.0.0.1:{PORT}"]
    subprocess.run([word.replace("-d5s", "-d1s") for word in command], check=True, capture_output=True)
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in printed or "Socket errors" in printed:
        raise RuntimeError(f"wrk saw errors:\n{printed}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    tail = re.search(r"99%\s+([\d.]+)(us|ms|s)", printed)
    assert rate
    assert tail
    return {
        "requests_per_second": float(rate[1]),
        "p99_ms": round(float(tail[1]) * {"us": 0.001, "ms": 1, "s": 1000}[tail[2]], 3),
    }


@contextmanager
def running_server(name: str, folder: Path) -> Iterator[None]:
    """The app on one server, ready and with the version taken over."""
    environment = os.environ | {
        "MARQUEE_DATA": str(folder),
        "MARQUEE_API_KEY": KEY,
        "MARQUEE_SECRET": "bench",
        "MARQUEE_DOMAIN": str(ROOT / "domain.toml"),
    }
    address = ["--host", "127.0.0.1", "--port", str(PORT), "--factory", "bench.asgi_server:app"]
    server = subprocess.Popen(
        [sys.executable, "-m", name, *SERVERS[name], *address], env=environment, cwd=ROOT, stdout=subprocess.DEVNULL
    )
    try:
        wait_until_served()
        yield
    finally:
        server.terminate()
        server.wait(10)


def wait_until_served() -> None:
    """Wait until the server says that it serves version 1.

    Raises:
        TimeoutError: it did not within 20 s.
    """
    for _ in range(200):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz", timeout=1) as answer:
                if json.load(answer)["version"] == 1:
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise TimeoutError("the server did not come up")


if __name__ == "__main__":
    main()
