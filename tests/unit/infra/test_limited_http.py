"""Who opens a connection and sends no whole head is let go; who does is served as ever."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from infra.limited_http import LONGEST_HEAD, LimitedHttp

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with how long the body was, after a second where the path says so."""
    length = 0
    while True:
        message = await receive()
        length += len(message["body"])
        if not message["more_body"]:
            break
    if scope["path"] == "/slow":
        await asyncio.sleep(1)
    body = b"%d" % length
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def running(protocol: type[HttpToolsProtocol]) -> Iterator[int]:
    """The port of a server with a protocol."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, loop="uvloop", http=protocol, lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server that waits .4 s for a head."""
    monkeypatch.setattr("infra.limited_http.HEAD_SECONDS", 0.4)
    with running(LimitedHttp) as port:
        yield port


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 20)


def cut_off(client: socket.socket, drops: bytes = b"", seconds: float = 20) -> bool:
    """Whether the server ends the connection while `drops` are sent, a byte at a time, again and again."""
    client.settimeout(0.05)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if not client.recv(65536):
                return True
        except TimeoutError:
            client.sendall(drops[:1])
            drops = drops[1:] + drops[:1]
        except ConnectionError:
            return True
    return False


@pytest.mark.parametrize(
    ("begun", "drops"),
    [
        pytest.param(b"", b"", id="nothing"),
        pytest.param(b"", b"\r\n", id="empty lines"),
        pytest.param(b"G", b"", id="half a word"),
        pytest.param(HEAD, b"a: b\r\n", id="headers without end"),
        pytest.param(HEAD + b"\r\n", b"\r\n", id="empty lines after a request"),
        pytest.param(HEAD + b"\r\nGET /", b"x", id="half a second one"),
    ],
)
def test_who_sends_no_whole_head_is_cut_off(port: int, begun: bytes, drops: bytes) -> None:
    with connect(port) as client:
        client.sendall(begun)
        assert cut_off(client, drops)


def test_the_test_finds_a_server_that_waits_for_ever() -> None:
    """uvicorn's own protocol does."""
    with running(HttpToolsProtocol) as port, connect(port) as client:
        client.sendall(HEAD)
        assert not cut_off(client, b"a: b\r\n", seconds=1.5)


def test_a_head_without_end_is_refused_however_fast_it_comes() -> None:
    """By its length, long before its time is over."""
    with running(LimitedHttp) as port, connect(port) as client:
        client.sendall(HEAD + b"a: " + b"x" * (LONGEST_HEAD // 2))
        with pytest.raises(ConnectionError):
            client.sendall(b"x" * 2**28)


def test_long_bodies_slow_answers_and_idle_connections_are_none_of_its_business(port: int) -> None:
    """One connection: a body of many heads' length, an answer that takes longer than a head may, another request."""
    with connect(port) as client, client.makefile("rb") as answers:
        length = 8 * LONGEST_HEAD
        for path, body in ((b"/", b"x" * length), (b"/slow", b""), (b"/", b"y" * 10)):
            head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path, len(body))
            client.sendall(head[:20])
            time.sleep(0.05)
            client.sendall(head[20:] + body)
            assert answers.readline().startswith(b"HTTP/1.1 200")
            while answers.readline() != b"\r\n":
                pass
            assert answers.read(len(str(len(body)))) == b"%d" % len(body)
            time.sleep(0.6)
