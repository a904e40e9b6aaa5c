"""What URLs may say of how a store is reached: verified TLS, or nothing that others could read."""

import ssl

import pytest

from infra.transport import LOGIN, OTHER_NAME, UNTRUSTED, BadUrl, Brokers, Cluster, Transport, advice, reason

HERE = Transport()
WITH_CA = Transport("/etc/our ca.pem", ["cache", "broker", "db"])


@pytest.mark.parametrize(
    "url",
    [
        "unix:///run/redis.sock",
        "redis://localhost:6379",
        "redis://127.0.0.9/1",
        "redis://[::1]:6379",
        "redis://:pw@localhost",
    ],
)
def test_a_redis_on_this_machine_is_reached_as_it_is_named(url: str) -> None:
    assert WITH_CA.redis(url) == url


def test_a_redis_elsewhere_is_reached_by_tls_unless_its_host_is_named() -> None:
    with pytest.raises(BadUrl, match=r"use rediss://.*MARQUEE_PLAIN_HOSTS"):
        HERE.redis("redis://:pw@cache:6379")
    with pytest.raises(BadUrl, match="rediss"):
        WITH_CA.redis("redis://cache.example.org:6379")
    assert WITH_CA.redis("redis://cache:6379") == "redis://cache:6379"


def test_the_authority_is_told_to_redis_where_the_url_names_none() -> None:
    assert (
        WITH_CA.redis("rediss://u:p%40@cache:6379/2") == "rediss://u:p%40@cache:6379/2?ssl_ca_certs=%2Fetc%2Four+ca.pem"
    )
    assert WITH_CA.redis("rediss://cache?ssl_ca_certs=own.pem") == "rediss://cache?ssl_ca_certs=own.pem"
    assert HERE.redis("rediss://cache:6379") == "rediss://cache:6379"


@pytest.mark.parametrize(
    "weaker", ["ssl_cert_reqs=none", "ssl_check_hostname=false", "ssl_ciphers=NULL", "db=1&ssl_min_version=1"]
)
def test_a_redis_url_cannot_ask_for_less(weaker: str) -> None:
    with pytest.raises(BadUrl, match="always verified: leave ssl_"):
        WITH_CA.redis(f"rediss://localhost:6379?{weaker}")


def test_kafka_is_reached_by_tls_unless_every_broker_is_here_or_named() -> None:
    for url in ("kafka://localhost:9092", "kafka://broker:9092,127.0.0.1:9093"):
        assert WITH_CA.kafka(url) == url
    with pytest.raises(BadUrl, match=r"use kafkas://.*MARQUEE_PLAIN_HOSTS"):
        WITH_CA.kafka("kafka://broker:9092,elsewhere:9092")


def test_a_password_never_goes_to_kafka_in_the_open() -> None:
    with pytest.raises(BadUrl, match="kafkas"):
        WITH_CA.kafka("kafka://user:password@localhost:9092")


def test_a_url_of_kafka_says_who_comes_and_whom_to_trust() -> None:
    url = WITH_CA.kafka("kafkas://us%40er:p%3A%2Fw@one:9092,two:9093?mechanism=PLAIN")
    brokers = Brokers.of(url)
    assert brokers == Brokers(["one:9092", "two:9093"], True, "us@er", "p:/w", "PLAIN", "/etc/our ca.pem")
    assert "p:/w" not in repr(brokers)
    assert brokers.security()["security_protocol"] == "SASL_SSL"
    assert Brokers.of("kafkas://one:9092").security() == {"security_protocol": "SSL", "ssl_cafile": None}
    assert Brokers.of("kafkas://u:p@one:9092").security()["sasl_mechanism"] == "SCRAM-SHA-512"
    assert Brokers.of("kafka://[::1]:9092").security() == {"security_protocol": "PLAINTEXT"}


@pytest.mark.parametrize(
    "url", ["kafka://broker", "kafkas://b:9092?mechanism=GSSAPI", "kafkas://b:9092?verify=no", "kafka://"]
)
def test_a_url_of_kafka_that_says_something_else_is_refused(url: str) -> None:
    with pytest.raises(BadUrl, match=r"host:port|mechanism="):
        Transport(plain_hosts=["broker", "b"]).kafka(url)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////var/ledger.db",
        "http://localhost:5000",
        "https://mlflow.example.org",
        "postgresql+psycopg://marquee:pw@localhost/marquee",
        "postgresql+psycopg://postgres@/postgres?host=/run/postgresql&host=/tmp",
        "postgresql+psycopg://marquee@db:5432/marquee?sslmode=disable",
    ],
)
def test_a_database_here_or_on_a_named_host_is_reached_as_it_is_named(url: str) -> None:
    assert WITH_CA.database(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://m:p%40w@db.example.org/marquee",
        "postgresql+psycopg://m:p%40w@/marquee?host=db.example.org",
        "postgresql+psycopg://m:p%40w@localhost/marquee?hostaddr=10.0.0.7",
        "postgresql+psycopg://m:p%40w@localhost,db.example.org/marquee",
        "postgresql+psycopg://m:p%40w@/marquee",  # the environment may name a host
    ],
)
def test_postgresql_elsewhere_is_verified(url: str) -> None:
    reached = WITH_CA.database(url)
    assert reached.startswith("postgresql+psycopg://m:p%40w@")
    assert reached.endswith("sslmode=verify-full&sslrootcert=%2Fetc%2Four+ca.pem")
    assert HERE.database(url).endswith("sslmode=verify-full&sslrootcert=system")


