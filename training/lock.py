"""One retraining at a time, over all processes; after a crash the next one takes over within a minute."""

import _thread
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import structlog

from infra.online_store import OnlineStore, OnlineStoreError
from training.bundle import LOCK

SECONDS = 60.0


class AlreadyTraining(Exception):
    """Another process is training: wait for it, or a minute if it crashed."""


class _Lock(Protocol):
    def acquire(self) -> bool: ...
    def owned(self) -> bool: ...
    def reacquire(self) -> bool: ...
    def release(self) -> None: ...


@contextmanager
def one_at_a_time(store: OnlineStore, seconds: float = SECONDS) -> Iterator[None]:
    """Hold the lock while the block runs, in the main thread.

    A process that stands still for longer than the lock lives may find that another one has taken over. Its block is
    then interrupted, as Ctrl-C would, before it does what the other one does already.

    The operator's edge holds it in another thread: its process ends then, once what is under way is answered.

    Args:
        seconds: lifetime of the lock; it is renewed three times as often.

    Raises:
        AlreadyTraining: see there.
    """
    lock: _Lock = store.lock(LOCK, timeout=seconds, blocking=False, thread_local=False)
    if not lock.acquire():
        raise AlreadyTraining("another process is training: wait for it, or a minute if it crashed")
    stop, lost = threading.Event(), threading.Event()

    def keep() -> None:
        while not stop.wait(seconds / 3):
            try:
                if not _ours(lock):
                    lost.set()
                    _thread.interrupt_main()
                    return
            except OnlineStoreError as error:
                structlog.get_logger(__name__).warning("the training lock was not renewed", error=type(error).__name__)

    keeper = threading.Thread(target=keep, name="training-lock", daemon=True)
    keeper.start()
    try:
        yield
    except KeyboardInterrupt:
        if lost.is_set():
            raise AlreadyTraining("this process stood still for so long that another one took over") from None
        raise
    finally:
        stop.set()
        keeper.join()
        _release(lock)


def _ours(lock: _Lock) -> bool:
    """Renew the lock; one that ran out is taken again, unless somebody else was faster."""
    return lock.reacquire() if lock.owned() else lock.acquire()


def _release(lock: _Lock) -> None:
    try:
        lock.release()
    except OnlineStoreError as error:
        structlog.get_logger(__name__).warning("the training lock was not released", error=type(error).__name__)
