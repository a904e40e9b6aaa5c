"""A store that lost what it served is given the champion again, and nobody is trained for it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.lake import Lake
from infra.model_registry import ModelRegistry, ModelRegistryError
from infra.online_store import OnlineStore
from infra.settings import Settings
from ingest.events import ConsentProjection, Domain
from training import restoration
from training.bundle import CURRENT, LOCK, bundle_key, list_key
from training.job import Job
from training.parts import champion_of
from training.publish import Publisher, current
from training.restoration import Restoration
from training.rollback import roll_back
from training.snapshot import read_lake

Grant = Callable[..., None]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits between two looks."""
    monkeypatch.setattr(restoration, "LOOK_SECONDS", 0.0)


class Started:
    """Processes that were started, for which versions."""

    def __init__(self, code: str = "") -> None:
        self.code = code
        self.versions: list[int] = []
        self.children: list[Any] = []

    def __call__(self, version: int) -> "subprocess.Popen[str]":
        self.versions.append(version)
        self.children.append(subprocess.Popen([sys.executable, "-c", self.code], text=True))
        return self.children[-1]


def look(worker: Restoration, started: Started) -> None:
    """Look, and again when what was started has ended."""
    worker.look()
    for child in started.children:
        child.wait(20)
    worker.look()


def test_nothing_is_started_while_a_version_is_served_or_somebody_trains(store: OnlineStore) -> None:
    started = Started()
    for key in (CURRENT, LOCK):
        store.set(key, 1)
        look(Restoration(store, lambda: 1, started), started)
        store.delete(key)
    assert started.versions == []


def test_where_nothing_is_served_the_champion_is_once(store: OnlineStore) -> None:
    """While the process works it is not started again."""
    started = Started("import time; time.sleep(600)")
    worker = Restoration(store, lambda: 5, started)
    for _ in range(3):
        worker.look()
    worker.end()
    assert started.versions == [5]
    assert started.children[0].poll() is not None


def test_before_the_first_version_nothing_is_missed_and_the_registry_is_not_asked_all_the_time(
    store: OnlineStore,
) -> None:
    asked: list[None] = []
    worker = Restoration(store, lambda: asked.append(None), Started())
    for _ in range(3):
        worker.look()
    assert len(asked) == 1


def test_a_process_that_fails_is_started_again_later(store: OnlineStore, monkeypatch: pytest.MonkeyPatch) -> None:
    started = Started("raise SystemExit(1)")
    worker = Restoration(store, lambda: 5, started)
    look(worker, started)
    worker.look()
    assert started.versions == [5, 5]
    started.children[1].wait(20)
    monkeypatch.setattr(restoration, "LOOK_SECONDS", 100.0)
    for _ in range(3):
        worker.look()
    assert started.versions == [5, 5]


def test_a_registry_that_does_not_answer_is_asked_again(store: OnlineStore) -> None:
    answers = iter([ModelRegistryError("by the test"), 5])

    def champion() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    started = Started()
    worker = Restoration(store, champion, started)
    worker.look()
    assert started.versions == []
    look(worker, started)
    assert started.versions[0] == 5


@pytest.mark.usefixtures("landed")
def test_after_the_store_lost_its_data_the_same_lists_are_served_as_before(
    job: Job,
    lake: Lake,
    consents: ConsentProjection,
    registry: ModelRegistry,
    publisher: Publisher,
    domain: Domain,
    store: OnlineStore,
    grant: Grant,
) -> None:
    """What the process does that is started: `marquee rollback` with the champion's number."""
    job.run()
    job.run()
    people = [f"u{number:03}" for number in range(60)]
    before = store.mget([list_key(2, person) for person in people])
    champion = registry.champion()
    assert champion == 2
    store.flushall()
    grant(people)
    runs = len(registry.versions())
    roll_back(store, registry, publisher, lambda: read_lake(lake, consents, domain).histories(), champion)
    assert current(store) == 2
    assert store.exists(bundle_key(2))
    assert store.mget([list_key(2, person) for person in people]) == before
    assert len(registry.versions()) == runs


def test_a_registry_in_a_file_is_not_made_by_asking_for_the_champion(tmp_path: Path, domain: Domain) -> None:
    del domain
    settings = Settings(data=tmp_path, domain=Path(__file__).parents[3] / "domain.toml")
    assert champion_of(settings) is None
    assert list(tmp_path.iterdir()) == []
