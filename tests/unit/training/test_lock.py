"""One retraining at a time."""

import threading

import pytest

from infra.online_store import OnlineStore
from training.bundle import LOCK
from training.lock import AlreadyTraining, one_at_a_time


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


def test_the_lock_of_a_crashed_process_expires(store: OnlineStore) -> None:
    """Nobody renews it: the key has a lifetime, and when it is gone the next one takes over."""
    store.set(LOCK, "of a process that was killed", px=1)
    threading.Event().wait(0.05)
    with one_at_a_time(store):
        assert 0 < store.pttl(LOCK) <= 60_000


def test_a_long_run_keeps_its_lock(store: OnlineStore) -> None:
    """It is renewed three times in its lifetime, so it outlives it many times over."""
    with one_at_a_time(store, seconds=0.3):
        threading.Event().wait(1.0)
        with pytest.raises(AlreadyTraining), one_at_a_time(store):
            pass


def test_losing_the_store_during_the_run_does_not_hide_what_the_run_came_to(store: OnlineStore) -> None:
    with one_at_a_time(store):
        store.delete(LOCK)
