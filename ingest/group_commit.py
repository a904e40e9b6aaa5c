"""Group commit: what many threads ask for at the same time is done once, for all of them."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class GroupCommit(Generic[Job, Result]):
    """Calls `work` with every job that has come while the call before it ran.

    It has no thread of its own: whichever caller comes first does the work of all who wait. While one call is on its
    way to the disk, the next group gathers; so a thousand callers cost a few dozen syncs.

    Args:
        work: jobs → their results, in order. What it raises is raised to each of its callers.
        most: jobs in one call, at most.
    """

    def __init__(self, work: Callable[[Sequence[Job]], Sequence[Result]], most: int = 256) -> None:
        self._work = work
        self._most = most
        self._waiting: list[tuple[Job, Future[Result]]] = []
        self._queue = threading.Lock()
        self._turn = threading.Lock()

    def __call__(self, job: Job) -> Result:
        """The result of `job`, once a call with it has returned."""
        future: Future[Result] = Future()
        with self._queue:
            self._waiting.append((job, future))
        while not future.done():
            with self._turn:
                if not future.done():
                    self._run_next()
        return future.result()

    def _run_next(self) -> None:
        with self._queue:
            group, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        try:
            results = self._work([job for job, _ in group])
        except BaseException as error:
            for _, future in group:
                future.set_exception(error)
        else:
            for (_, future), result in zip(group, results, strict=True):
                future.set_result(result)
