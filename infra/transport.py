"""How stores on other machines are reached: by TLS, their certificates and names verified, and nothing else unasked.

Every URL of the settings passes through here. TLS to a store cannot be told to verify less. Without TLS a store is
reached on this machine, and on the hosts that the operator has named.
"""

import socket
import ssl
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

REDIS_TLS = {"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_password"}
"""What a Redis URL may say of TLS: whom to trust and who we are, and not how little to verify."""

PLAIN_CLUSTER, TLS_CLUSTER = "redis+cluster", "rediss+cluster"
HOSTS = ("host", "hostaddr")
MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")
HANDSHAKE_SECONDS = 2.0

UNTRUSTED = "its certificate is signed by no authority that is trusted here: set MARQUEE_CA_FILE to the one that did"
OTHER_NAME = "its certificate is for another host: use the name that stands in the certificate"
NO_TLS = "it does not speak TLS on that port: is it another one?"
ONLY_TLS = "it lets nobody in without TLS: use rediss://, kafkas:// or ?sslmode=verify-full"
LOGIN = "user or password are not accepted: see the part before @ of its URL, percent-encoded"
_ADVICE = {
    "mismatch": OTHER_NAME,
    "is not valid for": OTHER_NAME,
    "does not match host name": OTHER_NAME,
    "verify failed": UNTRUSTED,
    "VERIFY_FAILED": UNTRUSTED,
    "root certificate file": UNTRUSTED,
    "WRONG_VERSION_NUMBER": NO_TLS,
    "record layer failure": NO_TLS,
    "EOF occurred in violation": NO_TLS,
    "does not support SSL": NO_TLS,
    "no encryption": ONLY_TLS,
    "invalid username-password pair": LOGIN,
    "Authentication required": LOGIN,
    "password authentication failed": LOGIN,
    "no password supplied": LOGIN,
    "no permissions to": "its user lacks a right that the process needs",
}


class BadUrl(ValueError):
    """A URL that would send what others must not read, or that says nothing; the message says what to write instead."""


