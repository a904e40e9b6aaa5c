"""Connections to the online store (Redis 7+ or Valkey). Keys and codecs belong to the stage that writes them.

Time-outs are short and nothing is retried in here: whoever calls decides whether to fail closed (consent) or soft
(serving).
"""

from collections.abc import Sequence
from typing import cast

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
    """Reads many keys at a time over one connection, past the client's packing of commands: most of the time.

    Args:
        store: whose settings the connection has. It has no time-out: the caller watches the clock.
    """

    def __init__(self, store: AsyncOnlineStore) -> None:
        self._connection = store.connection_pool.make_connection()  # type: ignore[no-untyped-call]

    async def read(self, packed_keys: Sequence[bytes], length: int) -> list[bytes | None]:
        """The values of `length` keys; None where there is none. Whoever stops waiting ends the connection with it.

        Args:
            packed_keys: made by `packed_key`; a member may hold several.
            length: how many keys they are together.

        Raises:
            OnlineStoreError: the store does not answer as it should.
        """
        await self._connection.send_packed_command(b"*%d\r\n$4\r\nMGET\r\n%b" % (length + 1, b"".join(packed_keys)))
        return cast("list[bytes | None]", await self._connection.read_response())

    async def close(self) -> None:
        """Close the connection; the next read opens another."""
        await self._connection.disconnect(nowait=True)
