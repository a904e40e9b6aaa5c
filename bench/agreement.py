"""Is what Spark fits as good as what this process fits? nDCG@10 of both, on the same people.

    .venv/bin/python -m bench.agreement [FOLDER]        FOLDER: of the data sets, default ../shared/data

ml-latest-small is split by time, as the retraining job does it; ml-1m has no times, so its own test file is asked for
after train and valid. Both engines fit the same recipe to the same lake. They agree where the difference of their
nDCG@10 is inside the bootstrap interval of the one-process engine's, over people. Writes bench/results/agreement.json.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from rich.console import Console

from bench.serving_store import running_redis
from infra.lake import EVENTS, TABLES, Lake, Span
from infra.online_store import OnlineStore
from ingest.events import (
    CONSENT_HEAD,
    PERSONALIZATION,
    Consent,
    ConsentProjection,
    Domain,
    consent_key,
    read_domain,
    subject,
)
from training.bootstrap import Figure
from training.bootstrap import figures as with_intervals
from training.columns import Column
from training.engine import OneProcess
from training.evaluation import rank
from training.recipe import Recipe
from training.snapshot import Reading, read_lake
from training.spark.engine import SparkEngine
from training.spark.session import open_session
from training.split import Split, assemble, split_by_time
from workshop.datasets import read_movielens

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench/results/agreement.json"
SECRET = "of the pseudonyms of a data set"  # noqa: S105
BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
RECIPE = Recipe("als", {"factors": 64, "regularization": 10.0, "alpha": 3.0, "iterations": 15})

Figures = dict[str, Any]
SplitIt = Callable[[Reading, Domain], Split]


class DataSet(NamedTuple):
    """Interactions, and what of them is asked for.

    Attributes:
        rows: user_id, item_id, type, occurred_at; what is landed.
        split: what both engines are judged on.
        by_time: whether the engines are told to fit on what happened before the split's cut.
    """

    name: str
    rows: pl.DataFrame
    split: SplitIt
    by_time: bool


def main(arguments: Sequence[str]) -> int:
    """Compare on both data sets; 1 where the engines do not agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT.parent / "shared/data")
    data = parser.parse_args(arguments).folder
    domain = read_domain(ROOT / "domain.toml")
    found = dict[str, Figures]()
    with tempfile.TemporaryDirectory(prefix="mq-bench-") as folder, stores(Path(folder)) as store:
        consents = ConsentProjection(store, SECRET)
        with open_session("local[2]") as session:
            for each in (latest_small(data), one_million(data)):
                lake = Lake(f"{folder}/{each.name}")
                land(each.rows, lake, store)
                engine = spark_engine(session, lake, domain)
                found[each.name] = compare(each, engine, lake, consents, domain)
    whole = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "command": "python -m bench.agreement", **found}
    RESULT.write_text(json.dumps(whole, indent=2) + "\n")
    Console().print_json(data=whole)
    return 0 if all(one["agree"] for one in found.values()) else 1


def latest_small(folder: Path) -> DataSet:
    """MovieLens latest-small, split by time."""
    acts = read_movielens(folder / "ml-latest-small").acts
    return DataSet("ml-latest-small", acts, by_time, True)


def one_million(folder: Path) -> DataSet:
    """MovieLens 1M, as its files are split."""
    parts = {part: pl.read_parquet(folder / f"benchmarks/ml-1m/{part}.parquet") for part in ("train", "valid", "test")}
    ids = (pl.format("u{}", Column.USER).alias(Column.USER), pl.format("m{}", Column.ITEM).alias(Column.ITEM))
    train = pl.concat([parts["train"], parts["valid"]]).select(ids)
    moments = pl.Series(Column.OCCURRED, [BEGIN + timedelta(seconds=second) for second in range(train.height)])
    test = parts["test"].select(ids)
    rows = train.with_columns(moments, pl.lit("play").alias("type"))
    return DataSet("ml-1m", rows, lambda reading, domain: _asked(reading, domain, test), False)


def by_time(reading: Reading, domain: Domain) -> Split:
    """As the retraining job splits."""
    return split_by_time(reading.events, reading.catalogue, domain.history.length)


def _asked(reading: Reading, domain: Domain, test: pl.DataFrame) -> Split:
    train = reading.histories()
    known = test.filter(pl.col(Column.USER).is_in(list(train.users.ids)))
    none = reading.events.rows.clear()
    return assemble(train, none, known, domain.history.length, cut_ms=np.iinfo(np.int64).max)


def compare(
    data: DataSet,
    engine: SparkEngine,
    lake: Lake,
    consents: ConsentProjection,
    domain: Domain,
    *,
    recipe: Recipe = RECIPE,
) -> Figures:
    """Fit by both engines what is in the lake, and judge both on the same people."""
    reading = read_lake(lake, consents, domain)
    split = data.split(reading, domain)
    before_ms = split.cut_ms if data.by_time else None
    figures = dict[str, Figure]()
    for each in (OneProcess(), engine):
        model = each.fit(recipe, split.train, before_ms)
        figures[each.name] = with_intervals(rank(model, split, split.fresh.weighted(recipe.recency)), [10])["ndcg@10"]
    one, spark = figures["process"], figures["spark"]
    return {
        "people": len(split.people),
        "interactions": split.train.positives.nnz,
        "process": one._asdict(),
        "spark": spark._asdict(),
        "agree": one.low <= spark.value <= one.high,
    }


def spark_engine(session: "SparkSession", lake: Lake, domain: Domain) -> SparkEngine:
    """The engine over a lake; its lists have a hundred places."""
    history = domain.history
    return SparkEngine(
        session, lake, weights=domain.history_weights, length=history.length, list_length=100, ttl_seconds=86_400
    )


@contextmanager
def stores(folder: Path, tell: Callable[[str, str], None] = os.environ.__setitem__) -> Iterator[OnlineStore]:
    """A Redis, which executors that are started from here on find in their environment.

    Args:
        folder: where it lives.
        tell: sets a variable of the environment.
    """
    with running_redis(folder) as store:
        tell("MARQUEE_DATA", str(folder))
        tell("MARQUEE_REDIS", f"unix://{folder / 'redis.sock'}")
        tell("MARQUEE_SECRET", SECRET)
        yield store


def land(rows: pl.DataFrame, lake: Lake, store: OnlineStore) -> None:
    """Put acts into the lake: user_id, item_id, type, occurred_at; everybody in it allows it."""
    number = pl.int_range(rows.height, dtype=pl.Int64)
    events = rows.with_columns(
        pl.format("e{}", number).alias("event_id"),
        pl.lit(None, pl.String).alias("recommendation_id"),
        pl.col("occurred_at").alias("accepted_at"),
        pl.lit(1, pl.Int64).alias("receipt"),
        pl.lit(0, pl.Int32).alias("partition"),
        number.alias("offset"),
        pl.lit(BEGIN.date()).alias("day"),
    )
    lake.append(EVENTS, events.select(list(TABLES[EVENTS])), {0: Span(0, rows.height)})
    writes = store.pipeline(transaction=False)
    for person in rows["user_id"].unique():
        writes.set(consent_key(subject(person, SECRET)), Consent(1, 0, frozenset({PERSONALIZATION})).encode())
    writes.set(CONSENT_HEAD, 1)
    writes.execute()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
