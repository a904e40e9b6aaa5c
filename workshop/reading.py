"""A dataset as training reads the lake, for measurements that need no platform."""

from collections.abc import Mapping

import polars as pl

from training.columns import Column
from training.ids import IdMap
from training.interactions import Catalogue, Events, ReadCounts
from workshop.datasets import Dataset


def events_of(dataset: Dataset, weights: Mapping[str, float]) -> Events:
    """The acts that enter histories, all of them permitted.

    Args:
        dataset: the acts.
        weights: event type → weight, for the types that enter a history.
    """
    weight = pl.col(Column.TYPE).replace_strict(weights, default=None, return_dtype=pl.Float64)
    rows = dataset.acts.select(
        Column.USER,
        Column.ITEM,
        pl.col(Column.OCCURRED).dt.epoch("ms").alias(Column.AT_MS),
        weight.alias(Column.WEIGHT),
        pl.lit(1, pl.Int64).alias(Column.RECEIPT),
    ).drop_nulls(Column.WEIGHT)
    return Events(rows, ReadCounts(rows.height, 0, 0))


def catalogue_of(dataset: Dataset) -> Catalogue:
    """The items in the order of their ids."""
    items = sorted(dataset.items, key=lambda item: item.item_id)
    return Catalogue(IdMap(tuple(item.item_id for item in items)), tuple(item.attributes for item in items))
