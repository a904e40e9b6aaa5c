"""Stores behind TLS and passwords, the real ones: who is let in, who is not, and that an impostor hears nothing."""

import asyncio
import gc
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import psutil
import pytest
import redis
import uvloop

from infra.database import Ledger, LedgerUnavailable
from infra.event_log import open_event_log
from infra.event_log.port import EventLogUnavailable
from infra.model_registry import ModelRegistry
from infra.online_store import KeyReader, connect, connect_async, packed_key
from infra.transport import LOGIN, NO_TLS, ONLY_TLS, OTHER_NAME, UNTRUSTED, Transport

PASSWORD = "p@ss word/of a canary"
LOGIN_OF = f"marquee:{quote(PASSWORD, safe='')}"

pytestmark = pytest.mark.filterwarnings(r"ignore:unclosed <(socket|ssl\.SSLSocket):ResourceWarning")
"""kafka-python leaves refused sockets to the garbage collector."""


class Authority(Protocol):
    file: Path

    def certify(self, folder: Path, *hosts: str) -> Path: ...


class Impostor(Protocol):
    heard: bytes


class KafkaServer(Protocol):
    port: int
    folder: Path


Impersonate = Callable[..., AbstractContextManager[tuple[Impostor, int]]]
Ask = Callable[[str, Transport], None]


@pytest.fixture
def transport(authority: Authority) -> Transport:
    """Trusts the authority of the tests."""
    return Transport(str(authority.file))


@pytest.fixture(autouse=True)
def _collect() -> Iterator[None]:
    yield
    gc.collect()  # The sockets that kafka-python leaves go here, and not in a later test.


# --- each store, as the platform asks it -----------------------------------------------------------------------------


def ask_redis(url: str, transport: Transport) -> None:
    with connect(transport.redis(url)) as store:
        store.set("asked", b"1")


def ask_redis_log(url: str, transport: Transport) -> None:
    log = open_event_log(transport.redis(url), "secured", 1)
    log.append([(b"key", b"value")])
    log.close()


def ask_kafka(url: str, transport: Transport) -> None:
    log = open_event_log(transport.kafka(url), "secured", 1)
    log.append([(b"key", b"value")])
    log.close()


def ask_postgres(url: str, transport: Transport) -> None:
    ledger = Ledger(transport.database(url))
    try:
        ledger.create_tables()
    finally:
        ledger.close()


def redis_url(port: int, login: str = LOGIN_OF, host: str = "localhost") -> str:
    return f"rediss://{login}@{host}:{port}"


def kafka_url(port: int, login: str = LOGIN_OF, host: str = "localhost", more: str = "") -> str:
    return f"kafkas://{login}@{host}:{port}{more}"


def postgres_url(port: int, login: str = LOGIN_OF, host: str = "localhost", mode: str = "verify-full") -> str:
    return f"postgresql+psycopg://{login}@{host}:{port}/postgres?sslmode={mode}"


# --- who knows user and password is let in ---------------------------------------------------------------------------


def test_redis_lets_in_who_knows_the_password(secured_redis: int, transport: Transport) -> None:
    ask_redis(redis_url(secured_redis), transport)
    ask_redis_log(redis_url(secured_redis), transport)


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_lists_are_read_over_a_connection_by_tls_that_was_taken_over(
    factory: Callable[[], asyncio.AbstractEventLoop], secured_redis: int, transport: Transport
) -> None:
    url = transport.redis(redis_url(secured_redis))
    large = b"x" * 300_000
    with connect(url) as store:
        store.mset({"a": b"1", "large": large})

    async def read() -> list[bytes | None]:
        reader = KeyReader(connect_async(url, None))
        found = [(await reader.read([packed_key(key)], 1))[0] for key in (b"a", b"large", b"none", b"a")]
        await reader.close()
        await asyncio.sleep(0.2)  # TLS says goodbye
        return found

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(read()) == [b"1", large, None, b"1"]


