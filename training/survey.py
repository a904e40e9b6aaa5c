"""What stands in the lake's table of events, before anything is left out of it."""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import polars as pl

from training.interactions import Column


class Survey(NamedTuple):
    """Counts of one reading.

    Attributes:
        rows: of the table.
        types: event type → rows.
        ahead: rows that claim to have happened later than the moment of the reading allows.
    """

    rows: int
    types: Mapping[str, int]
    ahead: int


def survey(rows: pl.DataFrame, latest: datetime) -> Survey:
    """Count the rows.

    Args:
        rows: the table, with the columns type and occurred_at.
        latest: what happened after this moment cannot have happened yet.
    """
    types = rows.group_by(Column.TYPE).len().sort(Column.TYPE)
    ahead = int((rows[Column.OCCURRED] > latest).sum())
    return Survey(rows.height, dict(types.iter_rows()), ahead)
