"""A time-out that does not take its own process' lateness for another's silence."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

GRACE_SECONDS = 0.01
LATE_SECONDS = 0.005
MOST_GRACES = 20


@asynccontextmanager
async def patience(seconds: float) -> AsyncIterator[None]:
    """End what runs within after `seconds`, as `asyncio.timeout` does, or somewhat later when this loop itself is late.

    When time is over, the answer may lie in the socket already, unread because the loop had too much to do or the
    machine did something else. So the loop first gets time to look, and more while it goes on being late.

    Raises:
        TimeoutError: time was over.
    """
    loop = asyncio.get_running_loop()
    watching: asyncio.TimerHandle
    async with asyncio.timeout(None) as limit:

        def look(due: float, graces: int) -> None:
            nonlocal watching
            now = loop.time()
            if graces == MOST_GRACES or (graces and now - due < LATE_SECONDS):
                limit.reschedule(now)
            else:
                watching = loop.call_at(now + GRACE_SECONDS, look, now + GRACE_SECONDS, graces + 1)

        watching = loop.call_later(seconds, look, loop.time() + seconds, 0)
        try:
            yield
        finally:
            watching.cancel()
