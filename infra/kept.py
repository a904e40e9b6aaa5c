"""Answers that are good for some seconds, to questions that cost something."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """The answer to a question, asked again after some seconds at the earliest. Safe to share between threads.

    Args:
        ask: the question. What it raises is not kept.
        seconds: how old an answer may be.
        clock: the time, in seconds.
    """

    def __init__(self, ask: Callable[[], T], seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._known: tuple[float, T] | None = None

    def __call__(self) -> T:
        """The answer. Who comes while it is asked for waits, and gets the same."""
        with self._lock:
            if self._known is None or self._clock() - self._known[0] >= self._seconds:
                self._known = (self._clock(), self._ask())
            return self._known[1]
