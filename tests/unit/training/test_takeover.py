"""A retraining that is killed while it publishes: the next one takes over, and leaves nothing of it behind."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from infra.lake import EVENTS, Lake, Span
from infra.online_store import OnlineStore
from infra.runs import ENDED_WITHOUT_A_WORD, FAILURE
from infra.settings import load_settings
from training import main
from training.bundle import CURRENT, KEPT, bundle_key, list_key
from training.parts import open_parts
from training.publish import current, kept
from training.run_record import TRAINING

KILLED = """
import threading
from infra.online_store import connect
from infra.settings import load_settings
from training.job import Job
from training.lock import one_at_a_time
from training.parts import open_parts
from training.publish import Lists

def stand_still(*_):
    print("all lists are written", flush=True)
    threading.Event().wait(600)

Lists._check = stand_still
settings = load_settings()
with one_at_a_time(connect(settings.redis_url), seconds=1.0), open_parts(settings) as p:
    Job(
        lake=p.lake, consents=p.consents, registry=p.registry, publisher=p.publisher, domain=p.domain, code="c0ffee"
    ).run()
"""


@pytest.fixture
def platform(
    tmp_path: Path,
    redis_url: str,
    store: OnlineStore,
    empty_registry: Path,
    viewers: Callable[..., pl.DataFrame],
    grant: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sixty viewers in the lake of a platform of the test's own."""
    del store
    (tmp_path / "registry.db").write_bytes(empty_registry.read_bytes())
    monkeypatch.setattr(main, "configure_logs", lambda *_: None)
    monkeypatch.setenv("MARQUEE_DATA", str(tmp_path))
    monkeypatch.setenv("MARQUEE_TUNE_SECONDS", "0")
    monkeypatch.setenv("MARQUEE_REDIS", redis_url)
    monkeypatch.setenv("MARQUEE_SECRET", "a secret of the tests")
    monkeypatch.setenv("MARQUEE_DOMAIN", str(Path(__file__).parents[3] / "domain.toml"))
    rows = viewers()
    Lake(str(tmp_path / "lake")).append(EVENTS, rows, {0: Span(0, rows.height)})
    grant(rows["user_id"].unique())


def train_until_it_may(times: int = 400) -> int:
    for _ in range(times):
        code = main.train_once()
        if code != main.FAILED:
            return code
        threading.Event().wait(0.1)
    raise AssertionError("the lock never came free")


@pytest.mark.usefixtures("platform")
def test_a_retraining_that_is_killed_while_it_publishes_leaves_nothing_behind(store: OnlineStore) -> None:
    """No lists, no run that seems to go on; and until the next one is done, nothing is served that is not whole."""
    process = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert any(line == "all lists are written\n" for line in process.stdout)
    process.kill()
    process.communicate()
    assert (kept(store), store.exists(CURRENT, bundle_key(1))) == ({1}, 0)
    assert len([*store.scan_iter(list_key(1, "*"))]) == 60

    assert train_until_it_may() == main.OK
    assert (kept(store), current(store)) == ({2}, 2)
    assert not [*store.scan_iter(list_key(1, "*"))]
    assert len([*store.scan_iter(list_key(2, "*"))]) == 60
    assert store.exists(bundle_key(2))
    assert store.smembers(KEPT) == {b"2"}
    with open_parts(load_settings()) as parts:
        ended = {run.status: run.tags.get(FAILURE) for run in parts.registry.runs.of_kind(TRAINING)}
    assert ended == {"FINISHED": None, "FAILED": ENDED_WITHOUT_A_WORD}
