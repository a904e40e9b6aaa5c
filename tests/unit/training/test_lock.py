"""One retraining at a time."""

import subprocess
import sys
import threading
import time

import pytest

from infra.online_store import OnlineStore
from training.bundle import LOCK
from training.lock import AlreadyTraining, one_at_a_time

HOLDER = """
import sys, time
from infra.online_store import connect
from training.lock import one_at_a_time
with one_at_a_time(connect(sys.argv[1]), seconds=2.0):
    print("held", flush=True)
    time.sleep(600)
"""


def wait_until_taken(store: OnlineStore) -> None:
    for _ in range(400):
        try:
            with one_at_a_time(store):
                return
        except AlreadyTraining:
            threading.Event().wait(0.05)
    raise AssertionError("the lock never came free")


def test_a_second_one_is_refused_until_the_first_is_done(store: OnlineStore) -> None:
    with one_at_a_time(store):
        with pytest.raises(AlreadyTraining), one_at_a_time(store):
            pass
        assert store.exists(LOCK)
    assert not store.exists(LOCK)
    with one_at_a_time(store):
        pass


def test_a_failure_gives_the_lock_back(store: OnlineStore) -> None:
    with pytest.raises(ZeroDivisionError), one_at_a_time(store):
        raise ZeroDivisionError
    assert not store.exists(LOCK)


def test_a_killed_process_is_taken_over_when_its_lock_has_run_out(store: OnlineStore, redis_url: str) -> None:
    """It was renewed while the process lived, and nobody renews it afterwards."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, redis_url], stdout=subprocess.PIPE, text=True)
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    threading.Event().wait(2.5)
    with pytest.raises(AlreadyTraining), one_at_a_time(store):
        pass
    holder.kill()
    holder.communicate()
    assert store.exists(LOCK)
    wait_until_taken(store)


def test_a_long_run_keeps_its_lock(store: OnlineStore) -> None:
    """It is renewed three times in its lifetime, so it outlives it many times over."""
    with one_at_a_time(store, seconds=0.3):
        threading.Event().wait(1.0)
        with pytest.raises(AlreadyTraining), one_at_a_time(store):
            pass


def stand_still_until_another_one_has_taken_over(store: OnlineStore) -> None:
    with one_at_a_time(store, seconds=0.3):
        store.set(LOCK, "another one's")
        for _ in range(200):
            time.sleep(0.05)


def test_a_process_that_stood_still_for_too_long_is_interrupted_when_another_one_has_taken_over(
    store: OnlineStore,
) -> None:
    with pytest.raises(AlreadyTraining, match="stood still"):
        stand_still_until_another_one_has_taken_over(store)
    assert store.get(LOCK) == b"another one's"


def test_a_process_that_stood_still_goes_on_when_nobody_has_taken_over(store: OnlineStore) -> None:
    with one_at_a_time(store, seconds=0.3):
        store.delete(LOCK)
        for _ in range(200):
            if store.exists(LOCK):
                break
            threading.Event().wait(0.05)
        with pytest.raises(AlreadyTraining), one_at_a_time(store):
            pass
    assert not store.exists(LOCK)


def test_ctrl_c_is_ctrl_c(store: OnlineStore) -> None:
    with pytest.raises(KeyboardInterrupt), one_at_a_time(store):
        raise KeyboardInterrupt
    assert not store.exists(LOCK)


def test_losing_the_store_during_the_run_does_not_hide_what_the_run_came_to(store: OnlineStore) -> None:
    with one_at_a_time(store):
        store.delete(LOCK)
