"""Reading many keys over a connection that was taken over from the client: whole replies, each to its own question."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Protocol

import pytest

from infra.online_store import KeyReader, OnlineStoreError, connect, connect_async, packed_key


class RedisServer(Protocol):
    url: str

    def start(self) -> None: ...

    def kill(self, number: int = signal.SIGKILL) -> None: ...


def reading(url: str, work: Callable[[KeyReader], Awaitable[None]]) -> None:
    async def run() -> None:
        store = connect_async(url, None)
        reader = KeyReader(store)
        try:
            await work(reader)
        finally:
            await reader.close()
            await store.aclose()

    asyncio.run(run())


async def values(reader: KeyReader, *keys: bytes) -> list[bytes | None]:
    return await reader.read([packed_key(key) for key in keys], len(keys))


def test_values_come_in_the_order_of_the_keys_and_none_where_there_is_none(own_redis: RedisServer) -> None:
    store = connect(own_redis.url)
    store.set("a", b"1")
    store.set("b", b"")
    store.set("ü", b"\r\n$1")

    async def work(reader: KeyReader) -> None:
        assert await values(reader, b"b", b"gone", "ü".encode(), b"a") == [b"", None, b"\r\n$1", b"1"]
        assert await reader.read([packed_key(b"a") + packed_key(b"b")], 2) == [b"1", b""]

    reading(own_redis.url, work)


def test_a_reply_that_comes_in_pieces_is_put_together(own_redis: RedisServer) -> None:
    connect(own_redis.url).set("large", b"x" * 8_000_000)

    async def work(reader: KeyReader) -> None:
        (value,) = await values(reader, b"large")
        assert value == b"x" * 8_000_000

    reading(own_redis.url, work)


def test_who_stops_waiting_leaves_no_reply_to_the_next(own_redis: RedisServer) -> None:
    store = connect(own_redis.url)
    store.mset({"a": b"1", "b": b"2"})

    async def work(reader: KeyReader) -> None:
        await values(reader, b"a")
        own_redis.kill(signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await values(reader, b"a")
        own_redis.kill(signal.SIGCONT)
        assert await values(reader, b"b") == [b"2"]

    reading(own_redis.url, work)


def test_a_store_that_dies_is_an_error_at_once_and_one_that_comes_back_is_read_again(own_redis: RedisServer) -> None:
    async def work(reader: KeyReader) -> None:
        await values(reader, b"a")
        own_redis.kill(signal.SIGSTOP)
        waiting = asyncio.create_task(values(reader, b"a"))
        await asyncio.sleep(0.05)
        own_redis.kill()
        with pytest.raises(OnlineStoreError):
            await asyncio.wait_for(waiting, 5)
        with pytest.raises(OnlineStoreError):
            await values(reader, b"a")
        own_redis.start()
        assert await values(reader, b"a") == [None]

    reading(own_redis.url, work)


def test_what_the_store_refuses_is_an_error(own_redis: RedisServer) -> None:
    async def work(reader: KeyReader) -> None:
        with pytest.raises(OnlineStoreError, match="wrong number of arguments"):
            await reader.read([], 0)
        assert await values(reader, b"a") == [None]

    reading(own_redis.url, work)


def test_what_the_store_tells_unasked_is_passed_over(own_redis: RedisServer) -> None:
    store = connect(own_redis.url)
    store.set("a", b"1")

    async def work(reader: KeyReader) -> None:
        await values(reader, b"a")
        assert reader._replies is not None
        reader._replies._transport.write(b"*3\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$2\r\nON\r\n")
        await asyncio.sleep(0.05)
        await values(reader, b"a")
        store.set("a", b"2")
        assert await values(reader, b"a") == [b"2"]

    reading(own_redis.url, work)


def test_a_connection_that_was_lost_meanwhile_is_made_anew(own_redis: RedisServer) -> None:
    async def work(reader: KeyReader) -> None:
        await values(reader, b"a")
        own_redis.kill()
        own_redis.start()
        await asyncio.sleep(0.05)
        assert await asyncio.wait_for(values(reader, b"a"), 5) == [None]

    reading(own_redis.url, work)