class Transport(NamedTuple):
    """What the settings say of connections.

    Args:
        ca_file: PEM file of the authorities to trust; empty: the system's.
        plain_hosts: hosts, besides this one, that may be reached without TLS.
    """

    ca_file: str = ""
    plain_hosts: Collection[str] = ()

    def redis(self, url: str) -> str:
        """The URL of a Redis as its client takes it.

        Raises:
            BadUrl: it is on another host without TLS, or is to be verified less.
        """
        parts = urlsplit(url)
        secure = parts.scheme.replace("redis", "rediss")
        hosts = [_host(host) for host in parts.netloc.rpartition("@")[2].split(",")]
        if parts.scheme in ("redis", PLAIN_CLUSTER) and not self._plain(hosts):
            raise BadUrl(f"Redis on another host is reached by TLS: use {secure}://. {_UNLESS}")
        if is_cluster(url):
            Cluster.of(url)
        if parts.scheme not in ("rediss", TLS_CLUSTER):
            return url
        query = dict(parse_qsl(parts.query))
        if refused := sorted(name for name in query if name.startswith("ssl_") and name not in REDIS_TLS):
            raise BadUrl(f"certificates and names are always verified: leave {', '.join(refused)} out")
        if self.ca_file and not query.keys() & {"ssl_ca_certs", "ssl_ca_path"}:
            query["ssl_ca_certs"] = self.ca_file
        return parts._replace(query=urlencode(query)).geturl()

    def kafka(self, url: str) -> str:
        """The URL of Kafka's brokers with the authorities to trust: see `Brokers.of`.

        Raises:
            BadUrl: brokers on other hosts, or a password, without TLS.
        """
        brokers = Brokers.of(url)
        if brokers.tls:
            return f"{url}{'&' if '?' in url else '?'}ca_file={quote(self.ca_file)}" if self.ca_file else url
        if brokers.user:
            raise BadUrl("users and passwords are sent by TLS only: use kafkas://")
        if not self._plain(_host(broker) for broker in brokers.addresses):
            raise BadUrl(f"Kafka on another host is reached by TLS: use kafkas://. {_UNLESS}")
        return url

    def database(self, url: str) -> str:
        """The SQLAlchemy URL of a database, or MLflow's, as its client takes it.

        Raises:
            BadUrl: it is on another host without TLS, or is to be verified less.
        """
        if url.startswith("http://") and not self._plain([urlsplit(url).hostname or ""]):
            raise BadUrl(f"a server on another host is reached by TLS: use https://. {_UNLESS}")
        if not url.startswith("postgresql"):
            return url
        parts = urlsplit(url)
        query = parse_qsl(parts.query)
        named = [unquote(parts.netloc.rpartition("@")[2]), *(said for name, said in query if name in HOSTS)]
        hosts = [_host(host) for names in named for host in names.split(",") if host]
        mode = dict(query).get("sslmode", "")
        if not mode.startswith("verify-"):
            if hosts and self._plain(hosts):
                return url
            if mode:
                raise BadUrl(f"PostgreSQL on another host is verified: leave sslmode={mode} out. {_UNLESS}")
            query.append(("sslmode", "verify-full"))  # over a socket libpq passes it over
        if "sslrootcert" not in dict(query):
            query.append(("sslrootcert", self.ca_file or "system"))
        return parts._replace(query=urlencode(query)).geturl()

    def lake(self, url: str, environment: Mapping[str, str]) -> str:
        """The address of the lake as it is.

        Args:
            url: of a bucket, or a folder.
            environment: what the bucket's client is told; AWS's own variables.

        Raises:
            BadUrl: the bucket is on another host without TLS, or commits are made to look safe there.
        """
        if not url.startswith("s3://"):
            return url
        if environment.get("AWS_S3_ALLOW_UNSAFE_RENAME", "").lower() not in ("", "false"):
            raise BadUrl("two landers would lose rows with AWS_S3_ALLOW_UNSAFE_RENAME: leave it out")
        for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
            endpoint = environment.get(name, "")
            if endpoint.startswith("http://") and not self._plain([urlsplit(endpoint).hostname or ""]):
                raise BadUrl(f"a bucket on another host is reached by TLS: {name} is to be https://. {_UNLESS}")
        return url

    def _plain(self, hosts: Iterable[str]) -> bool:
        return all(_is_here(host) or host in self.plain_hosts for host in hosts)


_UNLESS = "Where the network between is private, name the host in MARQUEE_PLAIN_HOSTS."


@dataclass(frozen=True)
class Brokers:
    """What a URL of Kafka says: kafka://host:port[,host:port], or kafkas://[user:password@]… by TLS.

    Attributes:
        addresses: host:port of each broker that is asked first.
        tls: whether they are reached by TLS.
        user: percent-decoded, as the password; empty: nobody in particular.
        mechanism: how user and password are shown.
        ca_file: as `Transport.ca_file`.
    """

    addresses: list[str]
    tls: bool
    user: str
    password: str = field(repr=False)
    mechanism: str
    ca_file: str

    @classmethod
    def of(cls, url: str) -> "Brokers":
        """Take a URL apart.

        Raises:
            BadUrl: it says something that is not known here.
        """
        parts = urlsplit(url)
        login, _, addresses = parts.netloc.rpartition("@")
        if not all(address.rpartition(":")[2].isdecimal() for address in addresses.split(",")):
            raise BadUrl("every broker is named as host:port, parted by commas")
        user, _, password = login.partition(":")
        query = {"mechanism": MECHANISMS[0], "ca_file": "", **dict(parse_qsl(parts.query))}
        mechanism, ca_file = query.pop("mechanism"), query.pop("ca_file")
        if query or mechanism not in MECHANISMS:
            raise BadUrl(f"after ? there may be mechanism=, one of {', '.join(MECHANISMS)}, and ca_file=")
        return cls(addresses.split(","), parts.scheme == "kafkas", unquote(user), unquote(password), mechanism, ca_file)

    def security(self) -> dict[str, Any]:
        """The settings of kafka-python that say how to connect. It verifies certificate and name unless told not to."""
        if not self.tls:
            return {"security_protocol": "PLAINTEXT"}
        tls = {"security_protocol": "SSL", "ssl_cafile": self.ca_file or None}
        if not self.user:
            return tls
        login = {"sasl_plain_username": self.user, "sasl_plain_password": self.password}
        return {**tls, **login, "security_protocol": "SASL_SSL", "sasl_mechanism": self.mechanism}

    def fault(self) -> str:
        """Why the first broker does not let us in, as far as can be told without showing it a password."""
        host, port = _host(self.addresses[0]), self.addresses[0].rpartition(":")[2]
        context = ssl.create_default_context(cafile=self.ca_file or None)
        try:
            with (
                socket.create_connection((host, int(port)), HANDSHAKE_SECONDS) as connection,
                context.wrap_socket(connection, server_hostname=host),
            ):
                return LOGIN if self.tls else ONLY_TLS
        except ssl.SSLCertVerificationError as error:
            return advice(error) if self.tls else ONLY_TLS
        except ssl.SSLError as error:
            return advice(error) if self.tls else ""
        except OSError:
            return ""


