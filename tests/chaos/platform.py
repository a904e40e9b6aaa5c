"""A platform to be struck: real processes, several of a kind, and a proxy on every way between them.

Two collectors, two landers that share the partitions, and a zombie: a lander in a group of its own, that so lands the
same partitions as the other two and races with them. Redis is the projection, and the log too where that is not Kafka.
"""

import os
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

from kafka import KafkaAdminClient

from bench.faults import Proxy
from bench.own_platform import PlatformFailed, free_ports, wait_until
from infra.embedded import redis_command
from infra.event_log import open_event_log
from infra.event_log.port import EventLog
from infra.lake import EVENTS, Lake
from infra.online_store import OnlineStore, OnlineStoreError, connect
from infra.supervisor import end_with_parent

ROOT = Path(__file__).parents[2]
KAFKA = ROOT / "infra/deploy/kafka/kafka.sh"
KEY = "chaos"
SECRET = "of a platform that is struck"
TOPIC = "chaos"
PARTITIONS = 4
COLLECTORS = ("collector-0", "collector-1")
LANDERS = ("lander-0", "lander-1")
ZOMBIE = "zombie"
BROKER = ("kafka",)
CLUSTER = ("kafka-1", "kafka-2", "kafka-3")
NEARLINES = ("nearline-0", "nearline-1")
READY_SECONDS = 90.0
STOP_SECONDS = 20.0


