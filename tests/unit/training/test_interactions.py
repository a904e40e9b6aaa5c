"""What models learn from: each act once, the newest of each item, in canonical order."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.lake import EVENTS, ITEMS, TABLES
from ingest.events import PERSONALIZATION, Consent
from training import acts, packed, settling
from training.acts import ReadCounts, gather
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
    settled,
)

Rows = Callable[..., pl.DataFrame]
WEIGHTS = {"play": 1.0, "thumbs_up": 2.0, "thumbs_down": 0.0}
START = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Batches:
    """A frame, some rows at a time."""

    frame: pl.DataFrame
    at_once: int

    def __len__(self) -> int:
        return self.frame.height

    def batches(self, columns: Sequence[pl.Expr]) -> Iterator[pl.DataFrame]:
        for start in range(0, self.frame.height, self.at_once):
            yield self.frame[start : start + self.at_once].select(columns)


def read(rows: pl.DataFrame) -> Events:
    return read_events(rows.lazy(), WEIGHTS)


def interactions_of(rows: pl.DataFrame, length: int = 100, items: pl.DataFrame | None = None) -> Interactions:
    events = read(rows)
    return histories(events.rows, read_catalogue(None if items is None else items.lazy(), events), length)


def described(*items: tuple[str, str, bool]) -> pl.DataFrame:
    rows = [(item, attributes, hidden, 0, offset) for offset, (item, attributes, hidden) in enumerate(items)]
    return pl.DataFrame(rows, schema=dict(TABLES[ITEMS]), orient="row")


def catalogue_of(*items: str) -> Catalogue:
    return Catalogue(IdMap(items), ({},) * len(items))


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


def test_of_acts_in_a_table_too(event_rows: Rows) -> None:
    rows = read(event_rows([("u1", "m1", 1), ("u1", "m2", 2), ("u2", "m1", 3)])).rows
    assert histories(
        rows.with_columns(receipt=pl.Series([5, 3, 4])), catalogue_of("m1", "m2"), 9
    ).oldest_receipts.tolist() == [3, 4]


def test_an_id_that_is_not_in_the_map_is_an_error() -> None:
    with pytest.raises(pl.exceptions.InvalidOperationError):
        pl.DataFrame({"x": ["b"]}).select(IdMap(("a",)).encode("x"))


acts_of_two = st.lists(
    st.tuples(st.sampled_from("uv"), st.sampled_from("abcde"), st.integers(0, 4), st.sampled_from(sorted(WEIGHTS))),
    min_size=1,
    max_size=25,
)


@given(acts=acts_of_two, length=st.integers(1, 4))
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


# --- against reading one by one --------------------------------------------------------------------------------------

PEOPLE, ITEMS_MET = "tuvwxy", "abcdef"
ALL_TYPES = [*WEIGHTS, "impression"]


class Row(NamedTuple):
    """A row of the lake, as far as it matters."""

    user: str
    item: str
    minute: int
    type: str
    event: str
    receipt: int
    partition: int
    offset: int


class Obvious(NamedTuple):
    """What reading one by one finds."""

    histories: dict[str, History]
    met: set[str]
    standing: list[Row]
    repeated: int
    not_permitted: int


def read_one_by_one(rows: list[Row], consents: Mapping[str, Consent], hidden: set[str], length: int) -> Obvious:
    """The same as this stage's reading of the lake, slow and obvious."""
    first: dict[tuple[str, str], Row] = {}
    for row in sorted(rows, key=lambda row: (row.partition, row.offset)):
        first.setdefault((row.user, row.event), row)
    acts = [row for row in first.values() if row.type in WEIGHTS]
    permitted = [
        row for row in acts if consents[row.user].allows(PERSONALIZATION) and consents[row.user].covers(row.receipt)
    ]
    standing = [row for row in permitted if row.item not in hidden]
    folded: dict[str, History] = {}
    for row in standing:
        at_ms = milliseconds(datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=row.minute))
        add_to_history(folded.setdefault(row.user, {}), row.item, Interaction(at_ms, WEIGHTS[row.type]), length)
    met = {row.item for row in permitted}
    return Obvious(folded, met - hidden, standing, len(rows) - len(first), len(acts) - len(permitted))


def as_frame(rows: list[Row], event_rows: Rows) -> pl.DataFrame:
    frame = event_rows([(row.user, row.item, row.minute, row.type) for row in rows])
    others = {"event_id": "event", "receipt": "receipt", "partition": "partition", "offset": "offset"}
    return frame.with_columns(
        pl.Series(column, [getattr(row, name) for row in rows], dtype=frame.schema[column])
        for column, name in others.items()
    )


lakes = st.lists(
    st.builds(
        Row,
        user=st.sampled_from(PEOPLE),
        item=st.sampled_from(ITEMS_MET),
        minute=st.integers(0, 5),
        type=st.sampled_from(ALL_TYPES),
        event=st.sampled_from([str(number) for number in range(12)]),
        receipt=st.integers(1, 9),
        partition=st.integers(0, 2),
        offset=st.integers(0, 200),
    ),
    max_size=60,
    unique_by=lambda row: (row.partition, row.offset),
)
allowances = st.builds(
    Consent,
    granted=st.integers(0, 9),
    revoked=st.sampled_from([0, 0, 0, 3, 6]),
    purposes=st.sampled_from([frozenset({PERSONALIZATION}), frozenset({PERSONALIZATION, "research"}), frozenset()]),
)


