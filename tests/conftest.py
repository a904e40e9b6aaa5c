"""Real services for the tests: a Redis, a Kafka broker and a PostgreSQL, each started once and only when asked for."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.embedded import redis_command
from infra.online_store import OnlineStore, OnlineStoreError, connect


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """URL of an embedded Redis, started as `marquee up` starts it. Shared by the session: see `store`."""
    with tempfile.TemporaryDirectory(prefix="mq-") as folder:
        socket = Path(folder) / "redis.sock"
        server = subprocess.Popen(redis_command(socket), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_for_redis(f"unix://{socket}")
            yield f"unix://{socket}"
        finally:
            server.terminate()
            server.wait(10)


@pytest.fixture
def store(redis_url: str) -> Iterator[OnlineStore]:
    """A client of an empty Redis."""
    client = connect(redis_url)
    client.flushall()
    yield client
    client.close()


def unavailable(what: str, why: str) -> None:
    """Skip the test for want of a service; where MARQUEE_REQUIRE_SERVICES is set (CI), fail instead."""
    if os.environ.get("MARQUEE_REQUIRE_SERVICES"):
        pytest.fail(f"{what} is required here: {why}")
    pytest.skip(f"{what}: {why}")


def _wait_for_redis(url: str) -> None:
    client = connect(url)
    for _ in range(200):
        try:
            client.ping()
        except OnlineStoreError:
            time.sleep(0.05)
        else:
            client.close()
            return
    raise TimeoutError("the embedded Redis did not start")
