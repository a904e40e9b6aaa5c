"""Group commit: what many threads ask for at the same time is done once, for all of them."""

import threading
from collections import deque
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
        most: how much one call takes, in what `size` counts; a job that is larger goes alone.
        size: of a job.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Job]], Sequence[Result]],
        most: int = 256,
        size: Callable[[Job], int] = lambda _: 1,
    ) -> None:
        self._work = work
        self._most = most
        self._size = size
        self._waiting: deque[tuple[Job, Future[Result]]] = deque()
        self._runs = False
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "group-commit")

    def __call__(self, job: Job, timeout: float | None = None) -> Result:
        """The result of `job`, once the call with it has returned.

        Args:
            timeout: how many seconds to wait for that. A job that has not begun by then is not done at all.

        Raises:
            TimeoutError: it took longer; if it has begun, nothing is known of its end.
        """
        future: Future[Result] = Future()
        with self._lock:
            self._waiting.append((job, future))
            begin, self._runs = not self._runs, True
        if begin:
            self._thread.submit(self._run)
        try:
            return future.result(timeout)
        finally:
            future.cancel()

    def close(self) -> None:
        """Finish what has been asked for, and take no more."""
        self._thread.shutdown()

    def _run(self) -> None:
        while group := self._next_group():
            self._do([(job, future) for job, future in group if future.set_running_or_notify_cancel()])

    def _next_group(self) -> list[tuple[Job, Future[Result]]]:
        group: list[tuple[Job, Future[Result]]] = []
        room = self._most
        with self._lock:
            while self._waiting and (not group or self._size(self._waiting[0][0]) <= room):
                group.append(self._waiting.popleft())
                room -= self._size(group[-1][0])
            self._runs = bool(group)
        return group

    def _do(self, group: Sequence[tuple[Job, Future[Result]]]) -> None:
        try:
            results = self._work([job for job, _ in group]) if group else ()
        except BaseException as error:
            for _, future in group:
                future.set_exception(error)
        else:
            for (_, future), result in zip(group, results, strict=True):
                future.set_result(result)