@pytest.mark.kafka
@pytest.mark.parametrize("more", ["", "?mechanism=PLAIN"])
def test_kafka_lets_in_who_knows_the_password(secured_kafka: KafkaServer, transport: Transport, more: str) -> None:
    ask_kafka(kafka_url(secured_kafka.port, more=more), transport)


@pytest.mark.postgres
def test_postgresql_lets_in_who_knows_the_password(secured_postgres: int, transport: Transport) -> None:
    ask_postgres(postgres_url(secured_postgres), transport)
    verified = f"postgresql+psycopg://{LOGIN_OF}@db.example.org:{secured_postgres}/postgres?hostaddr=127.0.0.1"
    with pytest.raises(LedgerUnavailable, match=OTHER_NAME):
        ask_postgres(verified, transport)


@pytest.mark.postgres
def test_the_registry_is_reached_as_the_ledger(secured_postgres: int, transport: Transport, tmp_path: Path) -> None:
    url = postgres_url(secured_postgres)
    assert ModelRegistry(transport.database(url), tmp_path, "movies").champion() is None


# --- who does not know it is not, and learns what to do --------------------------------------------------------------


def test_redis_says_what_is_wrong(secured_redis: int, transport: Transport, other_authority: Authority) -> None:
    for url, trust, says in (
        (redis_url(secured_redis), Transport(str(other_authority.file)), UNTRUSTED),
        (redis_url(secured_redis), Transport(), UNTRUSTED),
        (redis_url(secured_redis, host="127.0.0.1"), transport, OTHER_NAME),
        (redis_url(secured_redis, login="marquee:wrong"), transport, LOGIN),
    ):
        with pytest.raises(EventLogUnavailable, match=re.escape(says)) as raised:
            ask_redis_log(url, trust)
        assert PASSWORD not in str(raised.value)


