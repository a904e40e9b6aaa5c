"""A Redis Cluster on this machine: three masters with a replica each, as processes that a test may kill."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import redis

from bench.own_platform import free_ports
from infra.embedded import redis_server
from infra.online_store import OnlineStoreError, connect

MASTERS = 3
SLOTS = 16384
NODE_TIMEOUT_MS = 1500
"""A node that says nothing for so long is thought dead."""


class RedisCluster:
    """A running cluster. Its nodes are named by their ports.

    Attributes:
        url: as MARQUEE_REDIS takes it.
    """

    def __init__(self, folder: Path) -> None:
        found = free_ports(4 * MASTERS)
        self._ports, buses = found[::2], found[1::2]
        self._buses = dict(zip(self._ports, buses, strict=True))
        self._folder = folder
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.url = f"redis+cluster://{','.join(f'127.0.0.1:{port}' for port in self._ports)}"
        for port in self._ports:
            (folder / str(port)).mkdir()
            self.start(port)
        self._form()

    def start(self, port: int) -> None:
        """Start a node, with the files that it has."""
        options = {
            "port": port,
            "bind": "127.0.0.1",
            "dir": self._folder / str(port),
            "save": "",
            "appendonly": "yes",
            "cluster-enabled": "yes",
            "cluster-port": self._buses[port],
            "cluster-node-timeout": NODE_TIMEOUT_MS,
            "cluster-require-full-coverage": "no",
            "cluster-replica-validity-factor": "0",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        with (self._folder / f"{port}.out").open("ab") as out:
            self._processes[port] = subprocess.Popen([str(redis_server()), *words], stdout=out, stderr=out)
        wait_until(lambda: self.node(port).ping())

    def signal(self, port: int, number: int = signal.SIGKILL) -> None:
        """Send a node a signal, and wait for its end where that is what the signal means."""
        self._processes[port].send_signal(number)
        if number not in (signal.SIGSTOP, signal.SIGCONT):
            self._processes[port].wait(10)

    def node(self, port: int) -> redis.Redis:
        """A client of one node."""
        return redis.Redis(port=port, socket_timeout=2)

    def master_of(self, key: str) -> int:
        """The node on which a key is, as the nodes that answer say."""
        for port in self._ports:
            with suppress(redis.RedisError):
                slot = cast("int", self.node(port).cluster("keyslot", key))
                ranges = cast("list[Any]", self.node(port).cluster("slots"))
                return next(int(master[1]) for first, last, master, *_ in ranges if first <= slot <= last)
        raise AssertionError("no node answers")

    def replica_of(self, port: int) -> int:
        """The replica of a master."""
        return next(int(address.rpartition(":")[2]) for address in self._replicas(port))

    def mend(self) -> None:
        """Have every node run, and every master a replica that has all."""
        for port, process in self._processes.items():
            process.send_signal(signal.SIGCONT)
            if process.poll() is not None:
                self.start(port)
        wait_until(lambda: all(self._is_whole(port) for port in self._ports))

    def stop(self) -> None:
        """Stop every node."""
        for process in self._processes.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
        for process in self._processes.values():
            process.wait(10)

    def _replicas(self, port: int) -> dict[str, Any]:
        """By address."""
        own = cast("bytes", self.node(port).execute_command("CLUSTER MYID"))
        return cast("dict[str, Any]", self.node(port).execute_command("CLUSTER REPLICAS", own))

    def _form(self) -> None:
        masters, replicas = self._ports[:MASTERS], self._ports[MASTERS:]
        first, *others = self._ports
        bounds = [SLOTS * number // MASTERS for number in range(MASTERS + 1)]
        for number, port in enumerate(masters):
            self.node(port).execute_command("CLUSTER ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        for number, port in enumerate(self._ports, 1):
            self.node(port).execute_command("CLUSTER SET-CONFIG-EPOCH", number)
        for port in others:
            self.node(first).execute_command("CLUSTER MEET", "127.0.0.1", port, self._buses[port])
        for master, replica in zip(masters, replicas, strict=True):
            of = cast("bytes", self.node(master).execute_command("CLUSTER MYID"))
            wait_until(partial(self.node(replica).execute_command, "CLUSTER REPLICATE", of))
        wait_until(lambda: all(self._is_whole(port) for port in self._ports))

    def _is_whole(self, port: int) -> bool:
        info = cast("dict[str, str]", self.node(port).cluster("info"))
        copies = cast("dict[str, Any]", self.node(port).info("replication"))
        linked = copies["connected_slaves"] == 1 if copies["role"] == "master" else copies["master_link_status"] == "up"
        return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == 2 * MASTERS and linked


@contextmanager
def running_cluster() -> Iterator[RedisCluster]:
    """A cluster that is there for the block."""
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="mq-cluster-"))
        cluster = RedisCluster(Path(folder))
        stack.callback(cluster.stop)
        wait_until(lambda: connect(cluster.url).set("is it there", 1))
        yield cluster


def wait_until(holds: Any, seconds: float = 20.0) -> None:
    """Wait until something holds; what the store raises meanwhile is that it does not."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(*OnlineStoreError):
            if holds():
                return
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
