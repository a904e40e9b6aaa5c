"""The servers that are measured, each a process (or two) on uvicorn, and wrk in front of them."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import uvicorn

from bench.plain import BODY_BYTES
from infra.access import Access
from infra.key_file import KeyScope
from infra.keys import Caller
from infra.settings import load_settings
from serving.api import ServingApp
from serving.direct_http import DirectHttp
from serving.lineage import RecommendationIds
from serving.main import build_app

ROOT = Path(__file__).parents[1]
KEY = "bench"
FIRST_PORT = 18210
APPS = {
    "ours": "bench.serving_servers:ours",
    "bare": "bench.plain:bare",
    "plain": "bench.plain:plain",
    "without_auth": "bench.serving_servers:without_auth",
    "without_lineage": "bench.serving_servers:without_lineage",
}
SCRIPT = """
wrk.headers["Authorization"] = "Bearer {key}"
request = function()
  return wrk.format("GET", "/v1/users/u" .. math.random(0, {last}) .. "/recommendations?k=20{query}")
end
"""


class Throughput(NamedTuple):
    """What wrk saw.

    Attributes:
        rate: answers of status 200 a second.
        refused: other answers a second.
        p99_ms: 99th percentile of the time that an answer took. A closed loop hides queues: see `bench.open_loop`.
    """

    rate: float
    refused: float
    p99_ms: float


def ours() -> ServingApp:
    """The platform's own serving app, from the environment."""
    return build_app(load_settings())


def without_auth() -> ServingApp:
    """The same, with an open door."""
    Access.caller = lambda *_: Caller("bench", frozenset(KeyScope))  # type: ignore[method-assign]
    return ours()


def without_lineage() -> ServingApp:
    """The same, with one recommendation id for all."""
    RecommendationIds.sign_bytes = lambda *_: b"0" * 36  # type: ignore[method-assign]
    return ours()


@contextmanager
def running(
    names: Sequence[str], folder: Path, body_bytes: int = 0, workers: int = 1, most_waiting: int = 1024
) -> Iterator[dict[str, int]]:
    """Servers over the Redis in `folder`, ready; their names → ports.

    Args:
        names: of `APPS`.
        folder: the data folder.
        body_bytes: length of the answers of `bare`.
        workers: processes of each.
        most_waiting: the setting of that name.
    """
    environment = os.environ | {
        "MARQUEE_DATA": str(folder),
        "MARQUEE_API_KEY": KEY,
        "MARQUEE_SECRET": "bench",
        "MARQUEE_DOMAIN": str(ROOT / "domain.toml"),
        "MARQUEE_LOG_FORMAT": "json",
        "MARQUEE_SERVING_MOST_WAITING": str(most_waiting),
        BODY_BYTES: str(body_bytes),
    }
    ports = {name: FIRST_PORT + number for number, name in enumerate(names)}
    with ExitStack() as stack:
        for name, port in ports.items():
            command = [sys.executable, "-m", "bench.serving_servers", name, str(port), str(workers)]
            server = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
            stack.callback(_end, server)
        for port in ports.values():
            wait_until_served(port)
        yield ports


def wrk(port: int, folder: Path, users: int, seconds: int, *, query: str = "", connections: int = 64) -> Throughput:
    """One run of wrk, after a short one that warms up.

    Raises:
        RuntimeError: connections broke.
    """
    script = folder / "users.lua"
    script.write_text(SCRIPT.format(key=KEY, last=users - 1, query=query))
    command = ["wrk", "-t1", "--latency", "--timeout", "10s", "-s", str(script), f"http://127.0.0.1:{port}"]
    subprocess.run([*command, "-c16", "-d1s"], check=True, capture_output=True)
    done = subprocess.run([*command, f"-c{connections}", f"-d{seconds}s"], check=True, capture_output=True, text=True)
    return read_wrk(done.stdout)


def read_wrk(printed: str) -> Throughput:
    """What wrk printed.

    Raises:
        RuntimeError: connections broke.
    """
    total = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m)", printed)
    tail = re.search(r"99%\s+([\d.]+)(us|ms|s)", printed)
    if total is None or tail is None or re.search(r"Socket errors.*(read|write) [1-9]", printed):
        raise RuntimeError(f"wrk saw errors:\n{printed}")
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", printed)
    seconds = float(total[2]) * {"ms": 0.001, "s": 1, "m": 60}[total[3]]
    others = int(refused[1]) if refused else 0
    milliseconds = float(tail[1]) * {"us": 0.001, "ms": 1, "s": 1000}[tail[2]]
    return Throughput((int(total[1]) - others) / seconds, others / seconds, round(milliseconds, 3))


def request_of(user: int) -> bytes:
    """One request as bytes, as `bench.open_loop` takes it."""
    path = f"/v1/users/u{user}/recommendations?k=20"
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode()


def body_length(port: int) -> int:
    """How long an answer is."""
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/users/u1/recommendations?k=20", headers={"Authorization": f"Bearer {KEY}"}
    )
    with urllib.request.urlopen(asked, timeout=5) as answer:  # noqa: S310 — of this machine
        if answer.headers["marquee-tier"] != "personal":
            raise RuntimeError("the server does not serve the lists that were stored")
        return len(answer.read())


def wait_until_served(port: int) -> None:
    """Wait until a server answers, and with a version if it has one.

    Raises:
        TimeoutError: it did not within 30 s.
    """
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
                body = answer.read()
                if not body.startswith(b"{") or json.loads(body)["version"]:
                    return
        except urllib.error.HTTPError as error:
            if error.code == 404:  # the plain server has no such route
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise TimeoutError("the server did not come up")


def main() -> None:
    """Run one server, as `marquee serve` runs ours: name, port and number of processes are the arguments."""
    name, port, workers = sys.argv[1:]
    uvicorn.run(
        APPS[name],
        factory=True,
        port=int(port),
        workers=int(workers),
        loop="uvloop",
        http="httptools" if name in ("bare", "plain") else DirectHttp,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )


def _end(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    server.wait(10)


if __name__ == "__main__":
    main()
