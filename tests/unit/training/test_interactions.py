"""What models learn from: each act once, the newest of each item, in canonical order."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.lake import EVENTS, ITEMS, TABLES
from ingest.events import PERSONALIZATION, Consent
from training.bundle import History, Interaction, add_to_history, milliseconds
from training.interactions import (
    Catalogue,
    Column,
    Events,
    IdMap,
    Interactions,
    histories,
    read_catalogue,
    read_events,
)

Rows = Callable[..., pl.DataFrame]
WEIGHTS = {"play": 1.0, "thumbs_up": 2.0, "thumbs_down": 0.0}


def read(rows: pl.DataFrame) -> Events:
    return read_events(rows.lazy(), WEIGHTS)


def interactions_of(rows: pl.DataFrame, length: int = 100, items: pl.DataFrame | None = None) -> Interactions:
    events = read(rows)
    return histories(events.rows, read_catalogue(None if items is None else items.lazy(), events), length)


def described(*items: tuple[str, str, bool]) -> pl.DataFrame:
    rows = [(item, attributes, hidden, 0, offset) for offset, (item, attributes, hidden) in enumerate(items)]
    return pl.DataFrame(rows, schema=dict(TABLES[ITEMS]), orient="row")


def as_histories(interactions: Interactions) -> dict[str, History]:
    found: dict[str, History] = {}
    for user, item, at, weight, _ in interactions.rows.iter_rows():
        name = interactions.catalogue.items.ids[item]
        found.setdefault(interactions.users.ids[user], {})[name] = Interaction(at, weight)
    return found


def test_the_columns_are_the_lakes() -> None:
    lake = {**TABLES[EVENTS], **TABLES[ITEMS]}
    ours = {v for k, v in vars(Column).items() if k.isupper()}
    assert ours - {Column.AT_MS, Column.WEIGHT, Column.USER_INDEX, Column.ITEM_INDEX} <= lake.keys()


def test_an_act_counts_once_however_often_it_was_sent(event_rows: Rows) -> None:
    rows = event_rows([("u1", "m1", 1), ("u1", "m2", 2), ("u2", "m1", 3)])
    again = rows.with_columns((pl.col("offset") + 10).alias("offset"))
    events = read(pl.concat([again, rows]))
    assert events.rows.height == 3
    assert events.rows.select(Column.USER, Column.ITEM).is_unique().all()
    assert (events.counts.rows, events.counts.repeated_positions, events.counts.repeated_events) == (6, 0, 3)


def test_of_an_event_sent_twice_the_one_at_the_lowest_offset_stands(event_rows: Rows) -> None:
    rows = event_rows([("u1", "m1", 1), ("u1", "m2", 2)]).with_columns(pl.lit("same").alias("event_id"))
    assert read(rows.reverse()).rows[Column.ITEM].to_list() == ["m1"]


def test_two_people_may_use_the_same_event_id(event_rows: Rows) -> None:
    rows = event_rows([("u1", "m1", 1), ("u2", "m2", 2)]).with_columns(pl.lit("same").alias("event_id"))
    assert read(rows).rows.height == 2


def test_rows_that_the_lander_wrote_twice_are_counted(event_rows: Rows) -> None:
    rows = event_rows([("u1", "m1", 1), ("u1", "m2", 2)])
    assert read(pl.concat([rows, rows])).counts.repeated_positions == 2


def test_only_types_that_enter_histories_are_kept(event_rows: Rows) -> None:
    rows = event_rows([("u1", "m1", 1, "impression"), ("u1", "m2", 2, "thumbs_up"), ("u1", "m3", 3, "unheard_of")])
    assert read(rows).rows.select(Column.ITEM, Column.WEIGHT).rows() == [("m2", 2.0)]


def test_the_newest_event_about_an_item_decides_and_of_two_as_new_the_heavier(event_rows: Rows) -> None:
    rows = event_rows(
        [("u1", "m1", 5, "thumbs_down"), ("u1", "m1", 1, "thumbs_up"), ("u1", "m2", 3), ("u1", "m2", 3, "thumbs_down")]
    )
    user_items = interactions_of(rows).user_items
    assert user_items.toarray().tolist() == [[0.0, 1.0]]
    assert user_items.nnz == 2


def test_people_and_items_stand_in_canonical_order_whatever_the_order_of_the_lake(event_rows: Rows) -> None:
    rows = event_rows([("ü", "m2", 1), ("u10", "m10", 2), ("u9", "m2", 3), ("u10", "m1", 4)])
    interactions = interactions_of(rows)
    assert interactions.users.ids == tuple(sorted(["ü", "u10", "u9"]))
    assert interactions.catalogue.items.ids == ("m1", "m10", "m2")
    assert interactions.user_items.toarray().tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 1]]
    assert interactions.user_items.has_canonical_format
    shuffled = interactions_of(rows.sample(fraction=1, shuffle=True, seed=1))
    assert shuffled.digest == interactions.digest
    assert shuffled.rows.equals(interactions.rows)


def test_the_digest_changes_with_any_interaction_and_with_the_items(event_rows: Rows) -> None:
    acts = [("u1", "m1", 1), ("u1", "m2", 2)]
    variants = [
        acts,
        acts[:1],
        [("u1", "m1", 1), ("u1", "m2", 3)],
        [("u2", "m1", 1), ("u1", "m2", 2)],
        [("u1", "m1", 1), ("u1", "m2", 2, "thumbs_up")],
    ]
    digests = [interactions_of(event_rows(variant)).digest for variant in variants]
    digests.append(interactions_of(event_rows(acts), items=described(("m3", "{}", False))).digest)
    assert len(set(digests)) == len(digests)


def test_a_forgotten_person_leaves_the_digest_of_one_who_never_was(event_rows: Rows) -> None:
    rows = event_rows([("u1", "m1", 1), ("u2", "m2", 2), ("u1", "m2", 3)])
    without = rows.filter(pl.col("user_id") != "u2")
    assert interactions_of(without).digest == interactions_of(event_rows([("u1", "m1", 1), ("u1", "m2", 3)])).digest


def test_fitting_gets_positives_only_and_popularity_counts_them(event_rows: Rows) -> None:
    rows = event_rows([("u1", "m1", 1), ("u1", "m2", 2, "thumbs_down"), ("u2", "m2", 1, "thumbs_up"), ("u3", "m1", 1)])
    interactions = interactions_of(rows)
    assert (interactions.positives.data > 0).all()
    assert interactions.positives.toarray().tolist() == [[1, 0], [0, 2], [1, 0]]
    assert interactions.popularity.tolist() == [2, 1]
    assert interactions.popularity.dtype == np.float32
    assert interactions.user_items.nnz == 4


def test_the_last_that_was_said_of_an_item_stands_and_hidden_items_are_gone(event_rows: Rows) -> None:
    rows = event_rows([("u1", "m1", 1), ("u1", "m2", 2), ("u1", "m3", 3)])
    items = described(
        ("m1", '{"title":"Old"}', False),
        ("m2", '{"title":"Hidden"}', True),
        ("m4", '{"title":"Unseen"}', False),
        ("m1", '{"title":"New"}', False),
    )
    catalogue = read_catalogue(items.lazy(), read(rows))
    assert catalogue.items.ids == ("m1", "m3", "m4")
    assert catalogue.attributes == ({"title": "New"}, {}, {"title": "Unseen"})
    assert interactions_of(rows, items=items).user_items.toarray().tolist() == [[1, 1, 0]]


def test_consent_decides_row_by_row_what_may_be_used(event_rows: Rows) -> None:
    """Withdrawn, never asked, allowed for something else only, and granted again after a withdrawal."""
    granted = event_rows([("kept", "m1", 1), ("withdrew", "m1", 2), ("analytics", "m1", 3), ("again", "m1", 4)], 3)
    later = event_rows([("again", "m2", 5), ("stranger", "m1", 6)], 9).with_columns(pl.col("event_id") + "b")
    all_purposes = frozenset({PERSONALIZATION})
    consents: Mapping[str, Consent] = {
        "kept": Consent(3, 0, all_purposes),
        "withdrew": Consent(3, 5, all_purposes),
        "analytics": Consent(3, 0, frozenset({"analytics"})),
        "again": Consent(8, 7, all_purposes),
        "stranger": Consent(),
    }
    events = read_events(pl.concat([granted, later]).lazy(), WEIGHTS, lambda people: {p: consents[p] for p in people})
    assert sorted(events.rows.select(Column.USER, Column.ITEM).rows()) == [("again", "m2"), ("kept", "m1")]
    assert events.counts.not_permitted == 4
    assert events.counts.people == 5


def test_the_oldest_receipt_of_each_history_is_known(event_rows: Rows) -> None:
    old = event_rows([("u1", "m1", 1), ("u2", "m1", 2)], receipt=3)
    new = event_rows([("u1", "m2", 3)], receipt=9).with_columns(pl.lit("later").alias("event_id"))
    assert interactions_of(pl.concat([new, old])).oldest_receipts.tolist() == [3, 3]


def test_an_id_that_is_not_in_the_map_is_an_error() -> None:
    with pytest.raises(pl.exceptions.InvalidOperationError):
        pl.DataFrame({"x": ["b"]}).select(IdMap(("a",)).encode("x"))


acts = st.lists(
    st.tuples(st.sampled_from("uv"), st.sampled_from("abcde"), st.integers(0, 4), st.sampled_from(sorted(WEIGHTS))),
    min_size=1,
    max_size=25,
)


@given(acts=acts, length=st.integers(1, 4))
def test_histories_are_those_that_nearline_folds(
    event_rows: Rows, acts: list[tuple[str, str, int, str]], length: int
) -> None:
    """The rule of `add_to_history`, event by event, gives the same rows as this stage's reading of the lake."""
    rows = event_rows(acts)
    folded: dict[str, History] = {}
    for event in rows.iter_rows(named=True):
        history = folded.setdefault(event["user_id"], {})
        add_to_history(
            history, event["item_id"], Interaction(milliseconds(event["occurred_at"]), WEIGHTS[event["type"]]), length
        )
    assert as_histories(interactions_of(rows, length)) == folded


@given(moment=st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)))
def test_the_lake_is_read_with_the_milliseconds_that_nearline_counts(event_rows: Rows, moment: datetime) -> None:
    moment = moment.replace(tzinfo=UTC)
    rows = event_rows([("u1", "m1", 0)]).with_columns(
        pl.lit(moment).cast(TABLES[EVENTS]["occurred_at"]).alias("occurred_at")
    )
    assert read(rows).rows[Column.AT_MS].to_list() == [milliseconds(moment)]


def test_an_empty_reading_makes_no_histories(event_rows: Rows) -> None:
    interactions = interactions_of(event_rows([]))
    assert interactions.user_items.shape == (0, 0)
    assert interactions.catalogue == Catalogue(IdMap(()), ())
