"""The ledger's tables, and engines for SQLite and PostgreSQL that hold to the same rules."""

import json
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine.interfaces import DBAPIConnection

ANSWER_SECONDS = 5


class Moment(sql.types.TypeDecorator[datetime]):
    """A time as RFC 3339 text: the same in both databases, and it comes back as it went in."""

    impl = sql.String(32)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sql.Dialect) -> str | None:
        """As it is stored."""
        return None if value is None else value.astimezone(UTC).isoformat()

    def process_result_value(self, value: str | None, dialect: sql.Dialect) -> datetime | None:
        """As it was.

        Raises:
            ValueError: it is not in the form that it was stored in.
        """
        moment = None if value is None else datetime.fromisoformat(value)
        if moment is not None and moment.isoformat() != value:
            raise ValueError("a time was altered")
        return moment


TABLES = sql.MetaData()
HEAD = sql.Table(
    "receipts_head",
    TABLES,
    sql.Column("id", sql.SmallInteger, sql.CheckConstraint("id = 1"), primary_key=True),
    sql.Column("number", sql.BigInteger, nullable=False),
    sql.Column("hash", sql.String(64), nullable=False),
    sql.Column("seal", sql.String(64), nullable=False, server_default=""),
)
RECEIPTS = sql.Table(
    "receipts",
    TABLES,
    sql.Column("number", sql.BigInteger, primary_key=True, autoincrement=False),
    sql.Column("subject", sql.String(64), nullable=False, index=True),
    sql.Column("action", sql.String(16), nullable=False),
    sql.Column("purposes", sql.JSON, nullable=False),
    sql.Column("policy_version", sql.String(128), nullable=False),
    sql.Column("source", sql.String(128), nullable=False),
    sql.Column("at", Moment, nullable=False),
    sql.Column("previous", sql.String(64), nullable=False),
    sql.Column("hash", sql.String(64), nullable=False),
)
ERASURES = sql.Table(
    "erasures",
    TABLES,
    sql.Column("erasure_id", sql.String(64), primary_key=True),
    sql.Column("subject", sql.String(64), nullable=False, index=True),
    sql.Column("receipt", sql.BigInteger, nullable=False),
    sql.Column("opened_at", Moment, nullable=False),
    sql.Column("mark_partition", sql.Integer),
    sql.Column("mark_offset", sql.BigInteger),
    sql.Column("completed_at", Moment),
)
STEPS = sql.Table(
    "erasure_steps",
    TABLES,
    sql.Column("erasure_id", sql.String(64), sql.ForeignKey("erasures.erasure_id"), primary_key=True),
    sql.Column("stage", sql.String(32), primary_key=True),
    sql.Column("removed", sql.BigInteger),
    sql.Column("at", Moment, nullable=False),
    sql.Column("remains_until", Moment),
)
ADDED = {(HEAD, "seal"): "VARCHAR(64) DEFAULT '' NOT NULL", (STEPS, "remains_until"): "VARCHAR(32)"}
"""Columns that a ledger of an older version lacks."""


def engine(url: str) -> sql.Engine:
    """The engine behind a URL, with short time-outs and no parameters in its errors. It connects on first use."""
    if sql.make_url(url).get_backend_name() == "postgresql":
        milliseconds = ANSWER_SECONDS * 1000
        options = f"-c lock_timeout={milliseconds} -c statement_timeout={milliseconds}"
        arguments: dict[str, Any] = {"connect_timeout": ANSWER_SECONDS, "options": options}
        return sql.create_engine(
            url,
            hide_parameters=True,
            pool_pre_ping=True,
            pool_timeout=ANSWER_SECONDS,
            connect_args=arguments,
            json_deserializer=_as_written,
        )
    sqlite = sql.create_engine(
        url,
        hide_parameters=True,
        pool_timeout=ANSWER_SECONDS,
        connect_args={"timeout": ANSWER_SECONDS},
        json_deserializer=_as_written,
    )
    sql.event.listen(sqlite, "connect", _prepare_sqlite)
    sql.event.listen(sqlite, "begin", _begin_sqlite)
    return sqlite


def _as_written(value: str | bytes) -> Any:
    """The JSON of a column; blanks that the ledger does not write are an alteration too."""
    decoded = json.loads(value)
    if json.dumps(decoded).encode() != (value.encode() if isinstance(value, str) else bytes(value)):
        raise ValueError("a list was altered")
    return decoded


def _prepare_sqlite(connection: DBAPIConnection, _: object) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late: we send it ourselves
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: sql.Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
