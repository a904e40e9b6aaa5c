"""Connections to the online store (Redis 7+ or Valkey). Keys and codecs belong to the stage that writes them.

Time-outs are short and nothing is retried in here: whoever calls decides whether to fail closed (consent) or soft
(serving).
"""

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


def connect_async(url: str, timeout: float = TIMEOUT_SECONDS) -> AsyncOnlineStore:
    """A client for one event loop. It connects on first use."""
    return redis.asyncio.Redis.from_url(
        url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=AsyncRetry(NoBackoff(), 0), protocol=3
    )
