"""The processes of ingest start with what they need, say what is missing, and stop in order."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sql

from bench.own_platform import free_ports
from infra.database import Ledger
from infra.embedded import make_secrets
from infra.event_log import open_event_log
from infra.key_file import KeyFile
from infra.online_store import connect
from infra.settings import load_settings
from ingest.consent import Consents
from ingest.gate import Passage
from ingest.main import erase, list_dead_letters, replay_dead_letters, show_dead_letter, verify_ledger
from workshop.main import load_export

ROOT = Path(__file__).parents[3]


@pytest.fixture
def environment(tmp_path: Path, redis_url: str, store: Any) -> dict[str, str]:
    """What `marquee up` would give a process, on free ports."""
    make_secrets(tmp_path, KeyFile(tmp_path / "keys.json"))
    ports = dict(zip(("MARQUEE_INGEST_PORT", "MARQUEE_LANDER_METRICS_PORT"), free_ports(2), strict=True))
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


@pytest.mark.parametrize(
    ("what", "missing", "said"),
    [
        ("serve_ingest", "MARQUEE_API_KEY", "There are no keys: make one with `marquee keys create`"),
        ("land", "MARQUEE_SECRET", "MARQUEE_SECRET is not set"),
    ],
)
def test_a_missing_secret_is_named(
    environment: dict[str, str], tmp_path: Path, what: str, missing: str, said: str
) -> None:
    (tmp_path / "keys.json").unlink()
    secrets = tmp_path / "secrets.env"
    lines = secrets.read_text().splitlines(keepends=True)
    secrets.write_text("".join(line for line in lines if not line.startswith(missing)))
    with running(what, environment) as process:
        assert process.wait(30) == 1
        assert process.stderr is not None
        assert said in process.stderr.read()


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
        told = api.stderr.read()
        assert "u 1" not in told
        assert load_settings().api_key.get_secret_value().rpartition("_")[2] not in told
    assert '"status": "open"' in capsys.readouterr().out


def test_without_the_api_nobody_can_be_forgotten(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert erase("u1") == 1
    assert "Is `marquee up` running?" in capsys.readouterr().err


class NoLog:
    """Nobody reads the marks here."""

    def append(self, records: Any) -> list[Any]:
        return []


def give(people: int) -> None:
    """Consents in the ledger and the projection that the settings name."""
    settings = load_settings()
    ledger = Ledger(settings.database_url)
    ledger.create_tables()
    secret = settings.secret.get_secret_value()
    consents = Consents(ledger, connect(settings.redis_url), NoLog(), secret, Passage())  # type: ignore[arg-type]
    for n in range(people):
        consents.grant(f"canary-{n}", ["personalization"], "1", "test")
    consents.close()
    ledger.close()


def change(statement: str) -> None:
    engine = sql.create_engine(load_settings().database_url)
    with engine.begin() as connection:
        connection.execute(sql.text(statement))
    engine.dispose()


@pytest.fixture
def settled(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment, in this process."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("settled")
def test_the_ledger_is_verified_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    give(3)
    assert verify_ledger(None) == 0
    told = capsys.readouterr().out
    assert told.startswith("3 receipts, each as it was recorded")
    kept = told.split("--kept ")[1].split("`")[0]
    give(1)
    assert verify_ledger(kept) == 0
    change("UPDATE receipts SET source = 'x' WHERE number = 2")
    assert verify_ledger(None) == 1
    assert "receipt 2 is not as it was recorded" in capsys.readouterr().err


@pytest.mark.usefixtures("settled")
def test_on_a_terminal_a_bar_shows_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give(2)
    assert verify_ledger(None) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert verify_ledger(None) == 0
    told = capsys.readouterr()
    assert "Receipts" in told.err
    assert told.out.startswith("2 receipts")


@pytest.mark.usefixtures("settled")
def test_a_ledger_that_was_put_back_is_found_by_what_redis_or_the_operator_remembers(
    store: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    give(2)
    backup = {path.name: path.read_bytes() for path in tmp_path.glob("ledger.db*")}
    give(2)
    assert verify_ledger(None) == 0
    kept = capsys.readouterr().out.split("--kept ")[1].split("`")[0]
    for name, content in backup.items():
        (tmp_path / name).write_bytes(content)
    assert verify_ledger(None) == 1
    assert "the ledger had 4 and ends before it" in capsys.readouterr().err
    store.flushall()
    assert verify_ledger(None) == 0
    assert verify_ledger(kept) == 1
    assert verify_ledger("4") == 1
    assert "NUMBER:HASH" in capsys.readouterr().err


@pytest.mark.usefixtures("settled")
def test_without_redis_the_ledger_is_still_verified_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give(1)
    monkeypatch.setenv("MARQUEE_REDIS", "unix:///nowhere.sock")
    assert verify_ledger(None) == 0
    assert "Redis does not answer" in capsys.readouterr().err


def test_a_dead_letter_is_put_right_in_a_file_and_replayed_from_the_command_line(
    environment: dict[str, str], settled: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    give(1)
    settings = load_settings()
    log = open_event_log(settings.event_log_url, settings.topic, settings.partitions)
    with running("land", environment), running("serve_ingest", environment):
        wait_for(f"http://127.0.0.1:{environment['MARQUEE_INGEST_PORT']}/readyz")
        log.append([(b"canary-0", b'{"kind":"event","event_id":"e1","user_id":"canary-0"}')])
        deadline = time.monotonic() + 30
        while list_dead_letters() or not (listed := capsys.readouterr().out):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        letter = listed.split()[0]
        assert show_dead_letter(letter) == 0
        document = json.loads(capsys.readouterr().out)
        file = tmp_path / "letter.json"
        file.write_text(json.dumps(document))
        assert replay_dead_letters([file]) == 1
        assert "invalid_event" in capsys.readouterr().out
        document["record"] |= {"type": "play", "item_id": "m1", "occurred_at": "2026-03-01T12:00:00Z"}
        file.write_text(json.dumps(document))
        assert replay_dead_letters([file]) == 0
        assert capsys.readouterr().out == f"{file}: accepted\n"
        assert list_dead_letters() == 0
        assert capsys.readouterr().out == ""
    assert replay_dead_letters([tmp_path / "none.json"]) == 1
    assert show_dead_letter("first") == 1
    log.close()


def test_an_export_is_loaded_into_a_platform_that_never_heard_of_the_person(
    environment: dict[str, str], settled: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The consent first, then every event with its id; an export of somebody who withdrew brings nothing."""
    event = {"kind": "event", "event_id": "e1", "type": "play", "user_id": "u1", "item_id": "m1", "receipt": 9}
    event |= {"occurred_at": "2026-03-01T12:00:00Z", "recommendation_id": None, "partition": 0}
    said = [{"kind": "person", "user_id": "u1"}, {"kind": "receipt", "purposes": ["personalization"]}, event]
    given, withdrawn = tmp_path / "given.jsonl", tmp_path / "withdrawn.jsonl"
    given.write_text("\n".join(map(json.dumps, said)))
    withdrawn.write_text("\n".join(map(json.dumps, [said[0], {"kind": "receipt", "purposes": []}, event])))
    base = f"http://127.0.0.1:{environment['MARQUEE_INGEST_PORT']}"
    with running("serve_ingest", environment):
        wait_for(f"{base}/readyz")
        assert load_export(withdrawn) == 0
        assert "0 events accepted, refused: 1 consent_missing" in capsys.readouterr().out
        assert load_export(given) == 0
        assert "1 events accepted, refused: none" in capsys.readouterr().out
    assert load_export(tmp_path / "none") == 1
