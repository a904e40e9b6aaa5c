"""Group commit: what many threads ask for at the same time is done once, for all of them."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class GroupCommit(Generic[Job, Result]):
    """Calls `work`, in one thread, with every job that has come while the call before it ran.

    While one group is on its way to the disk, the next gathers; so a thousand callers cost a few dozen syncs.

    Args:
        work: jobs → their results, in order. What it raises is raised to each of its callers.
        most: jobs in one call, at most.
    """

    def __init__(self, work: Callable[[Sequence[Job]], Sequence[Result]], most: int = 256) -> None:
        self._work = work
        self._most = most
        self._waiting: list[tuple[Job, Future[Result]]] = []
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "group-commit")

    def __call__(self, job: Job) -> Result:
        """The result of `job`, once the call with it has returned."""
        future: Future[Result] = Future()
        with self._lock:
            self._waiting.append((job, future))
        self._thread.submit(self._run_next)
        return future.result()

    def close(self) -> None:
        """Finish what has been asked for, and take no more."""
        self._thread.shutdown()

    def _run_next(self) -> None:
        with self._lock:
            group, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        if not group:
            return  # A call before this one took its job along.
        try:
            results = self._work([job for job, _ in group])
        except BaseException as error:
            for _, future in group:
                future.set_exception(error)
        else:
            for (_, future), result in zip(group, results, strict=True):
                future.set_result(result)
