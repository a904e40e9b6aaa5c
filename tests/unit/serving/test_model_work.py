"""Models are asked in threads, a few at a time."""

import asyncio
import threading

import pytest

from infra.http import Problem
from serving.model_work import MOST_AT_ONCE, THREADS, ModelWork


def test_work_leaves_the_event_loop_free_and_is_done_a_few_at_a_time() -> None:
    """While it waits for a thread's work the loop goes on; never more threads than that work."""
    work, free, at_once, most = ModelWork(), threading.Event(), [0], [0]

    def wait() -> int:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        free.wait(10)
        at_once[0] -= 1
        return threading.get_ident()

    async def ask() -> set[int]:
        asked = [asyncio.create_task(work.run(wait)) for _ in range(THREADS * 3)]
        await asyncio.sleep(0.05)
        free.set()
        return set(await asyncio.gather(*asked))

    idents = asyncio.run(ask())
    work.close()
    assert most[0] == THREADS
    assert threading.get_ident() not in idents


def test_there_is_no_queue_without_end() -> None:
    """One more than there is room for is told to come back; a turn that ends, in whatever way, makes room."""
    work = ModelWork()
    turns = [work.turn() for _ in range(MOST_AT_ONCE)]
    for turn in turns:
        turn.__enter__()
    with pytest.raises(Problem) as refused, work.turn():
        pass
    assert (refused.value.status, refused.value.code, refused.value.headers) == (
        503,
        "overloaded",
        {"Retry-After": "1"},
    )
    turns[0].__exit__(None, None, None)
    with pytest.raises(ZeroDivisionError), work.turn():
        raise ZeroDivisionError
    with work.turn():
        pass
    work.close()
