"""The proxy and the signals do what they say, and end by themselves."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from bench.faults import Fault, Proxy, paused


class Echo:
    """A server on a Unix socket that sends back what it gets."""

    def __init__(self, path: Path) -> None:
        self.url = f"unix://{path}"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    @staticmethod
    def _echo(connection: socket.socket) -> None:
        with connection, suppress(ConnectionError):
            while data := connection.recv(1000):
                connection.sendall(data)

    def close(self) -> None:
        """Accept nothing more."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    with closing(Echo(tmp_path / "echo")) as echo, Proxy(echo.url) as running:
        yield running


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def ask(connection: socket.socket, timeout: float = 5) -> bytes:
    connection.settimeout(timeout)
    connection.sendall(b"ping")
    return connection.recv(100)


def test_it_forwards_both_ways(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        assert ask(connection) == b"ping"


def test_a_cut_ends_connections_and_refuses_new_ones_and_passes_on_the_same_port_after(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        ask(connection)
        with proxy.fault(Fault.CUT):
            with pytest.raises(ConnectionRefusedError):
                connect(proxy)
            connection.settimeout(5)
            with suppress(ConnectionResetError):
                assert connection.recv(10) == b""
    with connect(proxy) as again:
        assert ask(again) == b"ping"


def test_a_hang_accepts_and_says_nothing_until_it_ends(proxy: Proxy) -> None:
    with connect(proxy) as before:
        ask(before)
        with proxy.fault(Fault.HANG):
            for connection in (before, connect(proxy)):
                with pytest.raises(TimeoutError):
                    ask(connection, timeout=0.1)
                if connection is not before:
                    connection.close()
        before.settimeout(5)
        assert before.recv(100) == b"ping"


def test_slow_takes_the_delay_each_way_and_keeps_the_order(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        with proxy.fault(Fault.SLOW, delay=0.1):
            begin = time.monotonic()
            connection.sendall(b"a")
            time.sleep(0.02)
        connection.sendall(b"b")
        found = b""
        while len(found) < 2:
            found += connection.recv(10)
        assert found == b"ab"
        assert time.monotonic() - begin >= 0.1


def test_slow_there_and_back_is_twice_the_delay(proxy: Proxy) -> None:
    with connect(proxy) as connection, proxy.fault(Fault.SLOW, delay=0.1):
        begin = time.monotonic()
        ask(connection)
        assert time.monotonic() - begin >= 0.2


def test_a_fault_ends_by_itself(proxy: Proxy) -> None:
    with proxy.fault(Fault.HANG, longest=0.1), connect(proxy) as connection:
        assert ask(connection) == b"ping"


def test_an_upstream_that_is_away_closes_the_connection(tmp_path: Path) -> None:
    with Proxy(f"unix://{tmp_path / 'nobody'}") as proxy, connect(proxy) as connection, suppress(ConnectionError):
        assert ask(connection) == b""


def test_a_paused_process_stands_still_and_goes_on() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with paused(process.pid):
            assert stands_still(process.pid)
        os.kill(process.pid, 0)
        assert not stands_still(process.pid)
        with paused(process.pid, longest=0.05):
            deadline = time.monotonic() + 5
            while stands_still(process.pid):
                assert time.monotonic() < deadline
                time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def stands_still(pid: int) -> bool:
    time.sleep(0.02)
    return "\nState:\tT" in Path(f"/proc/{pid}/status").read_text()
