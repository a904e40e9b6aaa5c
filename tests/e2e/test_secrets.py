"""No process starts without its secrets, and none shows them: not to who asks, not in a line that it prints."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from bench.own_platform import APIS, ROOT, OwnPlatform
from infra.key_file import KeyFile, KeyScope

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SECRET = "canary-of-the-signing-secret"
OPERATOR = "canary-of-the-operators-key"
PERSON = "canary-of-a-person"


@pytest.mark.parametrize(
    ("command", "given", "says"),
    [
        ("ingest", {}, "MARQUEE_API_KEY"),
        ("serve", {"SECRET": SECRET}, "MARQUEE_API_KEY"),
        ("ingest", {"API_KEY": OPERATOR}, "MARQUEE_SECRET is not set"),
        ("serve", {"API_KEY": OPERATOR}, "MARQUEE_SECRET is not set"),
        ("operate", {"SECRET": SECRET}, "MARQUEE_API_KEY"),
        ("operate", {"API_KEY": OPERATOR}, "MARQUEE_SECRET is not set"),
        ("land", {}, "MARQUEE_SECRET is not set"),
        ("nearline", {}, "MARQUEE_SECRET is not set"),
    ],
)
def test_without_key_or_secret_no_process_starts(
    command: str, given: dict[str, str], says: str, tmp_path: Path
) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MARQUEE_")}
    settings = {f"MARQUEE_{name}": value for name, value in {**given, "DATA": str(tmp_path)}.items()}
    started = [sys.executable, "-m", "marquee", command]
    ended = subprocess.run(
        started, cwd=ROOT, env=clean | settings, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 1
    assert says in ended.stderr
    assert OPERATOR not in ended.stderr + ended.stdout


def test_no_process_shows_a_secret_or_who_asks() -> None:
    """Good and bad calls to all APIs, and a store that goes away; then every line of every process is searched."""
    stages = ("ingest", "land", "nearline", "serve", "operate")
    with OwnPlatform(stages, settings={"SECRET": SECRET, "API_KEY": OPERATOR}) as platform:
        key = KeyFile(platform.folder / "keys.json").create("canary", tuple(KeyScope))
        wrong = f"{key}x"
        for sent in (OPERATOR, key, wrong, f"mq_{PERSON}_{PERSON}"):
            headers = {"Authorization": f"Bearer {sent}"}
            for stage in APIS:
                _call_everything(platform, stage, headers)
        lines = [" ".join(process.cmdline()) for process in psutil.Process().children(recursive=True)]
        platform.stop("redis")
        for stage in APIS:
            _call_everything(platform, stage, {"Authorization": f"Bearer {key}"})
        for stage in stages:
            platform.stop(stage)
        printed = {stage: platform.printed(stage) for stage in (*stages, "redis")}
    for stage, said in [*printed.items(), ("command lines", "\n".join(lines))]:
        for hidden in (SECRET, OPERATOR, PERSON, key.rpartition("_")[2]):
            assert hidden not in said, f"{stage} shows {hidden}"


def _call_everything(platform: OwnPlatform, stage: str, headers: dict[str, str]) -> None:
    event = {
        "event_id": PERSON,
        "type": "play",
        "user_id": PERSON,
        "item_id": "m1",
        "occurred_at": "2026-01-01T00:00:00Z",
    }
    calls = {
        "ingest": [
            ("PUT", f"/v1/users/{PERSON}/consent", {"purposes": ["personalization"]}),
            ("POST", "/v1/events", {"events": [event, {**event, "type": PERSON}, {PERSON: PERSON}]}),
            ("POST", "/v1/events", PERSON),
            ("GET", f"/v1/users/{PERSON}/data", None),
            ("DELETE", f"/v1/users/{PERSON}/consent", None),
            ("GET", f"/v1/erasures/{PERSON}", None),
            ("GET", f"/{PERSON}?{PERSON}={PERSON}", None),
        ],
        "serve": [
            ("GET", f"/v1/users/{PERSON}/recommendations?k=5", None),
            ("GET", f"/v1/users/{PERSON}/home?rows={PERSON}", None),
            ("POST", "/v1/recommendations", {"history": [{"item_id": PERSON, "type": PERSON}]}),
            ("GET", f"/v1/recommendations/{PERSON}", None),
            ("GET", f"/v1/items/{PERSON}/similar", None),
        ],
        "operate": [
            ("GET", f"/v1/users/{PERSON}/lists?version=1", None),
            ("POST", "/v1/models/1/promotion", {"force": True, "reason": PERSON}),
            ("POST", "/v1/rollback", {"version": PERSON}),
            ("GET", "/v1/operations", None),
        ],
    }
    for method, path, body in calls[stage]:
        with suppress(httpx.HTTPError):
            httpx.request(method, platform.url(stage) + path, json=body, headers=headers, timeout=10, trust_env=False)
