"""Faults to put between the platform and what it leans on: a small TCP proxy, and signals. Each of them ends by itself.

The proxy listens on loopback only. Whatever happens to the drill, a fault lasts no longer than it was given.
"""

import asyncio
import os
import signal
import ssl
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Any, TypeVar
from urllib.parse import urlsplit

CHUNK = 65_536
CHUNKS_UNDER_WAY = 1000
LONGEST_SECONDS = 60.0

T = TypeVar("T")
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Fault(Enum):
    """What a proxy does to connections."""

    NONE = "forwards everything"
    CUT = "ends connections and refuses new ones"
    HANG = "accepts connections and forwards nothing"
    SLOW = "forwards everything late"


class Proxy:
    """A TCP proxy on loopback, in a thread of its own; a context manager.

    Args:
        upstream: where it forwards to: unix:///path or tcp://host:port.
        tls: what it shows to clients, who then come by TLS; None: they come without.
    """

    def __init__(self, upstream: str, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self._tls = tls
        self._upstream = urlsplit(upstream)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._fault = Fault.NONE
        self._delay = 0.0
        self._through = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()

    def __enter__(self) -> "Proxy":
        self._thread.start()
        self._call(self._set(Fault.NONE, 0.0))
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextmanager
    def fault(self, fault: Fault, *, delay: float = 0.0, longest: float = LONGEST_SECONDS) -> Iterator[None]:
        """Have a fault for as long as the context lasts.

        Args:
            fault: which.
            delay: seconds each way; for `Fault.SLOW`.
            longest: seconds after which it ends whatever happens.
        """
        self._call(self._set(fault, delay))
        end = threading.Timer(longest, lambda: self._call(self._set(Fault.NONE, 0.0)))
        end.start()
        try:
            yield
        finally:
            end.cancel()
            end.join()
            self._call(self._set(Fault.NONE, 0.0))

    async def _set(self, fault: Fault, delay: float) -> None:
        self._fault, self._delay = fault, delay
        if fault is Fault.CUT:
            await self._refuse()
        elif self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=self._tls)
            self.port = self._server.sockets[0].getsockname()[1]
        if fault is Fault.HANG:
            self._through.clear()
        else:
            self._through.set()

    async def _close(self) -> None:
        """Cut, and wait for the end of connections that were accepted a moment ago and are among the pumps only now."""
        await self._set(Fault.CUT, 0.0)
        while late := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(late)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection
        self._pumps.add(connection)
        try:
            if self._fault is not Fault.CUT:
                await self._forward((reader, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._pumps.discard(connection)
            writer.transport.abort()

    async def _forward(self, client: Stream) -> None:
        await self._through.wait()
        upstream = await self._connect()
        try:
            async with asyncio.TaskGroup() as group:
                for (reader, _), (_, writer) in ((client, upstream), (upstream, client)):
                    chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_UNDER_WAY)
                    group.create_task(self._take(reader, chunks))
                    group.create_task(self._give(chunks, writer))
        except* OSError:
            pass
        finally:
            upstream[1].transport.abort()

    async def _connect(self) -> Stream:
        if self._upstream.scheme == "unix":
            return await asyncio.open_unix_connection(self._upstream.path)
        assert self._upstream.hostname
        return await asyncio.open_connection(self._upstream.hostname, self._upstream.port)

    async def _take(self, reader: asyncio.StreamReader, chunks: "asyncio.Queue[tuple[float, bytes]]") -> None:
        while data := await reader.read(CHUNK):
            await chunks.put((self._loop.time() + self._delay, data))
        await chunks.put((0.0, b""))

    async def _give(self, chunks: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter) -> None:
        while True:
            due, data = await chunks.get()
            await asyncio.sleep(due - self._loop.time())
            await self._through.wait()
            if not data:
                raise ConnectionResetError("one side has closed")
            writer.write(data)
            await writer.drain()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


@contextmanager
def paused(pid: int, longest: float = LONGEST_SECONDS) -> Iterator[None]:
    """Stop a process where it stands (SIGSTOP), and let it go on (SIGCONT) after the context or `longest` seconds."""
    os.kill(pid, signal.SIGSTOP)
    end = threading.Timer(longest, _go_on, [pid])
    end.start()
    try:
        yield
    finally:
        end.cancel()
        end.join()
        _go_on(pid)


def _go_on(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
