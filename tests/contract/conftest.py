"""Stores that are reached by TLS, with certificates of an authority that the tests make, and an impostor."""

import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NoReturn, Protocol

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from bench.faults import Proxy
from bench.own_platform import free_ports
from infra.online_store import connect

USER = "marquee"
PASSWORD = "p@ss word/of a canary"


class RedisServer(Protocol):
    url: str
    folder: Path


class KafkaServer(Protocol):
    port: int
    folder: Path


class Authority:
    """An authority that signs certificates of servers. Its own is `ca.pem` in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "ca.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"the tests' authority in {folder.name}")])
        own = _certificate(self._name, self._key).add_extension(x509.BasicConstraints(True, None), critical=True)
        self.file.write_bytes(self._signed(own))

    def certify(self, folder: Path, *hosts: str) -> Path:
        """Write `key.pem`, `cert.pem`, both as `server.pem`, and `ca.pem` for a server; return their folder."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
        certificate = self._signed(_certificate(subject, key).add_extension(names, critical=False))
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "ca.pem").write_bytes(self.file.read_bytes())
        for file, content in {"key.pem": private, "cert.pem": certificate, "server.pem": private + certificate}.items():
            (folder / file).touch(mode=0o600)
            (folder / file).write_bytes(content)
        return folder

    def _signed(self, request: x509.CertificateBuilder) -> bytes:
        return request.issuer_name(self._name).sign(self._key, SHA256()).public_bytes(Encoding.PEM)


def _certificate(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).public_key(key.public_key())
    now = datetime.now(UTC)
    builder = builder.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + timedelta(days=1))
    return builder.serial_number(x509.random_serial_number())


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signed the stores' certificates."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signed none of them."""
    return Authority(tmp_path_factory.mktemp("other"))


@pytest.fixture(scope="session")
def certified(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with key and certificate of `localhost`, and of no address."""
    return authority.certify(tmp_path_factory.mktemp("localhost"), "localhost")


# --- the stores ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def secured_kafka(start_kafka: Callable[..., KafkaServer], certified: Path) -> KafkaServer:
    """A real broker that lets USER in by TLS only."""
    return start_kafka(KAFKA_TLS=str(certified), KAFKA_USER=USER, KAFKA_PASSWORD=PASSWORD)


@pytest.fixture
def secured_redis(own_redis: RedisServer, certified: Path) -> Iterator[int]:
    """Port of a real server behind TLS that lets USER in. The wheel's server knows no TLS: a proxy does."""
    with connect(own_redis.url) as admin:
        admin.execute_command("ACL", "SETUSER", USER, "on", f">{PASSWORD}", "~*", "+@all")
        admin.execute_command("ACL", "SETUSER", "default", "resetpass", ">of the administrator")
    with Proxy(own_redis.url, tls=_context(certified)) as proxy:
        yield proxy.port


@pytest.fixture(scope="session")
def secured_postgres(certified: Path, missing: Callable[[str, str], NoReturn]) -> Iterator[int]:
    """Port of a real server that lets USER into the database of that name, by TLS and password only.

    It is Debian's, since the wheel's is built without TLS. It refuses to run as root, so there it runs as `nobody`.
    """
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not programs:
        missing("PostgreSQL with TLS", "no Debian package `postgresql`")
    with tempfile.TemporaryDirectory(prefix="mq-pg-tls-") as folder:
        port, stop = _start_postgres(programs[-1].parent, Path(folder), certified)
        yield port
        stop()


def _start_postgres(programs: Path, folder: Path, certified: Path) -> tuple[int, Callable[[], None]]:
    """Start it in `folder`; return its port and what stops it."""
    user = "nobody" if os.geteuid() == 0 else None
    data, password = folder / "data", folder / "password"
    password.write_text(PASSWORD)
    for file in ("key.pem", "cert.pem"):
        (folder / file).touch(mode=0o600)
        (folder / file).write_bytes((certified / file).read_bytes())
    if user:
        for path in (folder, password, folder / "key.pem", folder / "cert.pem"):
            shutil.chown(path, user)

    def run(program: str, *words: str) -> None:
        command = [str(programs / program), "-D", str(data), *words]
        subprocess.run(command, user=user, cwd="/", check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    (port,) = free_ports(1)
    run("initdb", "-A", "scram-sha-256", "-U", USER, f"--pwfile={password}", "-E", "utf8", "--no-sync")
    (data / "pg_hba.conf").write_text("hostssl all all all scram-sha-256\n")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off -c ssl=on"
    options += f" -c ssl_cert_file={folder / 'cert.pem'} -c ssl_key_file={folder / 'key.pem'}"
    run("pg_ctl", "-w", "-o", options, "-l", str(folder / "log"), "start")
    return port, lambda: run("pg_ctl", "-w", "-m", "immediate", "stop")


# --- somebody else ---------------------------------------------------------------------------------------------------


class Impostor:
    """Somebody who answers on a store's port, and keeps what is sent to him.

    Attributes:
        heard: every byte that he could read, once a TLS handshake had come to its end or there was none.
    """

    def __init__(self) -> None:
        self.heard = b""


Impersonate = Callable[..., Any]


@contextmanager
def impostor(tls: Path | None = None, greeting: bytes = b"") -> Iterator[tuple[Impostor, int]]:
    """An impostor and his port.

    Args:
        tls: folder with the certificate that he shows; None: he does not speak TLS.
        greeting: what he answers to the first eight bytes, before a handshake, as PostgreSQL does.
    """
    heard, stop = Impostor(), threading.Event()
    context = _context(tls) if tls else None
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)

        def answer() -> None:
            while not stop.is_set():
                with suppress(OSError):
                    connection, _ = server.accept()
                    with connection:
                        _listen(connection, context, greeting, heard)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield heard, server.getsockname()[1]
        finally:
            stop.set()
            thread.join()


def _listen(connection: socket.socket, context: ssl.SSLContext | None, greeting: bytes, heard: Impostor) -> None:
    connection.settimeout(0.5)
    if greeting:
        connection.recv(8)
        connection.sendall(greeting)
    with context.wrap_socket(connection, server_side=True) if context else connection as stream:
        while data := stream.recv(4096):
            heard.heard += data
            stream.sendall(b"-ERR\r\n")


def _context(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


@pytest.fixture
def impersonate() -> Impersonate:
    """Sets up an impostor."""
    return impostor
