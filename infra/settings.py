"""Every setting of the platform: name, default, meaning. Only a stage's `main.py` reads them."""

import os
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

SECRETS_FILE = "secrets.env"


class Settings(BaseSettings):
    """Settings from `MARQUEE_*` variables, then from `<data>/secrets.env`, then the defaults: the embedded platform.

    A part is chosen by its URL: what is left empty is embedded, in a file or a socket below `data`.
    """

    model_config = SettingsConfigDict(env_prefix="MARQUEE_", extra="ignore", frozen=True)

    data: Path = Field(Path("var/marquee"), description="Folder of the embedded platform's stores and secrets.")
    domain: Path = Field(Path("domain.toml"), description="What is recommended and which acts count.")

    redis: str = Field("", description="Online store: redis://, rediss:// or unix://. Empty: the embedded one.")
    event_log: str = Field("", description="Event log: kafka://host:9092[,host:9092] or a Redis URL. Empty: the Redis.")
    topic: str = Field("marquee.events", description="The log's one topic.")
    partitions: int = Field(4, ge=1, le=1024, description="Partitions of the topic, fixed when it is created.")
    lake: str = Field("", description="Folder of the Delta tables. Empty: a folder below `data`.")
    database: str = Field("", description="Consent ledger: sqlite:/// or postgresql+psycopg://. Empty: SQLite.")
    registry: str = Field("", description="MLflow: sqlite:///, postgresql+psycopg:// or http://. Empty: SQLite.")

    api_key: SecretStr = Field(SecretStr(""), description="Key that callers send as `Authorization: Bearer …`.")
    secret: SecretStr = Field(SecretStr(""), description="Key of pseudonyms, receipts and recommendation ids.")

    host: str = Field("127.0.0.1", description="Address that every process listens on.")
    serving_port: int = Field(8000, description="Port of the serving API.")
    serving_most_waiting: int = Field(1024, ge=1, description="So many wait for their lists; who comes then gets 503.")
    ingest_port: int = Field(8001, description="Port of the ingest API.")
    lander_metrics_port: int = Field(9101, description="Port of the lander's /metrics.")
    nearline_metrics_port: int = Field(9102, description="Port of the nearline worker's /metrics.")
    trainer_metrics_port: int = Field(9103, description="Port of the training schedule's /metrics.")

    train_every_seconds: float = Field(3600, gt=0, description="The schedule retrains at least this often.")
    train_after_events: int = Field(100_000, ge=1, description="The schedule retrains after so many new events.")
    tune_seconds: float = Field(60, ge=0, description="How long a retraining looks for a recipe. 0: defaults only.")
    hold_out_gap_seconds: float = Field(0, ge=0, description="How long before the hold-out begins training ends.")
    list_length: int = Field(100, ge=1, le=1000, description="Length of the lists that are published.")
    list_ttl_seconds: int = Field(7 * 86400, ge=60, description="Lifetime of published lists and bundles in Redis.")
    history_ttl_seconds: int = Field(90 * 86400, ge=60, description="Lifetime of a history that sees no new event.")
    log_format: str = Field("", pattern="^(json|console|)$", description="Empty: console on a terminal, else json.")

    @property
    def redis_url(self) -> str:
        """URL of the online store."""
        return self.redis or f"unix://{self.embedded_socket}"

    @property
    def event_log_url(self) -> str:
        """URL of the event log."""
        return self.event_log or self.redis_url

    @property
    def lake_uri(self) -> str:
        """Folder or URL of the lake."""
        return self.lake or str(self.data.absolute() / "lake")

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the ledger."""
        return self.database or f"sqlite:///{self.data.absolute() / 'ledger.db'}"

    @property
    def registry_uri(self) -> str:
        """MLflow tracking and registry URI."""
        return self.registry or f"sqlite:///{self.data.absolute() / 'registry.db'}"

    @property
    def artifacts(self) -> Path:
        """Folder of the runs' artefacts."""
        return self.data.absolute() / "artifacts"

    @property
    def embedded_socket(self) -> Path:
        """Socket of the embedded Redis."""
        return self.data.absolute() / "redis.sock"


def load_settings() -> Settings:
    """Settings of this process.

    Raises:
        pydantic.ValidationError: a variable does not parse; the message names it.
    """
    data = Path(os.environ.get("MARQUEE_DATA", "var/marquee"))
    return Settings(_env_file=data / SECRETS_FILE)