class Platform:
    """Stores and processes; a context manager.

    Args:
        log: `redis` or `kafka`.
        landers: which landers run.
        fenced: False: landers that trust the group's offsets and not the lake's fences.
        settings: further settings, by their names without MARQUEE_.
        brokers: of Kafka: one behind a proxy, or CLUSTER, asked as they are.
        nearlines: which nearline workers run.

    Attributes:
        folder: where everything of it is, until the end.
        ways: name → the proxy on the way to a collector, from collectors or landers to Redis, from all to Kafka.
        lake_path: a link to the lake's folder, so that it can be put elsewhere in one step.
        restarts: processes that ended by themselves and were started again.
    """

    def __init__(
        self,
        log: str,
        *,
        landers: Sequence[str] = (*LANDERS, ZOMBIE),
        fenced: bool = True,
        settings: Mapping[str, str] = MappingProxyType({}),
        brokers: Sequence[str] = BROKER,
        nearlines: Sequence[str] = (),
    ) -> None:
        self.log = log
        self.landers = tuple(landers)
        self.ways: dict[str, Proxy] = {}
        self.restarts = 0
        self.brokers = tuple(brokers) if log == "kafka" else ()
        self.nearlines = tuple(nearlines)
        self._fenced = fenced
        self._settings = settings
        self._exit = ExitStack()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        controllers = (f"{name}-controller" for name in self.brokers)
        names = (*COLLECTORS, *self.landers, *self.nearlines, *self.brokers, *controllers)
        self._ports = dict(zip(names, free_ports(len(names)), strict=True))

    def __enter__(self) -> "Platform":
        with self._exit:
            self._start()
            self._exit = self._exit.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def _start(self) -> None:
        self.folder = Path(self._exit.enter_context(tempfile.TemporaryDirectory(prefix="mq-chaos-")))
        self.lake_path = self.folder / "lake"
        (self.folder / "lake.real").mkdir()
        self.lake_path.symlink_to("lake.real")
        for name in COLLECTORS:
            self._way(name, f"tcp://127.0.0.1:{self._ports[name]}")
        for name in ("redis-collectors", "redis-landers"):
            self._way(name, self.redis_url)
        self._exit.callback(self._stop_all)
        self.start("redis")
        self.store: OnlineStore = connect(self.redis_url, 10.0)
        self._exit.callback(self.store.close)
        if self.brokers == BROKER:
            self._way("kafka", f"tcp://127.0.0.1:{self._ports['kafka']}")
        for name in self.brokers:
            self._exit.callback(self._kafka, name, "stop")
        with ThreadPoolExecutor() as beside:  # Of a cluster's nodes none answers before most of them run.
            list(beside.map(self.start, self.brokers))
        self.start(COLLECTORS[0])
        self.wait_until_up(COLLECTORS[0])  # The first one makes tables and topic.
        for name in (*COLLECTORS[1:], *self.landers, *self.nearlines):
            self.start(name)
        self.wait_until_all_up()

    def _way(self, name: str, upstream: str) -> None:
        self.ways[name] = self._exit.enter_context(Proxy(upstream))

    # --- where things are ---

    @property
    def redis_url(self) -> str:
        """Redis itself, beside the proxies."""
        return f"unix://{self.folder / 'redis.sock'}"

    @property
    def log_url(self) -> str:
        """The log for who is not to be struck; Kafka's clients are sent to its proxy whatever they ask first."""
        if self.log != "kafka":
            return self.redis_url
        ports = [self.ways["kafka"].port] if self.brokers == BROKER else [self._ports[name] for name in self.brokers]
        return f"kafka://{','.join(f'127.0.0.1:{port}' for port in ports)}"

    @property
    def database_url(self) -> str:
        """The ledger."""
        return f"sqlite:///{self.folder / 'ledger.db'}"

    @property
    def lake(self) -> Lake:
        """The lake."""
        return Lake(str(self.lake_path))

    def open_log(self) -> EventLog:
        """The log, for reading and for records of no collector."""
        return open_event_log(self.log_url, TOPIC, PARTITIONS, fences=None)

    def replicas(self) -> set[int]:
        """How many brokers have each partition of the topic."""
        admin = KafkaAdminClient(bootstrap_servers=self.log_url.removeprefix("kafka://").split(","))
        try:
            return {len(partition["replica_nodes"]) for partition in admin.describe_topics([TOPIC])[0]["partitions"]}
        finally:
            admin.close()

    def unlanded(self, log: EventLog) -> int:
        """Records that have not landed yet."""
        landed = self.lake.landed(EVENTS)
        return sum(max(0, end - landed.get(p, 0)) for p, end in log.end_offsets().items())

    # --- processes ---

    @property
    def struck(self) -> str:
        """The process that is the log."""
        return self.log

    def start(self, name: str) -> None:
        """Start a process; of a store, wait until it answers."""
        if name in self.brokers:
            self._kafka(name, "start")
            return
        self._spawn(name, self._command(name), self._environment(name))
        if name == "redis":
            with connect(self.redis_url, 1.0) as store:
                wait_until(lambda: _answers(store), "Redis answers", READY_SECONDS)

    def kill(self, name: str) -> None:
        """Kill -9."""
        if name in self.brokers:
            pid = self.pid(name)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not _runs(pid), "the broker is dead")
            (self.folder / name / "pid").unlink()  # Until somebody has reaped it, its id looks alive.
            return
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def end(self, name: str) -> None:
        """SIGTERM, and wait until it has ended in order."""
        process = self._processes.pop(name)
        process.terminate()
        process.wait(STOP_SECONDS)

    def pid(self, name: str) -> int:
        """Of a process that runs."""
        return int((self.folder / name / "pid").read_text()) if name in self.brokers else self._processes[name].pid

    def tend(self) -> None:
        """Start again what ended by itself, as a supervisor does."""
        for name, process in list(self._processes.items()):
            if process.poll() is not None:
                self.restarts += 1
                self.start(name)

    def wait_until_all_up(self) -> None:
        """Wait until every process answers, and start again meanwhile what ends.

        Raises:
            PlatformFailed: one does not come up.
        """
        for name in (*COLLECTORS, *self.landers, *self.nearlines):
            self.wait_until_up(name)

    def wait_until_up(self, name: str) -> None:
        """The same, of one process."""

        def up() -> bool:
            self.tend()
            path = "/readyz" if name in COLLECTORS else "/metrics"
            return _status(f"http://127.0.0.1:{self._ports[name]}{path}") == 200

        try:
            wait_until(up, f"{name} is up", READY_SECONDS)
        except TimeoutError as error:
            raise PlatformFailed(f"{error}: {self.printed(name)[-2000:]}") from error

    def printed(self, name: str) -> str:
        """What a process has printed so far."""
        return (self.folder / f"{name}.out").read_text(errors="replace")

    def _command(self, name: str) -> list[str]:
        if name == "redis":
            return redis_command(self.folder / "redis.sock")
        if name in COLLECTORS:
            return [sys.executable, "-m", "marquee", "ingest"]
        if name in self.nearlines:
            return [sys.executable, "-m", "marquee", "nearline"]
        words = ["--group", "zombie"] if name == ZOMBIE else []
        return [sys.executable, "-m", "tests.chaos.landers", *words, *([] if self._fenced else ["--unfenced"])]

    def _environment(self, name: str) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("MARQUEE_")}
        if name == "redis":
            return clean
        port = "NEARLINE_METRICS_PORT" if name in self.nearlines else "LANDER_METRICS_PORT"
        port = "INGEST_PORT" if name in COLLECTORS else port
        way = self.ways["redis-collectors" if name in COLLECTORS else "redis-landers"]
        settings = {
            "DATA": str(self.folder),
            "DOMAIN": str(ROOT / "domain.toml"),
            "LAKE": str(self.lake_path),
            "API_KEY": KEY,
            "SECRET": SECRET,
            "TOPIC": TOPIC,
            "PARTITIONS": str(PARTITIONS),
            "LOG_FORMAT": "json",
            "REDIS": f"redis://127.0.0.1:{way.port}",
            port: str(self._ports[name]),
        }
        if self.log == "kafka":
            settings["EVENT_LOG"] = self.log_url
        return clean | {f"MARQUEE_{key}": value for key, value in {**settings, **self._settings}.items()}

    def _spawn(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            self._processes[name] = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone, and we stop them in order.
                preexec_fn=end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
            )

    def _kafka(self, name: str, command: str) -> None:
        controllers = [self._ports[f"{each}-controller"] for each in self.brokers]
        environment = {
            **os.environ,
            "KAFKA_PORT": str(self._ports[name]),
            "KAFKA_CONTROLLER_PORT": str(self._ports[f"{name}-controller"]),
            "KAFKA_NODE": str(self.brokers.index(name) + 1),
            "KAFKA_VOTERS": ",".join(f"{number}@127.0.0.1:{port}" for number, port in enumerate(controllers, 1)),
            "KAFKA_DATA": str(self.folder / name),
        }
        if name in self.ways:
            environment["KAFKA_ADVERTISED_PORT"] = str(self.ways[name].port)
        else:
            environment["KAFKA_HEAP"] = "256m"
        subprocess.run([KAFKA, command], env=environment, stdout=subprocess.DEVNULL, check=True, timeout=180)

    def _stop_all(self) -> None:
        for name in sorted(self._processes, key=lambda name: name == "redis"):
            process = self._processes.pop(name)
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(store: OnlineStore) -> bool:
    try:
        return bool(store.ping())
    except OnlineStoreError:
        return False


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
