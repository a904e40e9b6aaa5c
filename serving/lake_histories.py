"""Histories and items as the lake tells them, for a store that has lost its own. Needs the extra `lake`."""

import time
from collections.abc import Generator, Iterator

import orjson
import polars as pl
import structlog

from infra.lake import EVENTS, ITEMS, Lake, LakeEmpty, LakeError, LakeTable
from ingest.events import Domain, Item
from serving.folding import Act, Folding
from serving.rebuilding import CannotRebuild
from training.bundle import Interaction

PEOPLE_AT_ONCE = 500
ROWS_AT_ONCE = 1_000_000
"""The lake is read in passes, each for some of the people: so that each history is written once."""


class LakeHistories:
    """Restores what the lake holds; a source for `serving.rebuilding`.

    Args:
        lake: what was collected.
        folding: restores it.
        domain: which events enter histories, and what they weigh.
        history_ttl: seconds that a history lives without a new event: older ones are not restored.
    """

    def __init__(self, lake: Lake, folding: Folding, domain: Domain, history_ttl: int) -> None:
        self._lake = lake
        self._folding = folding
        self._weights = domain.history_weights
        self._history_ttl = history_ttl

    def __call__(self) -> Generator[int, None, dict[int, int]]:
        """See `serving.rebuilding.Source`.

        Raises:
            CannotRebuild: the lake does not answer.
        """
        try:
            # First, so that whatever lands meanwhile is read twice rather than not at all.
            watermark = self._lake.landed(EVENTS)
            self._folding.show_or_hide(self._items())
            for acts in self._acts():
                self._folding.restore(acts)
                yield len(acts)
        except LakeEmpty:
            structlog.get_logger().info("the lake is empty: there is nothing to rebuild from but the log")
            return {}
        except LakeError as error:
            raise CannotRebuild(str(error)) from error
        return watermark

    def _items(self) -> Iterator[Item]:
        try:
            rows = self._lake.snapshot(ITEMS).rows
        except LakeEmpty:
            return
        for row in rows.sort("partition", "offset").unique("item_id", keep="last").iter_rows(named=True):
            attributes = orjson.loads(row["attributes"])
            yield Item.model_construct(item_id=row["item_id"], attributes=attributes, hidden=row["hidden"])

    def _acts(self) -> Iterator[dict[str, list[Act]]]:
        passes = self._lake.read(EVENTS, lambda table: 1 + len(table) // ROWS_AT_ONCE)
        oldest_ms = (time.time() - self._history_ttl) * 1000
        for number in range(passes):
            people = self._lake.read(EVENTS, lambda table, n=number: self._people(table, n, passes))  # type: ignore[misc]
            for some in people.filter(pl.col("newest") >= oldest_ms).iter_slices(PEOPLE_AT_ONCE):
                yield {row[0]: _acts(*row[1:5]) for row in some.iter_rows()}

    def _people(self, table: LakeTable, number: int, passes: int) -> pl.DataFrame:
        """user_id, item_id, at_ms, weight, receipt, newest: a row a person, of one in so many people."""
        weight = pl.col("type").replace_strict(self._weights, default=None, return_dtype=pl.Float64)
        columns = [
            pl.col("user_id", "item_id", "receipt"),
            pl.col("occurred_at").dt.timestamp("ms").alias("at_ms"),
            pl.col("accepted_at").dt.timestamp("ms").alias("newest"),
            weight.alias("weight"),
        ]
        ours = (pl.col("user_id").hash() % passes == number) & pl.col("weight").is_not_null()
        rows = pl.concat([batch.filter(ours) for batch in table.batches(columns)])
        grouped = rows.group_by("user_id").agg("item_id", "at_ms", "weight", "receipt", pl.col("newest").max())
        return grouped.select("user_id", "item_id", "at_ms", "weight", "receipt", "newest").sort("user_id")


def _acts(items: list[str], times: list[int], weights: list[float], receipts: list[int]) -> list[Act]:
    columns = zip(items, times, weights, receipts, strict=True)
    return [Act(item, Interaction(at_ms, weight), receipt) for item, at_ms, weight, receipt in columns]
