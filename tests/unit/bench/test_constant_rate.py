"""The client keeps its rate whatever the server does, and counts time from when it should have asked."""

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from bench.constant_rate import NO_ANSWER, ConstantRate, get


@contextmanager
def server(delay: float = 0.0, requests_a_connection: int = 10**9) -> Iterator[int]:
    """A server that answers so late, and ends a connection after so many answers; yields its port."""
    over = threading.Event()

    class Answering(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(ConnectionError):
                for _ in range(requests_a_connection):
                    while (line := self.rfile.readline()) != b"\r\n":
                        if not line:
                            return
                    over.wait(delay)
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    class Server(socketserver.ThreadingTCPServer):
        request_queue_size = 64

    with Server(("127.0.0.1", 0), Answering) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield listening.server_address[1]
        over.set()
        listening.shutdown()
        thread.join()


def ask(port: int, rate: float = 200, seconds: float = 0.5, **options: float) -> ConstantRate:
    request = get("/", "key")
    with ConstantRate(port, lambda: request, rate, seconds, look=lambda status, head, body: body, **options) as load:  # type: ignore[arg-type]
        load.wait()
    return load


def test_it_asks_as_often_as_it_should_and_keeps_what_was_answered() -> None:
    with server() as port:
        load = ask(port)
    assert load.asked == pytest.approx(100, abs=3)
    assert len(load.answers) == load.asked
    assert {(answer.status, answer.seen) for answer in load.answers} == {(200, b"ok")}


def test_a_slow_server_does_not_slow_it_down_and_the_queue_shows_in_the_time() -> None:
    with server(delay=0.1) as port:
        load = ask(port, rate=100, seconds=0.5, connections=5)
    assert load.asked == pytest.approx(50, abs=3)
    # 5 connections carry 50 requests/s: who comes last waits for half of all.
    assert max(answer.seconds for answer in load.answers) > 0.3


def test_who_gets_no_answer_in_time_counts_as_not_answered() -> None:
    with server(delay=60) as port:
        load = ask(port, rate=20, seconds=0.3, patience=0.2)
    assert {answer.status for answer in load.answers} == {NO_ANSWER}
    assert len(load.answers) == load.asked


def test_nobody_there_counts_as_not_answered() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    load = ask(port, rate=50, seconds=0.2)
    assert {answer.status for answer in load.answers} == {NO_ANSWER}
    assert len(load.answers) == load.asked


def test_a_connection_that_the_server_ends_between_requests_costs_nothing() -> None:
    with server(requests_a_connection=3) as port:
        load = ask(port)
    assert {answer.status for answer in load.answers} == {200}
    assert len(load.answers) == load.asked


def test_it_ends_early_when_told_to() -> None:
    request = get("/", "key")
    with server() as port:
        begin = time.monotonic()
        with ConstantRate(port, lambda: request, rate=100, seconds=60):
            pass
        assert time.monotonic() - begin < 30
