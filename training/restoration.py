"""Serves the champion again where the online store has lost what it served: its data, or the pointer alone."""

import subprocess
import sys
import time
from collections.abc import Callable

import structlog

from infra.model_registry import ModelRegistryError
from infra.online_store import OnlineStore
from training.bundle import CURRENT, LOCK

LOOK_SECONDS = 2.0
NOTHING_YET_SECONDS = 10.0
LONGEST_WAIT_SECONDS = 60.0
STOP_SECONDS = 10.0


def start_rollback(version: int) -> "subprocess.Popen[str]":
    """Start a process that serves this version: what `marquee rollback VERSION` does."""
    return subprocess.Popen([sys.executable, "-m", "marquee", "rollback", str(version)], text=True)


class Restoration:
    """Looks whether a version is served, and starts a process that serves the champion where none is.

    Nothing is trained. Who holds the training lock is left alone: the version that comes of it will be served.

    Args:
        store: the online store.
        champion: the version that should be served; None: there is none yet.
        start: starts a process that publishes a version, or serves it at once where it is whole in the store.
    """

    def __init__(
        self,
        store: OnlineStore,
        champion: Callable[[], int | None],
        start: Callable[[int], "subprocess.Popen[str]"],
    ) -> None:
        self._store = store
        self._champion = champion
        self._start = start
        self._child: subprocess.Popen[str] | None = None
        self._failures = 0
        self._not_before = 0.0
        self._log = structlog.get_logger(__name__)

    def look(self) -> None:
        """Look once, at most every few seconds.

        Raises:
            infra.online_store.OnlineStoreError: the store does not answer.
        """
        if self._child is not None:
            self._look_after(self._child)
        elif time.monotonic() >= self._not_before:
            self._wait(LOOK_SECONDS)
            if not self._store.exists(CURRENT, LOCK):
                self._restore()

    def end(self) -> None:
        """End what was started."""
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.communicate()

    def _restore(self) -> None:
        try:
            version = self._champion()
        except ModelRegistryError as error:
            self._log.warning("nobody can tell which version should be served", why=str(error))
            self._fail()
            return
        if version is None:  # Nothing was ever served, so nothing is missed.
            self._wait(NOTHING_YET_SECONDS)
            return
        self._log.warning("no version is served: the champion is published again", version=version)
        self._child = self._start(version)

    def _look_after(self, child: "subprocess.Popen[str]") -> None:
        code = child.poll()
        if code is None:
            return
        child.communicate()
        self._child = None
        if code:
            self._log.warning("the champion was not published", exit_code=code)
            self._fail()
        else:
            self._failures = 0

    def _fail(self) -> None:
        self._failures += 1
        self._wait(min(LOOK_SECONDS * 2**self._failures, LONGEST_WAIT_SECONDS))

    def _wait(self, seconds: float) -> None:
        self._not_before = time.monotonic() + seconds
