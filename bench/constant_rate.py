"""Asks at a constant rate through outages and keeps what became of every request; time counts from when it was due.

For drills: `bench.open_loop` is finer in time, and ends at the first error. One connection carries one request at a
time, as a load balancer's do. A request for which no connection is free waits in here, and its waiting is part of its
time.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import uvloop

TICK_SECONDS = 0.001
CONNECTIONS = 64
PATIENCE_SECONDS = 5.0
"""A viewer who has waited so long has gone: the request counts as not answered."""

NO_ANSWER = 0
"""The status of what got no answer: refused, broken off, or too late."""

Look = Callable[[int, bytes, bytes], Any]
"""Called with status, head and body of an answer; what it returns is kept."""


class Answer(NamedTuple):
    """What became of one request.

    Attributes:
        at: when it should have been asked, by `time.monotonic()`.
        seconds: from then to the end of the answer.
        status: HTTP status, or `NO_ANSWER`.
        seen: what `look` made of it; None where there is no answer.
    """

    at: float
    seconds: float
    status: int
    seen: Any


class _Request(NamedTuple):
    at: float
    payload: bytes
    again: bool


class ConstantRate:
    """One load, in a thread of its own, that somebody may end early.

    Args:
        port: on loopback.
        request: makes the bytes of the next request (HTTP/1.1, kept alive).
        rate: requests a second.
        seconds: for how long, at most.
        look: what is kept of an answer; None: nothing.
        connections: at most so many requests are under way.
        patience: seconds that an answer may take.
    """

    def __init__(
        self,
        port: int,
        request: Callable[[], bytes],
        rate: float,
        seconds: float,
        *,
        look: Look | None = None,
        connections: int = CONNECTIONS,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.answers: list[Answer] = []
        self.asked = 0
        self._port = port
        self._request = request
        self._rate = rate
        self._seconds = seconds
        self._look = look
        self._most = connections
        self._patience = patience
        self._free: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._opening = 0
        self._waiting: deque[_Request] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="constant rate", daemon=True)

    def __enter__(self) -> "ConstantRate":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ask nothing more, and wait for what is under way."""
        self._stop.set()
        self.wait()

    def wait(self) -> None:
        """Wait for the end."""
        self._thread.join(self._seconds + self._patience + 30)

    def done(self, connection: "_Connection", status: int, head: bytes, body: bytes) -> None:
        """Note an answer; the connection takes what waits."""
        asked, connection.asked = connection.asked, None
        assert asked is not None
        seen = self._look(status, head, body) if self._look and status else None
        self.answers.append(Answer(asked.at, time.monotonic() - asked.at, status, seen))
        self._busy.discard(connection)
        if connection.open:
            self._take(connection)

    def lost(self, connection: "_Connection") -> None:
        """A connection ended: what it carried is asked again once if the server closed it before it could know."""
        asked, connection.asked = connection.asked, None
        self._busy.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if asked is None:
            return
        if connection.answered and not connection.buffer and not asked.again:
            self._send(asked._replace(again=True))
        else:
            self._fail(asked)

    def _run(self) -> None:
        uvloop.run(self._ask_all())

    async def _ask_all(self) -> None:
        loop, begin = asyncio.get_running_loop(), time.monotonic()
        looked = begin
        while not self._stop.is_set() and (now := time.monotonic()) < begin + self._seconds:
            due = int((now - begin) * self._rate) + 1
            for number in range(self.asked, due):
                self._send(_Request(begin + number / self._rate, self._request(), again=False))
            self.asked = max(self.asked, due)
            if now - looked > self._patience / 20:
                looked = now
                self._give_up(now)
            await asyncio.sleep(TICK_SECONDS)
        end = loop.time() + self._patience
        while (self._busy or self._waiting or self._opening) and loop.time() < end:
            self._give_up(time.monotonic())
            await asyncio.sleep(0.01)
        for connection in [*self._free, *self._busy]:
            connection.close()
        await asyncio.sleep(0.01)

    def _send(self, request: _Request) -> None:
        if self._free:
            self._carry(self._free.pop(), request)
            return
        self._waiting.append(request)
        if len(self._busy) + self._opening < self._most:
            self._opening += 1
            task = asyncio.get_running_loop().create_task(self._open())
            task.add_done_callback(lambda _: None)

    async def _open(self) -> None:
        try:
            async with asyncio.timeout(self._patience):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: _Connection(self), "127.0.0.1", self._port
                )
        except (OSError, TimeoutError):
            if self._waiting:
                self._fail(self._waiting.popleft())
        else:
            self._take(connection)
        finally:
            self._opening -= 1

    def _take(self, connection: "_Connection") -> None:
        if self._waiting:
            self._carry(connection, self._waiting.popleft())
        else:
            self._free.append(connection)

    def _carry(self, connection: "_Connection", request: _Request) -> None:
        self._busy.add(connection)
        connection.ask(request)

    def _fail(self, request: _Request) -> None:
        self.answers.append(Answer(request.at, time.monotonic() - request.at, NO_ANSWER, None))

    def _give_up(self, now: float) -> None:
        while self._waiting and now - self._waiting[0].at > self._patience:
            self._fail(self._waiting.popleft())
        for connection in [c for c in self._busy if c.asked and now - c.asked.at > self._patience]:
            assert connection.asked
            self._busy.discard(connection)
            self._fail(connection.asked)
            connection.asked = None
            connection.close()


class _Connection(asyncio.Protocol):
    """Carries one request at a time."""

    def __init__(self, load: ConstantRate) -> None:
        self.asked: _Request | None = None
        self.buffer = b""
        self.open = False
        self.answered = 0
        self._load = load
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.open = cast("asyncio.Transport", transport), True

    def ask(self, request: _Request) -> None:
        assert self._transport
        self.asked, self.buffer = request, b""
        self._transport.write(request.payload)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, gap, body = self.buffer.partition(b"\r\n\r\n")
        if gap and len(body) >= _length(head):
            self.answered += 1
            if self.asked:
                self._load.done(self, int(head[9:12]), head, body)

    def connection_lost(self, _: Exception | None) -> None:
        self.open = False
        self._load.lost(self)

    def close(self) -> None:
        self.open = False
        if self._transport:
            self._transport.abort()


def _length(head: bytes) -> int:
    found = head.lower().partition(b"content-length:")[2]
    return int(found.partition(b"\r\n")[0] or 0)


def get(path: str, key: str) -> bytes:
    """The bytes of a GET with the platform's key."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
