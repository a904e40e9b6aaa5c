"""Others see how far a run is, whichever process makes it; it never waits for them."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.online_store import OnlineStore, connect
from training import progress
from training.bundle import LAST, RUN
from training.job import Outcome
from training.lock import one_at_a_time
from training.progress import (
    RUN_SECONDS,
    NoSchedule,
    Training,
    ask,
    end,
    read_training,
    shown,
    taken_up,
    tell_of_schedule,
)

OUTCOME = Outcome(
    result="refused",
    version=3,
    algorithm="ease",
    reasons=("passed popularity: 9 % better", "failed champion: 7 % worse"),
    metrics={},
    seconds={},
    users_published=0,
)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests do not wait for a second."""
    monkeypatch.setattr(progress, "LOOK_SECONDS", 0.01)


def interrupted(store: OnlineStore) -> None:
    """A run that ends as Ctrl-C ends it, and as the lock does when another process has it."""
    with one_at_a_time(store), shown(store):
        wait_until(lambda: read_training(store).state == "running")
        raise KeyboardInterrupt


def test_a_run_is_seen_from_its_first_phase_to_its_end(store: OnlineStore) -> None:
    def now() -> Training:
        return read_training(store)

    with one_at_a_time(store), shown(store) as run:
        with run.phases("read"):
            wait_until(lambda: now().run is not None and now().run.phase == "read")  # type: ignore[union-attr]
        with run.phases("tune"):
            run.phases.say("2 recipes tried")
            wait_until(lambda: now().run is not None and now().run.detail == "2 recipes tried")  # type: ignore[union-attr]
            found = now()
        assert found.state == "running"
        assert found.run is not None
        assert [done.name for done in found.run.phases] == ["read"]
        assert 0 < store.ttl(RUN) <= RUN_SECONDS
        run.outcome = OUTCOME
    found = read_training(store)
    assert (found.state, found.run) == ("idle", None)
    assert found.last is not None
    assert (found.last.result, found.last.version) == ("refused", 3)
    assert found.last.reason == "passed popularity: 9 % better; failed champion: 7 % worse"


def test_why_a_run_failed_is_kept(store: OnlineStore) -> None:
    with pytest.raises(ZeroDivisionError), shown(store):
        raise ZeroDivisionError("nothing to divide by")
    last = read_training(store).last
    assert last is not None
    assert (last.result, last.version, last.reason) == ("failed", None, "nothing to divide by")
    assert not store.exists(RUN)


def test_who_lost_the_lock_does_not_touch_what_the_other_writes(store: OnlineStore) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(store)
    assert store.exists(RUN)
    assert not store.exists(LAST)


def test_without_the_online_store_a_run_goes_on(tmp_path: Path) -> None:
    with shown(connect(f"unix://{tmp_path / 'nobody.sock'}", 0.1)) as run, run.phases("read"):
        pass
    assert run.phases.seconds.keys() == {"read"}


def test_a_run_that_changes_nothing_for_long_is_still_seen(store: OnlineStore) -> None:
    with one_at_a_time(store), shown(store):
        for _ in range(2):
            wait_until(lambda: read_training(store).state == "running")
            store.delete(RUN)  # as its end of life does
        wait_until(lambda: read_training(store).state == "running")


def test_a_run_that_is_killed_is_seen_no_longer_than_its_key_and_its_lock_live(
    store: OnlineStore, redis_url: str
) -> None:
    code = f"""
import time
from infra.online_store import connect
from training.lock import one_at_a_time
from training.progress import shown

store = connect({redis_url!r})
with one_at_a_time(store), shown(store):
    print("here", flush=True)
    time.sleep(60)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "here\n"
    wait_until(lambda: read_training(store).state == "running")
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert 0 < store.ttl(RUN) <= RUN_SECONDS
    store.delete(RUN)  # as its end of life does
    assert read_training(store).state == "idle"


def test_what_a_run_left_without_its_lock_is_no_run(store: OnlineStore) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(store)
    assert read_training(store).state == "idle"


def test_what_this_code_cannot_read_is_passed_over(store: OnlineStore) -> None:
    """It may be of a version before or after this one."""
    store.mset({RUN: "{}", LAST: "no JSON"})
    with one_at_a_time(store):
        assert read_training(store) == Training(state="idle", schedule=False, run=None, last=None)


# --- asking ----------------------------------------------------------------------------------------------------------


def test_two_ask_and_one_run_begins(store: OnlineStore) -> None:
    tell_of_schedule(store)
    assert [ask(store).state, ask(store).state, read_training(store).state] == ["asked"] * 3
    assert (taken_up(store), taken_up(store)) == (True, False)


def test_while_a_run_is_under_way_no_other_is_asked_for(store: OnlineStore) -> None:
    tell_of_schedule(store)
    with one_at_a_time(store), shown(store):
        wait_until(lambda: read_training(store).state == "running")
        assert ask(store).state == "running"
    assert not taken_up(store)


def test_where_nobody_would_take_it_up_nothing_is_asked_for(store: OnlineStore) -> None:
    with pytest.raises(NoSchedule):
        ask(store)
    assert not taken_up(store)


def test_what_nobody_takes_up_is_forgotten_after_a_while(store: OnlineStore) -> None:
    tell_of_schedule(store)
    ask(store)
    assert 0 < store.ttl(progress.ASKED) <= progress.ASKED_SECONDS
    assert 0 < store.ttl(progress.SCHEDULE) <= progress.SCHEDULE_SECONDS


def test_the_schedule_ends_what_could_not_end_itself(store: OnlineStore) -> None:
    store.set(RUN, "{}")
    end(store, progress.LastRun.failed("it was ended by SIGKILL"))
    last = read_training(store).last
    assert last is not None
    assert last.reason == "it was ended by SIGKILL"
    assert not store.exists(RUN)