def test_what_a_url_of_postgresql_verifies_may_be_as_much_and_not_less() -> None:
    asked = "postgresql+psycopg://m@db.example.org/marquee?sslmode=verify-ca&sslrootcert=own.pem"
    assert WITH_CA.database(asked) == asked
    assert WITH_CA.database("postgresql://localhost/m?sslmode=verify-full").endswith("sslrootcert=%2Fetc%2Four+ca.pem")
    for mode in ("disable", "prefer", "require"):
        with pytest.raises(BadUrl, match=f"leave sslmode={mode} out"):
            WITH_CA.database(f"postgresql+psycopg://m@db.example.org/marquee?sslmode={mode}")


def test_an_mlflow_server_elsewhere_is_reached_by_tls() -> None:
    with pytest.raises(BadUrl, match="https://"):
        HERE.database("http://mlflow.example.org:5000")
    assert WITH_CA.database("http://db:5000") == "http://db:5000"


def test_what_to_do_is_found_anywhere_in_the_chain_and_nothing_else_of_it_is_told() -> None:
    inner = ssl.SSLCertVerificationError("certificate verify failed: unable to get local issuer certificate")
    outer = OSError("secret bytes")
    outer.__cause__ = inner
    assert reason(outer) == f"OSError: {UNTRUSTED}"
    assert (
        advice(ssl.SSLError("certificate verify failed: Hostname mismatch, certificate is not valid for 'x'"))
        == OTHER_NAME
    )
    assert advice(OSError('FATAL:  password authentication failed for user "m"')) == LOGIN
    assert reason(OSError("secret bytes")) == "OSError"


def test_a_folder_is_left_as_it_is_whatever_the_environment_says() -> None:
    assert Transport().lake("/data/lake", {"AWS_ENDPOINT_URL": "http://elsewhere.example.org"}) == "/data/lake"


@pytest.mark.parametrize("endpoint", ["", "http://127.0.0.1:9000", "https://s3.example.org", "http://minio:9000"])
def test_a_bucket_is_reached_by_tls_or_on_this_machine_or_where_it_is_named(endpoint: str) -> None:
    assert Transport("", ["minio"]).lake("s3://bucket/lake", {"AWS_ENDPOINT_URL": endpoint}) == "s3://bucket/lake"


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"])
def test_a_bucket_on_another_host_without_tls_is_refused(variable: str) -> None:
    with pytest.raises(BadUrl, match=f"{variable} is to be https"):
        Transport().lake("s3://bucket/lake", {variable: "http://minio:9000"})


def test_commits_that_are_made_to_look_safe_are_refused() -> None:
    with pytest.raises(BadUrl, match="AWS_S3_ALLOW_UNSAFE_RENAME"):
        Transport().lake("s3://bucket/lake", {"AWS_S3_ALLOW_UNSAFE_RENAME": "true"})
    assert Transport().lake("s3://bucket/lake", {"AWS_S3_ALLOW_UNSAFE_RENAME": "false"})


# --- a Redis Cluster -------------------------------------------------------------------------------------------------


def test_a_cluster_elsewhere_is_reached_by_tls_unless_every_node_is_here_or_named() -> None:
    assert HERE.redis("redis+cluster://127.0.0.1:1,localhost:2") == "redis+cluster://127.0.0.1:1,localhost:2"
    assert WITH_CA.redis("redis+cluster://cache:1,127.0.0.1:2") == "redis+cluster://cache:1,127.0.0.1:2"
    with pytest.raises(BadUrl, match=r"use rediss\+cluster://"):
        HERE.redis("redis+cluster://127.0.0.1:1,cache:2")
    assert WITH_CA.redis("rediss+cluster://u:p@far:1") == "rediss+cluster://u:p@far:1?ssl_ca_certs=%2Fetc%2Four+ca.pem"
    with pytest.raises(BadUrl, match="leave ssl_cert_reqs out"):
        HERE.redis("rediss+cluster://far:1?ssl_cert_reqs=none")


@pytest.mark.parametrize("rest", ["cache", "cache:1,other", ":1", "cache:1/2", "cache:x"])
def test_a_url_of_a_cluster_that_says_something_else_is_refused(rest: str) -> None:
    with pytest.raises(BadUrl):
        WITH_CA.redis(f"rediss+cluster://{rest}")


def test_every_node_of_a_cluster_is_reached_as_its_url_says() -> None:
    cluster = Cluster.of("rediss+cluster://us%40er:p%2F@one:1,two:2?ssl_ca_certs=a+b.pem")
    assert cluster.addresses == [("one", 1), ("two", 2)]
    options = cluster.options(1.5)
    assert (options["username"], options["password"]) == ("us@er", "p/")
    assert (options["ssl"], options["ssl_ca_certs"], options["socket_timeout"]) == (True, "a b.pem", 1.5)
    assert cluster.node("three", 3) == "rediss://us%40er:p%2F@three:3?ssl_ca_certs=a+b.pem"
    assert Cluster.of("redis+cluster://one:1").node("two", 2) == "redis://two:2"
    assert "p/" not in repr(cluster)
