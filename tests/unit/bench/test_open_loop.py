"""Latency counts from when a request was due: a server that stops for a while shows in all that were due meanwhile."""

import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from bench.open_loop import ask, measure

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@contextmanager
def server(delay: float = 0.0, stop_at: int = -1, stop: float = 0.0, status: int = 200) -> Iterator[int]:
    """A server of one thread a connection that answers so late, and is silent for a while from an answer on."""
    answered, silent = 0, threading.Lock()

    class Answering(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            nonlocal answered
            with suppress(ConnectionError):
                while self.rfile.readline():
                    while self.rfile.readline() != b"\r\n":
                        pass
                    time.sleep(delay)
                    with silent:
                        answered += 1
                        time.sleep(stop if answered == stop_at else 0)
                    self.wfile.write(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\n" % status)
                    self.wfile.write(b"ok")

    class Server(socketserver.ThreadingTCPServer):
        request_queue_size = 64
        daemon_threads = True

    with Server(("127.0.0.1", 0), Answering) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield listening.server_address[1]
        listening.shutdown()
        thread.join()


def test_latencies_are_the_servers_own() -> None:
    """Of a server that takes 20 ms, no latency is shorter."""
    with server(delay=0.02) as port:
        latencies = ask(port, [REQUEST], rate=100, seconds=1)
    assert len(latencies) == 50
    assert min(latencies) >= 0.02


def test_a_pause_shows_in_all_that_were_due_meanwhile() -> None:
    """At 200 requests/s a silence of 0.5 s makes a hundred late: half of them by more than 0.25 s."""
    with server(stop_at=150, stop=0.5) as port:
        latencies = ask(port, [REQUEST], rate=200, seconds=2)
    assert sum(latency > 0.25 for latency in latencies) >= 45


def test_waiting_for_a_connection_is_part_of_the_latency() -> None:
    """One connection to a server that takes 20 ms bears 50 requests/s; at 100 the last has waited for a second."""
    with server(delay=0.02) as port:
        assert max(ask(port, [REQUEST], rate=100, seconds=2, connections=1)) > 0.9


def test_the_measurement_is_of_a_process_of_its_own() -> None:
    """In milliseconds."""
    with server(delay=0.02) as port:
        seen = measure(port, [REQUEST], rate=50, seconds=1)
    assert 20 <= seen["p50_ms"] <= seen["p90_ms"] <= seen["p99_ms"] <= seen["max_ms"]


def test_an_answer_that_is_none_ends_the_measurement() -> None:
    """A server that refuses is not fast."""
    with server(status=503) as port, pytest.raises(RuntimeError, match="answered 503"):
        ask(port, [REQUEST], rate=50, seconds=1)
