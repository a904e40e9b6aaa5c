"""What stands in the lake, before anything is left out."""

from collections.abc import Callable
from datetime import UTC, datetime

import polars as pl

from training.survey import Survey, survey

Rows = Callable[..., pl.DataFrame]


def test_rows_are_counted_by_type_and_those_from_the_future_apart(event_rows: Rows) -> None:
    rows = event_rows([("u1", "m1", 0), ("u1", "m2", 10, "impression"), ("u2", "m1", 20), ("u2", "m1", 20)])
    found = survey(rows, datetime(2024, 1, 1, 0, 10, tzinfo=UTC))
    assert found == Survey(4, {"impression": 1, "play": 3}, 2)
    assert survey(rows.clear(), datetime(2024, 1, 1, tzinfo=UTC)) == Survey(0, {}, 0)