@pytest.mark.kafka
def test_kafka_says_what_is_wrong(
    secured_kafka: KafkaServer, transport: Transport, other_authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.event_log.kafka_connection.OPEN_MILLISECONDS", 1500)
    port = secured_kafka.port
    for url, trust, says in (
        (kafka_url(port), Transport(str(other_authority.file)), UNTRUSTED),
        (kafka_url(port, host="127.0.0.1"), transport, OTHER_NAME),
        (kafka_url(port, login="marquee:wrong"), transport, LOGIN),
        (f"kafka://localhost:{port}", transport, ONLY_TLS),
    ):
        with pytest.raises(EventLogUnavailable, match=re.escape(says)) as raised:
            ask_kafka(url, trust)
        assert PASSWORD not in str(raised.value)


@pytest.mark.postgres
def test_postgresql_says_what_is_wrong(secured_postgres: int, transport: Transport, other_authority: Authority) -> None:
    for url, trust, says in (
        (postgres_url(secured_postgres), Transport(str(other_authority.file)), UNTRUSTED),
        (postgres_url(secured_postgres), Transport(), UNTRUSTED),
        (postgres_url(secured_postgres, host="127.0.0.1"), transport, OTHER_NAME),
        (postgres_url(secured_postgres, login="marquee:wrong"), transport, LOGIN),
        (postgres_url(secured_postgres, mode="disable"), transport, ONLY_TLS),
    ):
        with pytest.raises(LedgerUnavailable, match=re.escape(says)) as raised:
            ask_postgres(url, trust)
        assert PASSWORD not in str(raised.value)


# --- an impostor hears nothing ---------------------------------------------------------------------------------------

STORES = [
    pytest.param(ask_redis_log, redis_url, b"", id="redis"),
    pytest.param(ask_kafka, kafka_url, b"", id="kafka", marks=pytest.mark.kafka),
    pytest.param(ask_postgres, postgres_url, b"S", id="postgresql"),
]


@pytest.fixture(params=["unknown authority", "another name", "no TLS"])
def shown(
    request: pytest.FixtureRequest, authority: Authority, other_authority: Authority, tmp_path: Path
) -> tuple[Path | None, str]:
    """What an impostor shows, and what is said of it."""
    if request.param == "no TLS":
        return None, NO_TLS
    if request.param == "another name":
        return authority.certify(tmp_path, "elsewhere.example.org"), OTHER_NAME
    return other_authority.certify(tmp_path, "localhost"), UNTRUSTED


@pytest.mark.parametrize(("ask", "url", "greeting"), STORES)
def test_an_impostor_hears_nothing(
    ask: Ask,
    url: Callable[[int], str],
    greeting: bytes,
    shown: tuple[Path | None, str],
    impersonate: Impersonate,
    transport: Transport,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("infra.event_log.kafka_connection.OPEN_MILLISECONDS", 1000)
    certificate, says = shown
    with (
        impersonate(certificate, greeting if certificate else greeting and b"N") as (impostor, port),
        pytest.raises((EventLogUnavailable, LedgerUnavailable), match=re.escape(says)),
    ):
        ask(url(port), transport)
    assert certificate is None or impostor.heard == b""
    assert b"marquee" not in impostor.heard
    assert b"canary" not in impostor.heard


def ask_redis_and_verify_nothing(url: str, _: Transport) -> None:
    with redis.Redis.from_url(f"{url}?ssl_cert_reqs=none", socket_timeout=0.5) as store:
        store.ping()


def ask_kafka_and_verify_no_name(url: str, transport: Transport) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kafka.net.transport.KafkaSSLTransport._build_ssl_context", staticmethod(_any_name))
        ask_kafka(url, transport)


def _any_name(config: dict[str, Any]) -> Any:
    context = ssl.create_default_context(cafile=config["ssl_cafile"])
    context.check_hostname = False
    return context


def ask_postgres_and_verify_nothing(url: str, _: Transport) -> None:
    ask_postgres(url.replace("verify-full", "require"), Transport())


@pytest.mark.parametrize(
    ("ask", "url", "greeting", "hears"),
    [
        pytest.param(ask_redis_and_verify_nothing, redis_url, b"", b"canary", id="redis"),
        pytest.param(
            ask_kafka_and_verify_no_name, kafka_url, b"", b"kafka-python", id="kafka", marks=pytest.mark.kafka
        ),
        pytest.param(ask_postgres_and_verify_nothing, postgres_url, b"S", b"marquee", id="postgresql"),
    ],
)
def test_the_impostor_would_hear_a_client_that_verifies_less(
    ask: Ask,
    url: Callable[[int], str],
    greeting: bytes,
    hears: bytes,
    impersonate: Impersonate,
    authority: Authority,
    transport: Transport,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("infra.event_log.kafka_connection.OPEN_MILLISECONDS", 1000)
    folder = authority.certify(tmp_path, "elsewhere.example.org")
    with (
        impersonate(folder, greeting) as (impostor, port),
        pytest.raises((EventLogUnavailable, LedgerUnavailable, redis.RedisError)),
    ):
        ask(url(port), transport)
    assert hears in impostor.heard


# --- where passwords stand -------------------------------------------------------------------------------------------


@pytest.mark.kafka
def test_kafkas_password_is_on_no_command_line_and_in_files_of_its_owner_only(secured_kafka: KafkaServer) -> None:
    assert not [line for line in _command_lines() if "canary" in line]
    holding = [path for path in secured_kafka.folder.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]
    assert [path.name for path in holding] == ["server.properties"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in holding)


def test_a_process_that_is_given_a_password_does_not_show_it(secured_redis: int, authority: Authority) -> None:
    """What a process prints when its store refuses it names the store, and not the password."""
    wrong = LOGIN_OF.replace("canary", "wrong-canary")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MARQUEE_")},
        "MARQUEE_REDIS": redis_url(secured_redis, login=wrong),
        "MARQUEE_CA_FILE": str(authority.file),
        "MARQUEE_API_KEY": "the-api-key-of-a-canary",
        "MARQUEE_SECRET": "the-secret-of-a-canary",
    }
    command = [sys.executable, "-m", "marquee", "account"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert LOGIN in ended.stderr
    assert "canary" not in ended.stderr + ended.stdout


def _command_lines() -> list[str]:
    return [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
