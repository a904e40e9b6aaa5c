"""What `bench.ingest` measures: a broker, `marquee ingest` before it, and bare routes that ask nothing of events."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import psutil
import uvicorn
from anyio import to_thread
from fastapi import FastAPI, Request, Response

from bench.own_platform import OwnPlatform, free_ports, wait_until
from infra.event_log import open_event_log
from infra.event_log.kafka import KafkaEventLog
from infra.settings import load_settings

ROOT = Path(__file__).parents[1]
KAFKA = ROOT / "infra/deploy/kafka/kafka.sh"
TOPIC, BARE_TOPIC = "bench.events", "bench.bare-events"
PATHS = {"ours": "/v1/events", "bare": "/v1/events", "bare_by_our_log": "/v1/events-by-our-log"}
SEND_SECONDS = 10.0
FROM_REDIS = "own"
"""Instead of a broker's URL: the log is in the platform's own Redis."""

Records = Sequence[tuple[bytes, bytes]]
Append = Callable[[Records], object]


class Server(NamedTuple):
    """One of those that take events.

    Attributes:
        port: on loopback.
        pid: of its process.
    """

    port: int
    pid: int


class Servers(NamedTuple):
    """Both of them, on one log.

    Attributes:
        ours: `marquee ingest`.
        bare: the bare route.
        log_pid: process of the broker or Redis that keeps the log.
    """

    ours: Server
    bare: Server
    log_pid: int
    platform: OwnPlatform


@contextmanager
def broker(folder: Path) -> Iterator[tuple[str, int]]:
    """URL and process of a broker of one node, its files in `folder`."""
    port, controller_port = free_ports(2)
    ports = {"KAFKA_PORT": str(port), "KAFKA_CONTROLLER_PORT": str(controller_port)}
    environment = {**os.environ, **ports, "KAFKA_DATA": str(folder)}
    subprocess.run([KAFKA, "start"], env=environment, check=True, stdout=subprocess.DEVNULL)
    try:
        yield f"kafka://127.0.0.1:{port}", int((folder / "pid").read_text())
    finally:
        subprocess.run([KAFKA, "stop"], env=environment, check=True)


@contextmanager
def running(log_url: str, log_pid: int = 0) -> Iterator[Servers]:
    """A platform of its own that keeps its events there, and the bare route on the same log with a topic of its own.

    Args:
        log_url: a broker's, or `FROM_REDIS`.
        log_pid: the broker's process.
    """
    chosen = {} if log_url == FROM_REDIS else {"EVENT_LOG": log_url, "TOPIC": TOPIC}
    with OwnPlatform(("ingest",), proxied=False, settings=chosen) as platform:
        [port] = free_ports(1)
        environment = {**platform.environment, "MARQUEE_TOPIC": BARE_TOPIC}
        command = [sys.executable, "-m", "bench.ingest_servers", str(port)]
        process = subprocess.Popen(command, env=environment, cwd=ROOT)
        try:
            bare = Server(port, process.pid)
            wait_until(lambda: _listens(port), "the bare route is up")
            ours = Server(platform.ports["INGEST"], platform.pid("ingest"))
            yield Servers(ours, bare, log_pid or platform.pid("redis"), platform)
        finally:
            process.terminate()
            process.wait(10)


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processors so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def bare() -> FastAPI:
    """Two FastAPI routes that parse the body and append it: no key, no validation, no gate, one word for an answer.

    On Kafka the first sends with the client's own `send`, as anybody would; the second, and both on Redis, with the
    platform's log.
    """
    settings = load_settings()
    log = open_event_log(settings.event_log_url, settings.topic, settings.partitions)
    send = _sending(settings.topic, log._producer) if isinstance(log, KafkaEventLog) else log.append
    app = FastAPI()

    @app.post(PATHS["bare"])
    async def post_events(request: Request) -> Response:
        return await _answered(request, send)

    @app.post(PATHS["bare_by_our_log"])
    async def post_events_by_our_log(request: Request) -> Response:
        return await _answered(request, log.append)

    return app


async def _answered(request: Request, append: Append) -> Response:
    events = orjson.loads(await request.body())["events"]
    await to_thread.run_sync(append, [(each["user_id"].encode(), orjson.dumps(each)) for each in events])
    return Response(b'"accepted"', 202, media_type="application/json")


def _sending(topic: str, producer: Any) -> Append:
    def append(records: Records) -> None:
        sent = [producer.send(topic, key=key, value=value) for key, value in records]
        for each in sent:
            each.get(timeout=SEND_SECONDS)

    return append


def main() -> None:
    """Run the bare route as `ingest.main` runs ours: the port is the argument."""
    uvicorn.run(
        bare,
        factory=True,
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        server_header=False,
    )


def _listens(port: int) -> bool:
    with socket.socket() as knocking:
        return knocking.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    main()
