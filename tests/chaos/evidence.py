"""Reads what the checker compares: every record of the log, the ledger, the lake, and what training learns from."""

import time
from collections.abc import Iterable
from pathlib import Path

import orjson
import polars as pl

from infra.database import Ledger
from infra.event_log.port import EventLog, EventLogUnavailable, Record
from infra.lake import EVENTS
from ingest.account import take_account
from ingest.events import ConsentProjection, InvalidRecord, decode, read_domain, subject
from ingest.projection import fold
from tests.chaos.checker import Evidence
from tests.chaos.platform import ROOT, SECRET, Platform
from tests.chaos.producers import BASE, Kept
from training.snapshot import read_lake

READING_SECONDS = 300.0
LOGGED = {
    "partition": pl.Int32(),
    "offset": pl.Int64(),
    "event_id": pl.String(),
    "user_id": pl.String(),
    "at_ms": pl.Int64(),
    "receipt": pl.Int64(),
}


def collect(platform: Platform, kept: Iterable[Kept]) -> Evidence:
    """All of it, once everything has landed."""
    kept = list(kept)
    log = platform.open_log()
    try:
        logged, other, broken = _sorted(read_all(log))
        account = take_account(log, platform.lake)
    finally:
        log.close()
    acknowledged = pl.Series([id for each in kept for id in each.acknowledged], dtype=pl.String)
    return Evidence(
        acknowledged=acknowledged,
        forbidden=tuple(id for each in kept for id in each.forbidden),
        logged=logged,
        other_records=other,
        broken=broken,
        revoked=_revoked(platform, logged),
        lake=platform.lake.snapshot(EVENTS, ["partition", "offset", "event_id", "receipt"]).rows,
        learned=_learned(platform),
        account=account,
        refused=pl.Series([id for each in kept for id in each.refused], dtype=pl.String),
    )


def read_all(log: EventLog) -> list[Record]:
    """Every record of the log.

    Raises:
        TimeoutError: it cannot be read to its end.
    """
    ends, consumer = log.end_offsets(), log.consumer(f"checker-{time.time_ns()}")
    found: list[Record] = []
    deadline = time.monotonic() + READING_SECONDS
    try:
        while len(found) < sum(ends.values()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the log says that it has {sum(ends.values())} records, but gave {len(found)}")
            try:
                found += consumer.poll(1.0)
            except EventLogUnavailable:
                time.sleep(0.5)
    finally:
        consumer.close()
    return found


def _sorted(records: Iterable[Record]) -> tuple[pl.DataFrame, int, int]:
    """Events, number of other records, and of these how many are broken."""
    events, other, broken = [], 0, 0
    for record in records:
        said = _read(record.value)
        if said.get("kind") == "event":
            at_ms = int(said["event_id"].rpartition(":")[2])
            events.append((record.partition, record.offset, said["event_id"], said["user_id"], at_ms, said["receipt"]))
        else:
            other += 1
            broken += not said
    return pl.DataFrame(events, schema=LOGGED, orient="row"), other, broken


def _read(value: bytes) -> dict[str, object] | dict[str, str]:
    """What an event says; of other records that they are none; nothing of what is no record of ours."""
    try:
        said = orjson.loads(value)
        if said["kind"] == "event" and "receipt" in said:
            return said
        return {"kind": decode(value).kind}
    except (orjson.JSONDecodeError, InvalidRecord, KeyError, TypeError):
        return {}


def _revoked(platform: Platform, logged: pl.DataFrame) -> pl.DataFrame:
    ledger = Ledger(platform.database_url)
    try:
        of: dict[str, list[object]] = {}
        for receipt in ledger.receipts_after(0):
            of.setdefault(receipt.subject, []).append(receipt)
    finally:
        ledger.close()
    people = logged["user_id"].unique().to_list()
    rows = [(person, fold(of.get(subject(person, SECRET), [])).revoked) for person in people]
    return pl.DataFrame(rows, schema={"user_id": pl.String(), "revoked": pl.Int64()}, orient="row")


def _learned(platform: Platform) -> pl.DataFrame:
    """user_id, at_ms (after `BASE`) of every act."""
    projection = ConsentProjection(platform.store, SECRET)
    acts = read_lake(platform.lake, projection, read_domain(Path(ROOT / "domain.toml"))).events.rows
    return acts.select("user_id", pl.col("at_ms") - int(BASE.timestamp() * 1000))
