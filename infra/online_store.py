"""Connections to the online store (Redis 7+ or Valkey). Keys and codecs belong to the stage that writes them.

Time-outs are short and nothing is retried in here: whoever calls decides whether to fail closed (consent) or soft
(serving).
"""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeGuard, TypeVar, cast

import hiredis
import redis
import redis.asyncio
import redis.asyncio.cluster
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.crc import key_slot
from redis.exceptions import MovedError, RedisClusterException
from redis.retry import Retry

from infra.transport import Cluster, is_cluster

TIMEOUT_SECONDS = 1.5
REPLICA_SECONDS = 1.0
"""How long `on_a_replica` waits."""

OnlineStore = redis.Redis
AsyncOnlineStore = redis.asyncio.Redis
OnlineStoreError = (redis.RedisError, RedisClusterException)
"""What a client of the online store raises; time-outs and refused connections are among it."""

T = TypeVar("T")


def connect(url: str, timeout: float = TIMEOUT_SECONDS) -> OnlineStore:
    """A blocking client, safe to share between threads. It connects on first use.

    On a cluster it has the same methods, for keys of one slot where a command takes several: see
    docs/redis-cluster.md.
    """
    if not is_cluster(url):
        return redis.Redis.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0), protocol=3
        )
    return cast("OnlineStore", _Cluster(url, timeout))


def connect_async(url: str, timeout: float | None = TIMEOUT_SECONDS) -> AsyncOnlineStore:
    """A client for one event loop. It connects on first use. Without a time-out the caller watches the clock."""
    if not is_cluster(url):
        return redis.asyncio.Redis.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=AsyncRetry(NoBackoff(), 0), protocol=3
        )
    cluster = Cluster.of(url)
    nodes = [redis.asyncio.cluster.ClusterNode(host, port) for host, port in cluster.addresses]
    client = redis.asyncio.RedisCluster(
        startup_nodes=nodes, retry=AsyncRetry(NoBackoff(), 0), **cluster.options(timeout or TIMEOUT_SECONDS)
    )
    return cast("AsyncOnlineStore", client)


def script(store: OnlineStore, text: str) -> Script:
    """A Lua script of the store's. Nothing is asked of the store before it runs."""
    return Script(store, text.encode())


def set_all(store: OnlineStore, values: Mapping[str, bytes], ttl_seconds: int) -> None:
    """Set many keys, in one round trip of each master."""
    if _clustered(store):
        writes = store.pipeline(transaction=False)
        for key, value in values.items():
            writes.set(key, value, ex=ttl_seconds)
        writes.execute()
    else:
        store.eval(_SET_ALL, len(values), *values.keys(), ttl_seconds, *values.values())


def on_a_replica(store: OnlineStore, key: str, write: Callable[[OnlineStore], T]) -> T:
    """Write on the master of a key, and return when one of its replicas has what was written, so that it stays.

    A single Redis has written it to its own file by then, as far as it is told to, and nobody else is asked.

    Args:
        store: the online store.
        key: of the slot that is written to.
        write: what is done, with the client it is given.

    Raises:
        OnlineStoreError: it was not written, or no replica has it within `REPLICA_SECONDS`: it may be lost yet.
    """
    if not _clustered(store):
        return write(store)
    with store.on_master_of(key) as master:
        written = write(master)
        if not master.wait(1, int(1000 * REPLICA_SECONDS)):
            raise redis.ConnectionError("no replica of the online store has taken what was written")
    return written


def masters(store: OnlineStore) -> list[OnlineStore]:
    """A client of each part of the store: of each master, or of the one Redis."""
    if not _clustered(store):
        return [store]
    return [cast("OnlineStore", node.redis_connection) for node in store.get_primaries()]


class _Cluster:
    """A client of a cluster, which is made when it is first asked something: it looks for its nodes at once.

    Attributes:
        clustered: true; a single Redis has no such attribute. The others are those of `redis.RedisCluster`.
    """

    clustered = True

    def __init__(self, url: str, timeout: float) -> None:
        self._cluster = Cluster.of(url)
        self._timeout = timeout
        self._making = threading.Lock()
        self._made: redis.RedisCluster | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client(), name)

    def close(self) -> None:
        """Close what was opened."""
        if self._made is not None:
            self._made.close()

    @contextmanager
    def on_master_of(self, key: str) -> Iterator[OnlineStore]:
        """One connection to the master of a key; whoever it does not answer as master looks for the new one."""
        client: Any = self._client()
        try:
            with client.get_redis_connection(client.get_node_from_key(key)).client() as master:
                yield master
        except (redis.ConnectionError, redis.TimeoutError, MovedError):
            with suppress(*OnlineStoreError):
                client.nodes_manager.initialize()
            raise

    def _client(self) -> redis.RedisCluster:
        with self._making:
            if self._made is None:
                made = redis.cluster.ClusterNode
                nodes = [made(host, port) for host, port in self._cluster.addresses]  # type: ignore[no-untyped-call]
                options = self._cluster.options(self._timeout)
                self._made = redis.RedisCluster(startup_nodes=nodes, retry=Retry(NoBackoff(), 0), **options)
        return self._made


