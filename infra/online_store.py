"""Connections to the online store (Redis 7+ or Valkey). Keys and codecs belong to the stage that writes them.

Time-outs are short and nothing is retried in here: whoever calls decides whether to fail closed (consent) or soft
(serving).
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import hiredis
import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

TIMEOUT_SECONDS = 1.5

OnlineStore = redis.Redis
AsyncOnlineStore = redis.asyncio.Redis
OnlineStoreError = redis.RedisError
"""Root of what a client of the online store raises; time-outs and refused connections are among it."""


def connect(url: str, timeout: float = TIMEOUT_SECONDS) -> OnlineStore:
    """A blocking client, safe to share between threads. It connects on first use."""
    return redis.Redis.from_url(
        url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0), protocol=3
    )


def connect_async(url: str, timeout: float | None = TIMEOUT_SECONDS) -> AsyncOnlineStore:
    """A client for one event loop. It connects on first use. Without a time-out the caller watches the clock."""
    return redis.asyncio.Redis.from_url(
        url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=AsyncRetry(NoBackoff(), 0), protocol=3
    )


def packed_key(key: bytes) -> bytes:
    """A key as `KeyReader.read` takes it (an argument of a command, as RESP has it)."""
    return b"$%d\r\n%b\r\n" % (len(key), key)


class KeyReader:
    """Reads many keys at a time over one connection, past the client's packing, streams and parsing: most of its time.

    The client still connects, greets and authenticates; then the connection is taken over.

    Args:
        store: whose settings the connection has. It has no time-out: the caller watches the clock.
    """

    def __init__(self, store: AsyncOnlineStore) -> None:
        self._connection = store.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        self._replies: _Replies | None = None

    async def read(self, packed_keys: Sequence[bytes], length: int) -> list[bytes | None]:
        """The values of `length` keys; None where there is none. Whoever stops waiting ends the connection with it.

        Args:
            packed_keys: made by `packed_key`; a member may hold several.
            length: how many keys they are together.

        Raises:
            OnlineStoreError: the store does not answer as it should.
        """
        replies = self._replies
        if replies is None or replies.lost:
            replies = self._replies = await self._connect()
        try:
            return await replies.to(b"*%d\r\n$4\r\nMGET\r\n%b" % (length + 1, b"".join(packed_keys)))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection; the next read opens another."""
        self._replies = None
        await self._connection.disconnect(nowait=True)

    async def _connect(self) -> "_Replies":
        await self._connection.disconnect(nowait=True)
        await self._connection.connect()
        transport = self._connection._writer.transport
        replies = _Replies(transport)
        transport.set_protocol(replies)
        return replies


class _Replies(asyncio.Protocol):
    """A connection that is asked one thing at a time.

    Attributes:
        lost: the connection is gone.
    """

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self.lost = False
        self._transport = transport
        self._parser = hiredis.Reader()
        self._reply: asyncio.Future[list[bytes | None]] | None = None

    def to(self, command: bytes) -> "asyncio.Future[list[bytes | None]]":
        """The reply to a packed command."""
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(command)
        return self._reply

    def data_received(self, data: bytes) -> None:
        """Take in a part of a reply. What the server tells unasked is passed over."""
        try:
            self._parser.feed(data)
            while (reply := self._parser.gets()) is not False:
                if not isinstance(reply, hiredis.PushNotification):
                    self._end(reply)
        except hiredis.ProtocolError as error:
            self._end(error)

    def connection_lost(self, error: Exception | None) -> None:
        """Whoever waits is told."""
        self.lost = True
        self._end(redis.ConnectionError("the online store ended the connection"))

    def _end(self, reply: Any) -> None:
        if self._reply is None or self._reply.done():
            return
        if isinstance(reply, redis.RedisError):
            self._reply.set_exception(reply)
        elif isinstance(reply, Exception):
            self._reply.set_exception(redis.ResponseError(str(reply)))
        else:
            self._reply.set_result(reply)
