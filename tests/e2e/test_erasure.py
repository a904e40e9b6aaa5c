"""A person is forgotten by a platform whose processes are killed meanwhile: no byte stays, nobody else is touched."""

import importlib.util
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import psutil
import pytest

from infra.database import Ledger
from infra.event_log import open_event_log
from infra.lake import DEAD_LETTERS, EVENTS, Lake, LakeEmpty
from infra.online_store import OnlineStore, OnlineStoreError, connect
from workshop.traces import find_traces

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

CANARY = "u7777777"
KILLED = ("land", "nearline", "train", "ingest", "redis")


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
    """`marquee up` with a model of sixty viewers and the canary, who also sent something that cannot be landed."""
    started = UP.Platform(tmp_path)
    try:
        UP.movielens(tmp_path)
        with (tmp_path / "ratings.csv").open("a") as ratings:
            ratings.writelines(f"{CANARY[1:]},{film},4.0,{1_000_000_500 + film}\n" for film in range(1, 25))
        loaded = started.command("load", "movielens", str(tmp_path))
        assert loaded.returncode == 0, loaded.stdout + loaded.stderr
        log = open_event_log(f"unix://{tmp_path}/data/redis.sock", "marquee.events", 4)
        log.append([(CANARY.encode(), b"no record of " + CANARY.encode())])
        log.close()
        lake = Lake(str(tmp_path / "data/lake"))
        wait_until(lambda: lake.snapshot(EVENTS).rows.height == 1224 and lake.snapshot(DEAD_LETTERS).rows.height == 1)
        started.environment["MARQUEE_TUNE_SECONDS"] = "0"
        trained = started.command("train")
        assert trained.returncode == 0, trained.stdout + trained.stderr
        yield started
    finally:
        started.process.terminate()
        started.process.wait(60)


def test_whatever_is_killed_meanwhile_no_trace_is_left_and_nobody_else_is_touched(
    platform: Any, tmp_path: Path
) -> None:
    data, lake = tmp_path / "data", Lake(str(tmp_path / "data/lake"))
    for file in tmp_path.glob("*.csv"):
        file.unlink()  # Ours, not the platform's.
    store = connect(f"unix://{data}/redis.sock", 10)
    wait_until(lambda: store.zcard("{histories}:written") == 61)
    before = others(lake, store)
    held = find_traces(CANARY, tmp_path, store)
    assert {"{histories}:of", "list:1"} <= {
        key.split("'")[1].rpartition(":")[0] for key in held if key.startswith("redis b'")
    }

    key = re.search(r"MARQUEE_API_KEY=(\S+)", (data / "secrets.env").read_text())
    assert key
    address = f"http://127.0.0.1:{platform.ports['INGEST']}/v1/users/{CANARY}"
    with httpx.Client(headers={"Authorization": f"Bearer {key[1]}"}, trust_env=False) as client:
        assert client.delete(address).status_code == 202
    for name in KILLED:
        kill(platform.process.pid, name)
        time.sleep(0.3)
    wait_until(lambda: waiting(data) == (0, 1), 120)

    assert find_traces(CANARY, tmp_path, store) == []
    assert others(lake, store) == before
    assert "purged" not in platform.command("models").stdout
    models_follow(platform)
    assert find_traces(CANARY, tmp_path, store) == []
    store.close()


def models_follow(platform: Any) -> None:
    """The next retraining replaces the version that learned from the canary; nobody can have it back."""
    trained = platform.command("train")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert re.search(r"^\W*1 .*purged", platform.command("models").stdout, re.M)
    back = platform.command("rollback", "1")
    assert back.returncode == 1
    assert "version 1 is purged: it was trained on events of people who have been erased since" in back.stderr
    wait_until(lambda: waiting(Path(platform.environment["MARQUEE_DATA"])) == (0, 0))


def others(lake: Lake, store: OnlineStore) -> list[Any]:
    """Everybody's rows, lists and histories but the canary's."""
    rows = lake.snapshot(EVENTS).rows.sort("partition", "offset").rows()
    kept = [row for row in rows if CANARY not in row]
    keys = sorted(key for pattern in ("{histories}:of:*", "list:*") for key in store.scan_iter(pattern))
    return [kept, [(key, store.get(key)) for key in keys if CANARY.encode() not in key]]


def waiting(data: Path) -> tuple[int, int]:
    """Erasures that are not complete, and those that the models have not followed."""
    ledger = Ledger(f"sqlite:///{data}/ledger.db")
    counts = len(ledger.open_erasures()), len(ledger.erasures_without("models")[1])
    ledger.close()
    return counts


def kill(pid: int, name: str) -> None:
    """Kill -9 one of the platform's processes; the supervisor starts it again."""
    for child in psutil.Process(pid).children(recursive=True):
        words = child.cmdline()
        if "redis.sock" in " ".join(words) if name == "redis" else words[1:4] == ["-m", "marquee", name]:
            child.kill()
            return
    raise AssertionError(f"no process {name}")


def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something holds; a store that is down meanwhile is asked again."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if holds():
                return
        except (LakeEmpty, *OnlineStoreError):
            pass
        assert time.monotonic() < deadline
        time.sleep(0.2)
