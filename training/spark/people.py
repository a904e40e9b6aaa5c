"""What one partition of people is worked on with, on an executor: the one-process engine's code, on fewer people.

An executor reads its own environment, as every process of the platform does: so no secret travels with a task.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from infra.online_store import OnlineStore, connect
from infra.settings import load_settings
from ingest.events import ConsentProjection
from training.acts import gather
from training.bundle import load, published_parts_key
from training.columns import Column
from training.identity import FrameRows
from training.ids import IdMap
from training.interactions import Catalogue, Interactions, histories, settled
from training.publish import Lists

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark import Broadcast

PATIENT_SECONDS = 30.0
PROGRESS_SECONDS = 3600
COLUMNS = (
    Column.EVENT,
    Column.TYPE,
    Column.USER,
    Column.ITEM,
    Column.OCCURRED,
    Column.RECEIPT,
    Column.PARTITION,
    Column.OFFSET,
)
"""Of the lake's table of events, those that histories are made of."""


@dataclass(frozen=True)
class Reading:
    """How rows of the lake become histories.

    Attributes:
        weights: event type → weight.
        length: the newest items of a person that stay.
        items: ids of the catalogue.
        before_ms: only what happened before this moment; None: all.
    """

    weights: Mapping[str, float]
    length: int
    items: "Broadcast[tuple[str, ...]]"
    before_ms: int | None = None


@dataclass(frozen=True)
class Publishing:
    """Whose lists to write, and as what.

    Attributes:
        version: of the model.
        bundle: the model, dumped.
        attempt: names what is published; a partition that was published under it is not published again.
        list_length: of the lists.
        ttl_seconds: lifetime of the lists.
    """

    version: int
    bundle: "Broadcast[bytes]"
    attempt: str
    list_length: int
    ttl_seconds: int


def interactions_of(
    batches: Iterable["pa.RecordBatch"], reading: Reading, consents: ConsentProjection
) -> Interactions | None:
    """The histories of the partition's people; None where it has no rows."""
    from pyarrow import Table

    rows = pl.DataFrame(Table.from_batches(some)) if (some := list(batches)) else None
    if rows is None or rows.is_empty():
        return None
    catalogue = Catalogue(IdMap(reading.items.value), ({},) * len(reading.items.value))
    acts, _ = gather(FrameRows(rows), reading.weights, consents.read)
    interactions, older = settled(acts, catalogue, reading.length)
    if reading.before_ms is None:
        return interactions
    earlier = interactions.and_older(older).filter(pl.col(Column.AT_MS) < reading.before_ms)
    return histories(earlier, catalogue, reading.length) if earlier.height else None


def weigh(
    batches: Iterable["pa.RecordBatch"], reading: Reading, number: int, partitions: int
) -> Iterator["pa.RecordBatch"]:
    """What models are fitted on: user, item, weight, one row an item of a history.

    Args:
        batches: rows of the lake, of the partition's people.
        reading: how to read them.
        number: of the partition.
        partitions: how many there are; people get numbers that no other partition gives.
    """
    with _executor() as (_, consents):
        part = interactions_of(batches, reading, consents)
    if part is None:
        return
    matrix = part.positives
    people = np.repeat(np.arange(matrix.shape[0]) * partitions + number, np.diff(matrix.indptr))
    yield _batch(user=people.astype(np.int32), item=matrix.indices.astype(np.int32), weight=matrix.data)


def publish(
    batches: Iterable["pa.RecordBatch"], reading: Reading, publishing: Publishing, number: int
) -> Iterator["pa.RecordBatch"]:
    """Write the lists of the partition's people, unless that was done; how many there are: partition, lists.

    A task that is tried again, or twice at the same time, writes the same lists to the same keys and counts once.
    """
    with _executor() as (store, consents):
        progress, field = published_parts_key(publishing.version), f"{publishing.attempt}/{number}"
        done = store.hget(progress, field)
        if done is None:
            part = interactions_of(batches, reading, consents)
            lists = Lists(store, consents, publishing.list_length, publishing.ttl_seconds)
            count = 0 if part is None else lists.write(publishing.version, load(publishing.bundle.value), part)
            store.hset(progress, field, count)
            store.expire(progress, PROGRESS_SECONDS)
            done = store.hget(progress, field)
        count = int(done or 0)
    yield _batch(part=np.array([number], np.int32), lists=np.array([count], np.int64))


def _batch(**columns: npt.NDArray[Any]) -> "pa.RecordBatch":
    from pyarrow import RecordBatch

    return RecordBatch.from_pydict(columns)


@contextmanager
def _executor() -> Iterator[tuple[OnlineStore, ConsentProjection]]:
    """The stores that the executor's own settings name."""
    settings = load_settings()
    store = connect(settings.redis_url, PATIENT_SECONDS)
    try:
        yield store, ConsentProjection(store, settings.signing_secret)
    finally:
        store.close()