@pytest.mark.parametrize("at_once", [1, 5, 1000])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=lakes,
    consents=st.fixed_dictionaries(dict.fromkeys(PEOPLE, allowances)),
    hidden=st.sets(st.sampled_from(ITEMS_MET), max_size=2),
    length=st.integers(1, 4),
)
def test_a_reading_is_what_reading_one_by_one_finds(
    event_rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
    rows: list[Row],
    consents: Mapping[str, Consent],
    hidden: set[str],
    length: int,
) -> None:
    """Events sent again, to other partitions too, withdrawals, hidden items, and people at the bounds of blocks."""
    monkeypatch.setattr(settling, "AT_ONCE", at_once)
    monkeypatch.setattr(acts, "PEOPLE_AT_ONCE", at_once)
    monkeypatch.setattr(packed, "AT_ONCE", at_once)
    expected = read_one_by_one(rows, consents, hidden, length)
    gathered, counts = gather(
        Batches(as_frame(rows, event_rows), at_once), WEIGHTS, lambda people: {p: consents[p] for p in people}
    )
    items = described(*((item, "{}", True) for item in sorted(hidden)))
    interactions, older = settled(gathered, read_catalogue(items.lazy(), gathered), length)

    assert as_histories(interactions) == expected.histories
    assert interactions.users.ids == tuple(sorted(expected.histories))
    assert interactions.catalogue.items.ids == tuple(sorted(expected.met))
    assert (counts.repeated_events, counts.not_permitted) == (expected.repeated, expected.not_permitted)
    found = interactions.and_older(older).select(Column.USER, Column.ITEM, Column.AT_MS, Column.WEIGHT)
    assert sorted(found.rows()) == sorted(
        (row.user, row.item, milliseconds(START + timedelta(minutes=row.minute)), WEIGHTS[row.type])
        for row in expected.standing
    )
    for user, receipt in zip(interactions.users.ids, interactions.oldest_receipts.tolist(), strict=True):
        receipts = [row.receipt for row in expected.standing if row.user == user]
        assert consents[user].revoked < receipt <= min(receipts)
    assert interactions.user_items.has_canonical_format
    assert interactions.positives.nnz + interactions.seen.user_items.nnz == interactions.user_items.nnz


@given(rows=lakes, length=st.integers(1, 4))
def test_all_acts_read_from_a_table_again_make_the_same_histories(
    event_rows: Rows, rows: list[Row], length: int
) -> None:
    """What a hold-out is cut from is what the final model is fitted on."""
    gathered, _ = gather(Batches(as_frame(rows, event_rows), 9), WEIGHTS, None)
    interactions, older = settled(gathered, read_catalogue(None, gathered), length)
    again = histories(interactions.and_older(older), interactions.catalogue, length)
    assert again.digest == interactions.digest
    assert again.oldest_receipts.tolist() == interactions.oldest_receipts.tolist()
    rebuilt = Interactions.of(interactions.users, interactions.catalogue, interactions.rows)
    assert rebuilt.digest == interactions.digest


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


def test_some_peoples_histories_are_theirs_of_everybodys(event_rows: Rows) -> None:
    acts = [(f"u{i % 7}", f"m{i % 5}", i, "thumbs_down" if i % 3 == 0 else "play") for i in range(60)]
    interactions = interactions_of(event_rows(acts))
    for some in (slice(2, 5), slice(0, 0), np.array([6, 0, 3]), np.array([], np.int64)):
        found, whole = interactions.histories_of(some), interactions.histories[some]
        assert found.user_items.toarray().tolist() == whole.user_items.toarray().tolist()
        assert found.at_ms.tolist() == whole.at_ms.tolist()


def test_ages_are_days_before_the_newest_of_all_liked_or_not(event_rows: Rows) -> None:
    day = 24 * 60
    rows = event_rows([("u1", "m1", 0), ("u1", "m2", 3 * day), ("u2", "m1", 4 * day, "thumbs_down")])
    assert interactions_of(rows).ages.tolist() == [4, 1]


def test_what_stands_in_the_lake_is_counted_before_anything_is_left_out(event_rows: Rows) -> None:
    rows = event_rows(
        [("u1", "m1", 0), ("u1", "m2", 10, "impression"), ("u2", "m1", 20), ("u3", "m1", 20, "impression")]
    )
    latest = milliseconds(START + timedelta(minutes=10))
    _, counts = gather(Batches(pl.concat([rows, rows[:1]]), 2), WEIGHTS, None, latest)
    assert counts == ReadCounts(
        rows=5,
        repeated_positions=1,
        repeated_events=1,
        not_permitted=0,
        people=2,
        types={"impression": 2, "play": 3},
        ahead=2,
    )


def test_nobody_is_asked_twice_what_they_allow(event_rows: Rows) -> None:
    asked: list[str] = []

    def consents(people: Sequence[str]) -> Mapping[str, Consent]:
        asked.extend(people)
        return dict.fromkeys(people, Consent(1, 0, frozenset({PERSONALIZATION})))

    people = acts.PEOPLE_AT_ONCE + 5
    rows = event_rows([(f"u{i % people}", "m1", i) for i in range(2 * people)])
    gather(Batches(rows, 700), WEIGHTS, consents)
    assert sorted(asked) == sorted({f"u{i}" for i in range(people)})
