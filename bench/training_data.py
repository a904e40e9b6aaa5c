"""A lake and the consents of invented people, of any size, made a piece at a time."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from infra.lake import EVENTS, TABLES, Lake, Span
from infra.online_store import OnlineStore
from ingest.events import CONSENT_HEAD, PERSONALIZATION, Consent, consent_key, subject

SECRET = "of the pseudonyms in an invented lake"  # noqa: S105
PARTITIONS = 8
DAYS = 60
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
EAGERNESS = 0.8
"""Spread of how much people do: standard deviation of its logarithm."""
FAME = 0.7
"""Exponent of Zipf's law: how much more the famous items are met."""
SENT_AGAIN = 0.01
TYPES = {"play": 0.7, "complete": 0.2, "thumbs_up": 0.07, "thumbs_down": 0.03}
ROWS_A_COMMIT = 500_000
PEOPLE_AT_ONCE = 10_000

Numbers = npt.NDArray[np.int64]


class Size(NamedTuple):
    """How much data.

    Attributes:
        interactions: rows of the lake.
    """

    interactions: int
    people: int
    items: int


def fill_lake(lake: Lake, size: Size, seed: int = 1) -> None:
    """Land so many events, of each commit as many of every day that it spans as there would be."""
    ends = np.zeros(PARTITIONS, np.int64)
    for rows in _events(size, np.random.default_rng(seed)):
        offsets = rows["partition"].to_numpy()
        counts = np.bincount(offsets, minlength=PARTITIONS)
        first = np.cumsum(counts) - counts
        place = np.arange(rows.height) - first[offsets] + ends[offsets]
        spans = {p: Span(int(ends[p]), int(ends[p] + counts[p])) for p in range(PARTITIONS)}
        lake.append(EVENTS, rows.with_columns(offset=pl.Series(place)), spans)
        ends += counts


def grant_everybody(store: OnlineStore, size: Size) -> None:
    """Everybody allows it."""
    for start in range(0, size.people, PEOPLE_AT_ONCE):
        pipeline = store.pipeline(transaction=False)
        for person in range(start, min(start + PEOPLE_AT_ONCE, size.people)):
            consent = Consent(person + 1, 0, frozenset({PERSONALIZATION}))
            pipeline.set(consent_key(subject(f"viewer-{person:07}", SECRET)), consent.encode())
        pipeline.execute()
    store.set(CONSENT_HEAD, size.people)


def _events(size: Size, random: np.random.Generator) -> Iterator[pl.DataFrame]:
    """The rows of each commit, in the order of the log's partitions."""
    people, items = (_ids(name, count) for name, count in (("viewer", size.people), ("film", size.items)))
    eagerness = _cumulated(random.lognormal(0, EAGERNESS, size.people))
    fame = _cumulated((1.0 + random.permutation(size.items)) ** -FAME)
    partition = random.integers(PARTITIONS, size=size.people)
    for start in range(0, size.interactions, ROWS_A_COMMIT):
        count = min(ROWS_A_COMMIT, size.interactions - start)
        person, item = (np.searchsorted(of, random.random(count)) for of in (eagerness, fame))
        order = np.argsort(partition[person], kind="stable")
        moment = (start + np.arange(count)) / size.interactions
        row = _sent_again(np.arange(count), partition[person][order], random)
        event = pl.Series(np.frombuffer(random.bytes(16 * count).hex().encode(), "S32")).cast(pl.String)
        person, item, moment = person[order][row], item[order][row], moment[order]
        yield _rows(
            event.gather(row), people.gather(person), items.gather(item), _types(count, random), moment
        ).with_columns(receipt=pl.Series(person + 1), partition=pl.Series(partition[person], dtype=pl.Int32))


def _sent_again(row: Numbers, partition: Numbers, random: np.random.Generator) -> Numbers:
    """Which row each one is a copy of: now and then the one before it, of the same partition."""
    again = random.random(len(row)) < SENT_AGAIN
    again[0] = False
    again[1:] &= partition[1:] == partition[:-1]
    return row - again


def _rows(
    event: pl.Series, person: pl.Series, item: pl.Series, kind: pl.Series, moment: npt.NDArray[np.float64]
) -> pl.DataFrame:
    begin = int(BEGIN.timestamp() * 1000)
    at = pl.Series((begin + moment * DAYS * 86_400_000).astype(np.int64)).cast(pl.Datetime("ms", "UTC"))
    frame = pl.DataFrame(
        {"event_id": event, "type": kind, "user_id": person, "item_id": item, "occurred_at": at, "accepted_at": at}
    )
    moments = (pl.col(name).cast(TABLES[EVENTS][name]) for name in ("occurred_at", "accepted_at"))
    nothing = pl.lit(None, pl.String).alias("recommendation_id")
    return frame.with_columns(*moments, nothing, pl.col("accepted_at").dt.date().alias("day"))


def _types(count: int, random: np.random.Generator) -> pl.Series:
    return pl.Series([*TYPES]).gather(np.searchsorted(_cumulated(np.array([*TYPES.values()])), random.random(count)))


def _ids(name: str, count: int) -> pl.Series:
    return pl.select(pl.lit(f"{name}-") + pl.int_range(count).cast(pl.String).str.zfill(7)).to_series()


def _cumulated(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of each share the sum so far; the last is 1."""
    sums = np.cumsum(shares)
    return np.asarray(sums / sums[-1])
