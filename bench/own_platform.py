"""A small platform for drills and load tests: the real processes on free ports, in a folder that goes with them.

The processes reach Redis, and the event log in it, through a proxy each, so that both can be cut off separately.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bench.faults import Proxy
from infra.embedded import redis_command
from infra.online_store import OnlineStore, OnlineStoreError, connect
from infra.supervisor import end_with_parent
from ingest.events import ConsentProjection
from workshop.fresh_platform import free_ports

ROOT = Path(__file__).parents[1]
KEY = "bench"
"""The same as of `bench.serving_servers`, so that its client works here too."""

SECRET = "of a platform that lives for minutes"  # noqa: S105
PORTS = ("SERVING", "INGEST", "OPERATOR", "LANDER_METRICS", "NEARLINE_METRICS", "TRAINER_METRICS")
EDGES = {
    "serve": "SERVING",
    "ingest": "INGEST",
    "operate": "OPERATOR",
    "land": "LANDER_METRICS",
    "nearline": "NEARLINE_METRICS",
    "train": "TRAINER_METRICS",
}
APIS = ("ingest", "serve", "operate")
STAGES = ("ingest", "nearline", "serve")
READY_SECONDS = 60.0
STOP_SECONDS = 15.0
STORE_TIMEOUT_SECONDS = 10.0


class PlatformFailed(Exception):
    """It did not start; the message ends with what the process printed last."""


class OwnPlatform:
    """Redis and the processes that are asked for; a context manager.

    Args:
        stages: which processes run: of ingest, land, nearline, serve, operate.
        proxied: False: no proxies, where a load would measure them.
        settings: further settings of the processes, by their names without MARQUEE_.
        within: where its folder is made; None: where the system keeps what is temporary.
    """

    def __init__(
        self,
        stages: tuple[str, ...] = STAGES,
        *,
        proxied: bool = True,
        settings: Mapping[str, str] = MappingProxyType({}),
        within: Path | None = None,
    ) -> None:
        self._stages = stages
        self._within = within
        self._proxied = proxied
        self._settings = settings
        self._exit = ExitStack()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))

    def __enter__(self) -> "OwnPlatform":
        with self._exit:
            self._start()
            self._exit = self._exit.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def _start(self) -> None:
        self.folder = Path(self._exit.enter_context(tempfile.TemporaryDirectory(prefix="mq-own-", dir=self._within)))
        self._exit.callback(self._stop_all)
        self.start_redis()
        self.store = connect(self.redis_url, STORE_TIMEOUT_SECONDS)
        self._exit.callback(self.store.close)
        self.store_proxy, self.log_proxy = (self._exit.enter_context(Proxy(self.redis_url)) for _ in range(2))
        for stage in self._stages:
            self.start(stage)
        for stage in self._stages:
            self.wait_until_up(stage)

    @property
    def redis_url(self) -> str:
        """Redis itself, beside the proxies."""
        return f"unix://{self.folder / 'redis.sock'}"

    @property
    def projection(self) -> ConsentProjection:
        """What people allow."""
        return ConsentProjection(self.store, SECRET)

    @property
    def environment(self) -> dict[str, str]:
        """The variables of its processes, and nothing of whoever started the drill."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MARQUEE_")}
        settings = {"DATA": str(self.folder), "DOMAIN": str(ROOT / "domain.toml"), "API_KEY": KEY, "SECRET": SECRET}
        settings |= {f"{name}_PORT": str(port) for name, port in self.ports.items()} | {"LOG_FORMAT": "json"}
        if self._proxied:
            settings |= {"REDIS": f"redis://127.0.0.1:{self.store_proxy.port}"}
            settings |= {"EVENT_LOG": f"redis://127.0.0.1:{self.log_proxy.port}"}
        return clean | {f"MARQUEE_{name}": value for name, value in {**settings, **self._settings}.items()}

    def url(self, stage: str) -> str:
        """Where a process listens."""
        return f"http://127.0.0.1:{self.ports[EDGES[stage]]}"

    # --- its processes ---

    def start_redis(self) -> None:
        """Start Redis, on the files that it left, and wait until it answers."""
        self._spawn("redis", redis_command(self.folder / "redis.sock"), dict(os.environ))
        with connect(self.redis_url, 1.0) as store:
            wait_until(lambda: _answers(store), "Redis answers")

    def start(self, stage: str, *options: str, **settings: str) -> None:
        """Start a process, with options and settings of its own."""
        own = {f"MARQUEE_{name}": value for name, value in settings.items()}
        self._spawn(stage, [sys.executable, "-m", "marquee", stage, *options], self.environment | own)

    def start_another(self, name: str, stage: str, port: int) -> None:
        """Start one more process of a stage that has an API, under a name and on a port of its own."""
        own = {f"MARQUEE_{EDGES[stage]}_PORT": str(port)}
        self._spawn(name, [sys.executable, "-m", "marquee", stage], self.environment | own)

    def start_program(self, name: str, command: list[str], variables: Mapping[str, str]) -> None:
        """Start a program that is not ours; it ends with the platform."""
        self._spawn(name, command, {**os.environ, **variables})

    def wait_until_up(self, stage: str) -> None:
        """Wait until it answers.

        Raises:
            PlatformFailed: it ended, or took longer than a minute.
        """

        def up() -> bool:
            if self._processes[stage].poll() is not None:
                raise PlatformFailed(f"{stage} ended: {self.printed(stage)[-2000:]}")
            return self.status(stage, "/readyz" if stage in APIS else "/metrics") == 200

        wait_until(up, f"{stage} is up", READY_SECONDS)

    def stop(self, stage: str, number: int = signal.SIGTERM) -> None:
        """Send a process a signal that ends it, and wait for its end."""
        process = self._processes.pop(stage)
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def pid(self, stage: str) -> int:
        """Of a process that runs."""
        return self._processes[stage].pid

    # --- what it says ---

    def status(self, stage: str, path: str, timeout: float = 2.0) -> int:
        """Status of a GET without a key; 0 where nobody answers."""
        try:
            with urllib.request.urlopen(self.url(stage) + path, timeout=timeout) as answer:  # noqa: S310
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def call(self, stage: str, method: str, path: str, body: Any = None, timeout: float = 10.0) -> tuple[int, Any]:
        """Status and JSON of a call with the key; (0, None) where nobody answers."""
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url(stage) + path, content, headers, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")
        except OSError:
            return 0, None

    def ready_version(self, port: int) -> int | None:
        """The version that the serving worker on a port has; None where none answers, or it has none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                found: int | None = json.loads(answer.read())["version"]
                return found
        except (OSError, ValueError):
            return None

    def metrics(self, stage: str = "serve") -> dict[str, float]:
        """Name with labels → value, of what a process shows."""
        with urllib.request.urlopen(f"{self.url(stage)}/metrics", timeout=5) as answer:  # noqa: S310
            lines = answer.read().decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    def printed(self, stage: str) -> str:
        """What a process has printed so far."""
        return (self.folder / f"{stage}.out").read_text(errors="replace")

    def _spawn(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            self._processes[name] = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone, and we stop them in order.
                preexec_fn=end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
            )

    def _stop_all(self) -> None:
        for name in sorted(self._processes, key=lambda name: name == "redis"):
            self._processes[name].send_signal(signal.SIGCONT)
            self.stop(name)


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: it did not in time.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s in vain until {what}")
        time.sleep(0.02)


def _answers(store: OnlineStore) -> bool:
    try:
        return bool(store.ping())
    except OnlineStoreError:
        return False
