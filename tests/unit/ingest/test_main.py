"""The processes of ingest start with what they need, say what is missing, and stop in order."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.embedded import make_secrets
from ingest.main import erase

ROOT = Path(__file__).parents[3]


@pytest.fixture
def environment(tmp_path: Path, redis_url: str, store: Any) -> dict[str, str]:
    """What `marquee up` would give a process, on free ports."""
    make_secrets(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = {"MARQUEE_INGEST_PORT": one.getsockname()[1], "MARQUEE_LANDER_METRICS_PORT": other.getsockname()[1]}
    settings = {"MARQUEE_DATA": tmp_path, "MARQUEE_REDIS": redis_url, **ports}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MARQUEE_")}
    return {**clean, **{name: str(value) for name, value in settings.items()}}


@contextmanager
def running(what: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """An entry point in a process of its own, ended afterwards whatever happened."""
    command = [sys.executable, "-c", f"import ingest.main; ingest.main.{what}()"]
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(url: str) -> httpx.Response:
    deadline = time.monotonic() + 30
    while True:
        try:
            answer = httpx.get(url, trust_env=False)
        except httpx.TransportError:
            answer = httpx.Response(503)
        if answer.status_code == 200:
            return answer
        assert time.monotonic() < deadline, url
        time.sleep(0.05)


@pytest.mark.parametrize(("what", "missing"), [("serve_ingest", "MARQUEE_API_KEY"), ("land", "MARQUEE_SECRET")])
def test_a_missing_secret_is_named(environment: dict[str, str], tmp_path: Path, what: str, missing: str) -> None:
    secrets = tmp_path / "secrets.env"
    lines = secrets.read_text().splitlines(keepends=True)
    secrets.write_text("".join(line for line in lines if not line.startswith(missing)))
    with running(what, environment) as process:
        assert process.wait(30) == 1
        assert process.stderr is not None
        assert f"{missing} is not set" in process.stderr.read()


def test_without_the_log_the_api_says_so_and_ends(environment: dict[str, str]) -> None:
    """Whoever runs it starts it again."""
    with running("serve_ingest", {**environment, "MARQUEE_REDIS": "unix:///nowhere.sock"}) as process:
        assert process.wait(30) == 1
        assert process.stderr is not None
        assert "Cannot start" in process.stderr.read()


def test_a_person_is_forgotten_from_the_command_line(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The API opens the erasure; it stays open while the other stages do not run, and both processes stop in order."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("ingest.main.ERASURE_SECONDS", 0.0)
    with running("serve_ingest", environment) as api, running("land", environment) as lander:
        wait_for(f"http://127.0.0.1:{environment['MARQUEE_INGEST_PORT']}/readyz")
        metrics = wait_for(f"http://127.0.0.1:{environment['MARQUEE_LANDER_METRICS_PORT']}/metrics")
        assert "marquee_landed_rows" in metrics.text
        assert erase("u 1/2") == 1
        for process in (api, lander):
            process.send_signal(signal.SIGTERM)
        assert [process.wait(20) for process in (api, lander)] == [0, 0]
        assert api.stderr is not None
        assert "u 1" not in api.stderr.read()
    assert '"status": "open"' in capsys.readouterr().out


def test_without_the_api_nobody_can_be_forgotten(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert erase("u1") == 1
    assert "Is `marquee up` running?" in capsys.readouterr().err
