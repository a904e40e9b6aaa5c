"""Asks at a constant rate to the microsecond, however slow the answers; latency counts from when a request was due.

A closed loop asks more slowly when the server does, and so hides its queue. Here a request that finds no free
connection waits, and its waiting is part of its latency.
"""

import json
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

CONNECTIONS = 64
WARM_UP_SECONDS = 0.5


def ask(
    port: int, requests: Sequence[bytes], rate: float, seconds: float, connections: int = CONNECTIONS
) -> list[float]:
    """Latencies in seconds, in the order of the answers; those of the first half second are left out.

    Args:
        port: on loopback.
        requests: taken by turns; each is the bytes of one HTTP/1.1 request that keeps its connection.
        rate: requests a second.
        seconds: for how long.
        connections: at most so many requests are under way.

    Raises:
        RuntimeError: an answer is none of success, or a connection ended.
    """
    with ExitStack() as stack:
        every = [stack.enter_context(closing(_Connection(port))) for _ in range(connections)]
        latencies = _ask(every, requests, rate, int(rate * seconds))
    return latencies[int(rate * min(WARM_UP_SECONDS, seconds / 2)) :]


def _ask(every: "list[_Connection]", requests: Sequence[bytes], rate: float, wanted: int) -> list[float]:
    free, busy = deque(every), set[_Connection]()
    latencies: list[float] = []
    asked, began = 0, time.perf_counter()
    while len(latencies) < wanted:
        due = began + asked / rate
        while asked < wanted and free and due <= time.perf_counter():
            connection = free.pop()
            connection.send(requests[asked % len(requests)], due)
            busy.add(connection)
            asked += 1
            due = began + asked / rate
        patience = max(0.0, due - time.perf_counter()) if free and asked < wanted else 1.0
        for connection in select.select(busy, (), (), patience)[0]:
            if connection.received():
                latencies.append(time.perf_counter() - connection.due)
                busy.remove(connection)
                free.append(connection)
    return latencies


class _Connection:
    """One request at a time."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._missing = 0
        self._head = b""
        self.due = 0.0

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, request: bytes, due: float) -> None:
        self.due, self._head, self._missing = due, b"", -1
        self._socket.sendall(request)

    def received(self) -> bool:
        """Read what has come; whether the answer is whole."""
        data = self._socket.recv(65536)
        if not data:
            raise RuntimeError("the server ended a connection")
        if self._missing >= 0:
            self._missing -= len(data)
            return self._missing == 0
        head, gap, body = (self._head + data).partition(b"\r\n\r\n")
        if not gap:
            self._head += data
            return False
        if head[9:10] != b"2":
            raise RuntimeError(f"answered {head[9:12].decode()}")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        self._missing = int(length) - len(body)
        return self._missing == 0

    def close(self) -> None:
        self._socket.close()


def measure(port: int, requests: Sequence[bytes], rate: float, seconds: float) -> dict[str, float]:
    """Percentiles of the latency in milliseconds, by a client in a process of its own.

    Raises:
        RuntimeError: as `ask`.
    """
    order = {"port": port, "requests": [request.decode() for request in requests], "rate": rate, "seconds": seconds}
    command = [sys.executable, "-m", "bench.open_loop"]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, input=json.dumps(order), capture_output=True, text=True, check=False, cwd=root)
    if done.returncode:
        raise RuntimeError(f"the client gave up: {done.stderr.strip().rpartition(chr(10))[2]}")
    return {str(name): float(value) for name, value in json.loads(done.stdout).items()}


def main() -> None:
    """Carry out the order that standard input holds."""
    order = json.load(sys.stdin)
    requests = [request.encode() for request in order["requests"]]
    latencies = np.array(ask(order["port"], requests, order["rate"], order["seconds"])) * 1000
    percentiles = {f"p{name}_ms": round(float(np.percentile(latencies, name)), 4) for name in (50, 90, 99)}
    sys.stdout.write(json.dumps({**percentiles, "max_ms": round(float(latencies.max()), 4)}))


if __name__ == "__main__":
    main()
