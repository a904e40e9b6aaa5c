"""Every setting of the platform: name, default, meaning. Only a stage's `main.py` reads them."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.origins import ORIGIN, origin_of, parse_origins
from infra.transport import BadUrl, Transport, is_cluster

SECRETS_FILE = "secrets.env"
PROCESSES = {
    "ingest": "ingest_port",
    "lander": "lander_metrics_port",
    "nearline": "nearline_metrics_port",
    "trainer": "trainer_metrics_port",
    "serving": "serving_port",
}
"""Process → setting of the port on which it shows /metrics."""


class Settings(BaseSettings):
    """Settings from `MARQUEE_*` variables, then from `<data>/secrets.env`, then the defaults: the embedded platform.

    A part is chosen by its URL: what is left empty is embedded, in a file or a socket below `data`.
    """

    model_config = SettingsConfigDict(env_prefix="MARQUEE_", extra="ignore", frozen=True, hide_input_in_errors=True)

    data: Path = Field(Path("var/marquee"), description="Folder of the embedded platform's stores and secrets.")
    domain: Path = Field(Path("domain.toml"), description="What is recommended and which acts count.")

    # URLs may hold passwords, so they are in no repr.
    redis: str = Field(
        "",
        repr=False,
        description="Online store: redis://, rediss:// (TLS), redis+cluster://host:port,… or unix://. Empty: embedded.",
    )
    event_log: str = Field(
        "",
        repr=False,
        description="Event log: kafka://host:9092[,…], kafkas:// (TLS) or a Redis URL. Empty: the Redis.",
    )
    disk_floor_mb: int = Field(
        512, ge=0, description="With less free, nothing is taken or landed. 0: whatever is free."
    )
    topic: str = Field("marquee.events", description="The log's one topic.")
    partitions: int = Field(4, ge=1, le=1024, description="Partitions of the topic, fixed when it is created.")
    log_retention_seconds: int = Field(
        7 * 86400,
        ge=60,
        description="Kafka: records stay so long at most, where the topic has no retention of its own.",
    )
    lake: str = Field(
        "", repr=False, description="Folder of the Delta tables, or s3://bucket/prefix. Empty: below `data`."
    )
    database: str = Field(
        "", repr=False, description="Consent ledger: sqlite:/// or postgresql+psycopg://. Empty: SQLite."
    )
    registry: str = Field(
        "", repr=False, description="MLflow: sqlite:///, postgresql+psycopg:// or https://. Empty: SQLite."
    )
    ca_file: str = Field("", description="PEM file of the authorities that sign the stores. Empty: the system's.")
    plain_hosts: str = Field(
        "", description="Hosts, besides this one, whose stores may be reached without TLS: redis,kafka."
    )

    api_key: SecretStr = Field(SecretStr(""), description="Key that the commands send; if not `mq_…`, it opens all.")
    keys: str = Field("", description="File of the callers' keys. Empty: keys.json below `data`.")
    secret: SecretStr = Field(SecretStr(""), description="Key of pseudonyms, receipts and recommendation ids.")

    jwt_key_file: str = Field("", description="Checks people's tokens: PEM public key, or a secret. Empty: no tokens.")
    jwt_audience: str = Field("marquee", min_length=1, description="Whom a token has to be for (`aud`).")
    jwt_issuer: str = Field("", description="Who has to have made a token (`iss`). Empty: it is not asked.")
    jwt_events_per_second: float = Field(10, gt=0, description="Events that a person's token may send; 10 s at once.")
    demo_login: bool = Field(
        False, description="Serving signs anybody in as anybody: for demonstrations, on loopback only."
    )
    item_flood_per_minute: int = Field(2000, ge=0, description="Events a minute about one item, of one key. 0: any.")

    host: str = Field("127.0.0.1", description="Address that every process listens on.")
    serving_port: int = Field(8000, description="Port of the serving API.")
    serving_most_waiting: int = Field(1024, ge=1, description="So many wait for their lists; who comes then gets 503.")
    ingest_port: int = Field(8001, description="Port of the ingest API.")
    operator_port: int = Field(8002, description="Port of the operator's API.")
    lander_metrics_port: int = Field(9101, description="Port of the lander's /metrics.")
    nearline_metrics_port: int = Field(9102, description="Port of the nearline worker's /metrics.")
    trainer_metrics_port: int = Field(9103, description="Port of the training schedule's /metrics.")
    process_urls: str = Field(
        "", description="Processes on other hosts, for the operator's API: serving=URL,…. Empty: all are on this one."
    )
    allowed_origins: str = Field(
        "",
        description="Origins whose pages may call ingest and the operator's API, joined by commas. Empty: no page may.",
    )

    train_every_seconds: float = Field(3600, gt=0, description="The schedule retrains at least this often.")
    train_after_events: int = Field(100_000, ge=1, description="The schedule retrains after so many new events.")
    tune_seconds: float = Field(60, ge=0, description="How long a retraining looks for a recipe. 0: defaults only.")
    engine: Literal["process", "spark"] = Field("process", description="Where models are fitted and lists are made.")
    spark_master: str = Field("local[*]", description="Spark's master: local[N], a cluster's URL, yarn.")
    hold_out_gap_seconds: float = Field(0, ge=0, description="How long before the hold-out begins training ends.")
    list_length: int = Field(100, ge=1, le=1000, description="Length of the lists that are published.")
    list_ttl_seconds: int = Field(7 * 86400, ge=60, description="Lifetime of published lists and bundles in Redis.")
    history_ttl_seconds: int = Field(90 * 86400, ge=60, description="Lifetime of a history that sees no new event.")
    log_format: str = Field("", pattern="^(json|console|)$", description="Empty: console on a terminal, else json.")

    @model_validator(mode="after")
    def _reach_no_store_in_a_way_that_others_can_read(self) -> "Settings":
        for name in ("redis_url", "event_log_url", "database_url", "registry_uri", "lake_uri"):
            try:
                getattr(self, name)
            except BadUrl as error:
                raise ValueError(f"MARQUEE_{name.rpartition('_')[0].upper()}: {error}") from None
        return self

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, listed: str) -> str:
        parse_origins(listed)
        return listed

    @field_validator("process_urls")
    @classmethod
    def _are_processes(cls, listed: str) -> str:
        for name, _, url in (part.partition("=") for part in listed.split(",") if part):
            if name not in PROCESSES or not ORIGIN.fullmatch(url):
                raise ValueError(f"write name=http://host:port, with a name of {', '.join(PROCESSES)}")
        return listed

    @property
    def processes(self) -> dict[str, str]:
        """Where each process shows its /metrics, by name."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104  # nosec B104 - compared with
        here = {name: origin_of(host, getattr(self, port)) for name, port in PROCESSES.items()}
        return here | dict(part.split("=", 1) for part in self.process_urls.split(",") if part)

    @property
    def origins(self) -> list[str]:
        """`allowed_origins`, apart."""
        return parse_origins(self.allowed_origins)

    @property
    def redis_url(self) -> str:
        """URL of the online store."""
        return self._transport.redis(self.redis or f"unix://{self.embedded_socket}")

    @property
    def event_log_url(self) -> str:
        """URL of the event log."""
        if self.event_log.startswith(("kafka://", "kafkas://")):
            return self._transport.kafka(self.event_log)
        if is_cluster(self.event_log or self.redis):
            raise BadUrl(
                "a Redis Cluster is no event log: what it took is lost with a master. Name Kafka, or one Redis"
            )
        return self._transport.redis(self.event_log) if self.event_log else self.redis_url

    @property
    def embedded_folders(self) -> list[Path]:
        """Where what ingest takes is written to, as far as it is on a disk of this machine."""
        return [] if self.event_log and self.redis and self.database else [self.data]

    @property
    def lake_uri(self) -> str:
        """Folder of the lake, or its bucket."""
        return self._transport.lake(self.lake or str(self.data.absolute() / "lake"), os.environ)

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the ledger."""
        return self._transport.database(self.database or f"sqlite:///{self.data.absolute() / 'ledger.db'}")

    @property
    def registry_uri(self) -> str:
        """MLflow tracking and registry URI."""
        return self._transport.database(self.registry or f"sqlite:///{self.data.absolute() / 'registry.db'}")

    @property
    def keys_file(self) -> Path:
        """File of the callers' keys."""
        return Path(self.keys) if self.keys else self.data.absolute() / "keys.json"

    @property
    def login_key_file(self) -> Path:
        """What the login for demonstrations signs with."""
        return self.data.absolute() / "login.pem"

    @property
    def artifacts(self) -> Path:
        """Folder of the runs' artefacts."""
        return self.data.absolute() / "artifacts"

    @property
    def signing_secret(self) -> str:
        """`secret`, for a process that cannot do without.

        Raises:
            SystemExit: it is not set. What is signed with nothing, everybody can sign.
        """
        return required(self.secret, "MARQUEE_SECRET")

    @property
    def _transport(self) -> Transport:
        return Transport(self.ca_file, self.plain_hosts.split(","))

    @property
    def embedded_socket(self) -> Path:
        """Socket of the embedded Redis."""
        return self.data.absolute() / "redis.sock"


def load_settings() -> Settings:
    """Settings of this process.

    Raises:
        SystemExit: a variable does not parse, or a store would be reached in the open; the message says which, and
            never what stands in it.
    """
    data = Path(os.environ.get("MARQUEE_DATA", "var/marquee"))
    try:
        return Settings(_env_file=data / SECRETS_FILE)
    except ValidationError as error:
        raise SystemExit(f"Cannot start: {'; '.join(map(_in_words, error.errors(include_input=False)))}") from None


def required(value: SecretStr, name: str) -> str:
    """A secret.

    Raises:
        SystemExit: it is empty.
    """
    if not value.get_secret_value():
        raise SystemExit(f"{name} is not set. `marquee up` makes one in the data folder; elsewhere, set it yourself.")
    return value.get_secret_value()


def _in_words(error: ErrorDetails) -> str:
    name = "".join(f"MARQUEE_{str(part).upper()}: " for part in error["loc"])
    return f"{name}{error['msg'].removeprefix('Value error, ')}"
