"""A Redis that loses everything it held, under a platform that runs: the same people get the same answers again."""

import importlib.util
import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def neighbour(name: str) -> ModuleType:
    """A module beside this one."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


UP = neighbour("test_up")


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Any]:
    """`marquee up` with a trained model of invented viewers."""
    started = UP.Platform(tmp_path)
    try:
        assert started.command("load", "movielens", str(UP.movielens(tmp_path))).returncode == 0
        wait_until(lambda: "events in the lake: 1200," in started.command("status").stdout)
        assert started.command("train").returncode == 0
        yield started
    finally:
        started.process.terminate()
        started.process.wait(60)


def test_the_same_answers_after_redis_lost_its_data(platform: Any, tmp_path: Path) -> None:
    """Consents from the ledger, the champion from the registry, histories and hidden items from the lake."""
    data = tmp_path / "data"
    key = re.search(r"MARQUEE_API_KEY=(\S+)", (data / "secrets.env").read_text())[1]  # type: ignore[index]
    call = caller(platform.ports, key)
    people = [f"u{number}" for number in range(1, 61)]
    played = first_of(call, people[0])[0]
    hidden = first_of(call, people[1])[0]
    event = {"event_id": "e-now", "type": "play", "user_id": people[0], "item_id": played, "occurred_at": now()}
    call("INGEST", "POST", "/v1/events", {"events": [event]})
    call("INGEST", "PUT", "/v1/items", {"items": [{"item_id": hidden, "attributes": {}, "hidden": True}]})
    wait_until(lambda: "events in the lake: 1201," in platform.command("status").stdout)
    wait_until(lambda: hidden not in first_of(call, people[1]))
    # A publish leaves hidden items out of the histories: the lists of those who watched this one become others by that.
    people = [person for person in people if hidden not in watched(tmp_path, person)]
    before = {person: first_of(call, person) for person in people}
    assert played not in before[people[0]]
    for file in data.glob("appendonlydir/*"):
        file.unlink()
    redis_of(platform.process.pid).kill()
    wait_until(lambda: tier(call, people[1]) != "personal")
    wait_until(lambda: {person: first_of(call, person) for person in people} == before)
    assert tier(call, people[1]) == "personal"
    assert "2 " not in re.findall(r"^\W*(\d+ )", platform.command("models").stdout, re.M), "a model was trained for it"


def tier(call: Callable[..., Any], person: str) -> str:
    """Where a person's list comes from."""
    return str(call("SERVING", "GET", f"/v1/users/{person}/recommendations")["tier"])


def watched(folder: Path, person: str) -> set[str]:
    """What a viewer of the data set has watched."""
    rows = [line.split(",") for line in (folder / "ratings.csv").read_text().splitlines()[1:]]
    return {f"m{movie}" for user, movie, *_ in rows if f"u{user}" == person}


def caller(ports: dict[str, int], key: str) -> Callable[..., Any]:
    """Calls the platform's edges; what is no JSON, or none at all while Redis is away, is an empty answer."""

    def call(edge: str, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{ports[edge]}{path}", content, headers, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"{}")

    return call


def first_of(call: Callable[..., Any], person: str) -> list[str]:
    """Items of a person's list."""
    answer = call("SERVING", "GET", f"/v1/users/{person}/recommendations?k=20")
    return [item["item_id"] for item in answer["items"]]


def now() -> str:
    """In RFC 3339."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def redis_of(pid: int) -> psutil.Process:
    """The embedded Redis of a platform."""
    children = psutil.Process(pid).children(recursive=True)
    return next(child for child in children if "redis.sock" in " ".join(child.cmdline()))


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for two minutes at most."""
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)
