"""A time-out that tells another's silence from the loop's own lateness."""

import asyncio
import socket
import time

import pytest

from serving.patience import patience


def test_silence_ends_the_wait() -> None:
    """Nobody answers: TimeoutError."""

    async def wait() -> None:
        async with patience(0.01):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(wait(), 10))


def test_an_answer_in_time_is_taken() -> None:
    """And the block goes on."""

    async def wait() -> str:
        async with patience(5):
            return await asyncio.sleep(0, "answer")

    assert asyncio.run(wait()) == "answer"


def test_an_answer_that_lies_unread_while_the_loop_is_late_is_taken() -> None:
    """The loop did something else for longer than the time-out: the answer came long ago."""

    async def wait() -> bytes:
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        with here, there:
            here.setblocking(False)
            there.send(b"answer")
            loop.call_soon(time.sleep, 0.1)
            async with patience(0.02):
                await asyncio.sleep(0)
                return await loop.sock_recv(here, 6)

    assert asyncio.run(wait()) == b"answer"


def test_an_answer_that_comes_while_the_loop_goes_on_being_late_is_taken() -> None:
    """As long as it is late, so may the answer be."""

    async def wait() -> str:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()

        def be_late(times: int) -> None:
            time.sleep(0.03)
            if times:
                loop.call_soon(be_late, times - 1)
            else:
                answer.set_result("answer")

        loop.call_soon(be_late, 5)
        async with patience(0.02):
            return await answer

    assert asyncio.run(wait()) == "answer"


def test_silence_ends_the_wait_of_a_loop_that_is_always_late() -> None:
    """Lateness buys time, but not without end."""

    async def wait() -> None:
        loop = asyncio.get_running_loop()

        def be_late() -> None:
            time.sleep(0.02)
            loop.call_soon(be_late)

        loop.call_soon(be_late)
        async with patience(0.01):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(wait(), 60))
