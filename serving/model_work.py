"""Asks models in threads, a few at a time: a product of matrices must not hold up the lists that are only read."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from infra.http import Problem

THREADS = 2
MOST_AT_ONCE = 32
"""Requests that wait or are worked on: more would wait longer than people do."""

_Made = TypeVar("_Made")


class ModelWork:
    """Threads of their own, and a bound on what waits for them. Belongs to one event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "model")
        self._under_way = 0

    @property
    def full(self) -> bool:
        """Whether there is no turn left."""
        return self._under_way >= MOST_AT_ONCE

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A context that one request works in.

        Raises:
            Problem: 503 `overloaded` when too many are in it already.
        """
        if self.full:
            raise Problem(503, "overloaded", "Too many requests are waiting. Try again.", {"Retry-After": "1"})
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def run(self, work: Callable[[], _Made]) -> _Made:
        """What `work` returns, done in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Let go of the threads once what they are at is done."""
        self._threads.shutdown(wait=False, cancel_futures=True)
