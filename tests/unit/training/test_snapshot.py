"""A reading of the lake: of the people who allow it, and from one version of the table, whatever becomes of it."""

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl
import pytest

from infra.lake import EVENTS, ITEMS, TABLES, Lake, LakeEmpty, Span
from infra.online_store import OnlineStore
from ingest.events import CONSENT_HEAD, ConsentProjection, ConsentUnavailable, Domain
from training.columns import Column
from training.snapshot import read_lake

Rows = Callable[..., pl.DataFrame]
Grant = Callable[..., None]
SECRET = "a secret of the tests"


def describe(lake: Lake, items: Sequence[tuple[str, str, bool]]) -> None:
    rows = [(item, attributes, hidden, 0, offset) for offset, (item, attributes, hidden) in enumerate(items)]
    lake.append(ITEMS, pl.DataFrame(rows, schema=dict(TABLES[ITEMS]), orient="row"), {0: Span(0, len(rows))})


@pytest.mark.usefixtures("landed")
def test_everybodys_history_is_read_with_where_it_came_from(
    lake: Lake, consents: ConsentProjection, domain: Domain, landed: pl.DataFrame
) -> None:
    describe(lake, [("m-popular", '{"title": "Known"}', False), ("m0-01", "{}", True), ("m9", "{}", False)])
    reading = read_lake(lake, consents, domain)
    users, items = reading.interactions.users.ids, reading.catalogue.items.ids
    assert users == tuple(sorted(set(landed["user_id"])))
    assert items == tuple(sorted({*landed["item_id"], "m9"} - {"m0-01"}))
    assert reading.catalogue.attributes[items.index("m-popular")] == {"title": "Known"}
    assert reading.acts == landed.filter(pl.col("item_id") != "m0-01").height == reading.events.rows.height
    assert (reading.version, reading.watermark) == (lake.snapshot(EVENTS).version, {0: landed.height})
    assert reading.counts.people == 60
    said = reading.describe(reading.histories())
    assert (said.users, said.events, said.watermark) == (60, reading.acts, {0: landed.height})
    assert said.digest == reading.interactions.digest


def test_who_does_not_allow_it_is_left_out(
    lake: Lake, consents: ConsentProjection, domain: Domain, landed: pl.DataFrame, grant: Grant
) -> None:
    grant(["u001"], revoked=5)
    reading = read_lake(lake, consents, domain)
    assert set(reading.interactions.users.ids) == set(landed["user_id"]) - {"u001"}
    assert reading.counts.not_permitted == 12


def test_a_person_whose_events_lie_in_two_partitions_of_the_log_is_one_person(
    lake: Lake, consents: ConsentProjection, domain: Domain, event_rows: Rows, grant: Grant
) -> None:
    """The log may get more partitions; an event that is sent again afterwards lies in another one."""
    before = event_rows([("u", "m1", 1), ("u", "m2", 2)]).with_columns(partition=pl.lit(3, pl.Int32))
    after = event_rows([("u", "m2", 2), ("u", "m3", 3)]).with_columns(
        partition=pl.lit(7, pl.Int32), event_id=pl.Series(["e1", "later"])
    )
    lake.append(EVENTS, after, {7: Span(0, 2)})
    lake.append(EVENTS, before, {3: Span(0, 2)})
    grant(["u"])
    reading = read_lake(lake, consents, domain)
    assert reading.counts.repeated_events == 1
    assert reading.interactions.user_items.toarray().tolist() == [[1, 1, 1]]


@pytest.mark.usefixtures("landed")
def test_a_lake_that_is_purged_while_it_is_read_is_read_again(lake: Lake, store: OnlineStore, domain: Domain) -> None:
    """Between the passes over the table; the people are asked anew too."""
    asked: list[int] = []

    class Purging(ConsentProjection):
        def read(self, user_ids: Any) -> Any:
            asked.append(len(user_ids))
            if len(asked) == 1:
                lake.forget(EVENTS, {"u001": 9})
                lake.purge()
            return super().read(user_ids)

    reading = read_lake(lake, Purging(store, SECRET), domain)
    assert asked == [60, 59]
    assert "u001" not in reading.interactions.users.ids
    assert reading.version == lake.snapshot(EVENTS).version
    assert set(reading.events.rows[Column.USER]) == set(reading.interactions.users.ids)


@pytest.mark.usefixtures("landed")
def test_without_the_projection_nothing_is_read(
    lake: Lake, store: OnlineStore, consents: ConsentProjection, domain: Domain
) -> None:
    store.delete(CONSENT_HEAD)
    with pytest.raises(ConsentUnavailable):
        read_lake(lake, consents, domain)


def test_an_empty_lake_says_so(lake: Lake, consents: ConsentProjection, domain: Domain) -> None:
    with pytest.raises(LakeEmpty):
        read_lake(lake, consents, domain)
