"""A dataset is read as the lake is."""

from datetime import UTC, datetime, timedelta

import polars as pl

from ingest.events import Item
from training.interactions import histories
from workshop.datasets import ACTS, Dataset
from workshop.reading import catalogue_of, events_of

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


def test_acts_without_a_weight_enter_no_history_and_the_newest_decides() -> None:
    """As in `training.bundle.add_to_history`; a weight of 0 is a weight."""
    acts = [("a", "t2", "like"), ("a", "t1", "listen"), ("b", "t1", "impression"), ("a", "t2", "skip")]
    rows = [(*act, MONDAY + timedelta(hours=hour)) for hour, act in enumerate(acts)]
    items = [Item(item_id=item, attributes={"title": item}) for item in ("t2", "t1")]
    dataset = Dataset("music", items, pl.DataFrame(rows, ACTS, orient="row"))
    catalogue = catalogue_of(dataset)
    assert catalogue.items.ids == ("t1", "t2")
    assert catalogue.attributes == ({"title": "t1"}, {"title": "t2"})
    read = histories(events_of(dataset, {"listen": 1.0, "like": 2.0, "skip": 0.0}).rows, catalogue, 10)
    assert read.users.ids == ("a",)
    assert read.user_items.toarray().tolist() == [[1.0, 0.0]]
    assert read.histories.at_ms.tolist() == [round((MONDAY + timedelta(hours=at)).timestamp() * 1000) for at in (1, 3)]
