"""One retraining at a time, over all processes; after a crash the next one takes over within a minute."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from infra.online_store import OnlineStore, OnlineStoreError
from training.bundle import LOCK

SECONDS = 60.0


class AlreadyTraining(Exception):
    """Another process is training: wait for it, or a minute if it crashed."""


@contextmanager
def one_at_a_time(store: OnlineStore, seconds: float = SECONDS) -> Iterator[None]:
    """Hold the lock while the block runs.

    Args:
        seconds: lifetime of the lock; it is renewed three times as often.

    Raises:
        AlreadyTraining: see there.
    """
    lock = store.lock(LOCK, timeout=seconds, blocking=False, thread_local=False)
    if not lock.acquire():
        raise AlreadyTraining("another process is training: wait for it, or a minute if it crashed")
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(seconds / 3):
            try:
                lock.reacquire()
            except OnlineStoreError as error:
                structlog.get_logger(__name__).warning("the training lock was not renewed", error=type(error).__name__)

    keeper = threading.Thread(target=renew, name="training-lock", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        stop.set()
        keeper.join()
        try:
            lock.release()
        except OnlineStoreError as error:
            structlog.get_logger(__name__).warning("the training lock was not released", error=type(error).__name__)