def _clustered(store: object) -> TypeGuard[_Cluster]:
    return bool(getattr(store, "clustered", False))


_SET_ALL = """
for i = 1, #KEYS do
    redis.call('SET', KEYS[i], ARGV[i + 1], 'EX', ARGV[1])
end
"""
"""A batch in one command: a store that syncs its file after every command it reads would do so fifty times else."""


def slot_of(key: bytes) -> int:
    """The slot of a cluster that a key is in."""
    return int(key_slot(key))


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
        self._store = store
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
        [values] = await self._ask(b"*%d\r\n$4\r\nMGET\r\n%b" % (length + 1, b"".join(packed_keys)), 1)
        if isinstance(values, Exception):
            await self.close()
            raise values
        return cast("list[bytes | None]", values)

    async def ping(self) -> None:
        """Ask, over another connection, whether the store answers.

        Raises:
            OnlineStoreError: it does not.
        """
        await self._store.ping()

    async def _ask(self, command: bytes, replies: int) -> list[Any]:
        """The replies to packed commands; an error of the server's is one, too."""
        connection = self._replies
        if connection is None or connection.lost:
            connection = self._replies = await self._connect()
        try:
            return await connection.to(command, replies)
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


class MasterReader(KeyReader):
    """The same of one master of a cluster, where the keys of a member are of one slot, and those of two need not be.

    Attributes:
        astray: a slot was not there any more, or not all of it.
    """

    def __init__(self, store: AsyncOnlineStore) -> None:
        super().__init__(store)
        self.astray = False

    async def read(self, packed_keys: Sequence[bytes], length: int) -> list[bytes | None]:
        """As `KeyReader.read`; None for the keys of a slot that it is not the master of. All members are equally long.

        Raises:
            OnlineStoreError: the connection is lost.
        """
        each = length // len(packed_keys)
        begin = b"*%d\r\n$4\r\nMGET\r\n" % (each + 1)
        found: list[bytes | None] = []
        for values in await self._ask(begin + begin.join(packed_keys), len(packed_keys)):
            if isinstance(values, Exception):
                self.astray |= str(values).startswith(("MOVED", "ASK", "CLUSTERDOWN"))
                found += [None] * each
            else:
                found += values
        return found


class _Replies(asyncio.Protocol):
    """A connection that is asked one thing at a time.

    Attributes:
        lost: the connection is gone.
    """

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self.lost = False
        self._transport = transport
        self._parser = hiredis.Reader()
        self._found: list[Any] = []
        self._awaited = 1
        self._reply: asyncio.Future[list[Any]] | None = None

    def to(self, commands: bytes, replies: int) -> "asyncio.Future[list[Any]]":
        """The replies to so many packed commands."""
        self._found, self._awaited = [], replies
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(commands)
        return self._reply

    def data_received(self, data: bytes) -> None:
        """Take in a part of a reply. What the server tells unasked is passed over."""
        try:
            self._parser.feed(data)
            while (reply := self._parser.gets()) is not False:
                if not isinstance(reply, hiredis.PushNotification):
                    self._found.append(redis.ResponseError(str(reply)) if isinstance(reply, Exception) else reply)
                    if len(self._found) == self._awaited:
                        self._end(self._found)
        except hiredis.ProtocolError as error:
            self._end(redis.ConnectionError(str(error)))

    def connection_lost(self, error: Exception | None) -> None:
        """Whoever waits is told."""
        self.lost = True
        self._end(redis.ConnectionError("the online store ended the connection"))

    def _end(self, reply: Any) -> None:
        if self._reply is None or self._reply.done():
            return
        if isinstance(reply, redis.RedisError):
            self._reply.set_exception(reply)
        else:
            self._reply.set_result(reply)