@dataclass(frozen=True)
class Cluster:
    """What a URL of a Redis Cluster says: redis+cluster://host:port[,host:port], or rediss+cluster://… by TLS.

    Attributes:
        addresses: host and port of each node that is asked first, of whom one is enough.
        login: how the client shows who it is, and whom it trusts.
    """

    addresses: list[tuple[str, int]]
    login: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, url: str) -> "Cluster":
        """Take a URL apart.

        Raises:
            BadUrl: it says something that is not known here.
        """
        parts = urlsplit(url)
        login, _, addresses = parts.netloc.rpartition("@")
        nodes = [address.rpartition(":") for address in addresses.split(",")]
        if not all(host and port.isdecimal() for host, _, port in nodes):
            raise BadUrl("every node of a cluster is named as host:port, parted by commas")
        if parts.path.strip("/"):
            raise BadUrl("a cluster has no databases: leave what is behind the hosts out")
        user, _, password = login.partition(":")
        options = {"username": unquote(user) or None, "password": unquote(password) or None}
        tls = {"ssl": True, **dict(parse_qsl(parts.query))} if parts.scheme == TLS_CLUSTER else {}
        return cls([(host, int(port)) for host, _, port in nodes], {**options, **tls})

    def options(self, timeout: float) -> dict[str, Any]:
        """The arguments of redis-py's client, sync or not."""
        times = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
        return {**self.login, **times, "protocol": 3, "require_full_coverage": False, "reinitialize_steps": 1}

    def node(self, host: str, port: int) -> str:
        """URL of one of its nodes."""
        user, password = (quote(self.login[name] or "", safe="") for name in ("username", "password"))
        tls = urlencode({name: value for name, value in self.login.items() if name.startswith("ssl_")})
        login = f"{user}:{password}@" if user or password else ""
        return f"{'rediss' if self.login.get('ssl') else 'redis'}://{login}{host}:{port}{'?' if tls else ''}{tls}"


def is_cluster(url: str) -> bool:
    """Whether it is the URL of a Redis Cluster."""
    return url.startswith((f"{PLAIN_CLUSTER}://", f"{TLS_CLUSTER}://"))


def reason(error: BaseException) -> str:
    """What a store's client raised, and what to do about it where that is known. Never what was sent or received."""
    helped = advice(error)
    return f"{type(error).__name__}: {helped}" if helped else type(error).__name__


def advice(error: BaseException) -> str:
    """What to do about an error of TLS, of a login or of a right, whoever raised it; empty for any other."""
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen)
        for sign, helps in _ADVICE.items():
            if sign in text:
                return helps
        seen = seen.__cause__ or seen.__context__
    return ""


def _host(address: str) -> str:
    """The host of `host`, `host:port`, `[v6]:port` or a socket's folder."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address if address.count(":") > 1 else address.partition(":")[0]


def _is_here(host: str) -> bool:
    if host in ("", "localhost") or host.startswith("/"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
