"""The hold-out: before the cut is trained on, after it the earlier half has arrived and the later half is held out."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from training.interactions import Column, Events, read_catalogue, read_events
from training.recency import Histories
from training.split import NothingHeldOut, Split, split_by_time

Rows = Callable[..., pl.DataFrame]
WEIGHTS = {"play": 1.0, "thumbs_up": 2.0, "thumbs_down": 0.0}
START_MS = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000)
BACKGROUND = [("old", f"m{minute}", minute) for minute in range(80)]


def split(rows: pl.DataFrame, **options: int) -> Split:
    events = read_events(rows.lazy(), WEIGHTS)
    return split_by_time(events, read_catalogue(None, events), length=options.pop("length", 100), **options)


def names(split: Split, known: Histories | sparse.csr_matrix, row: int) -> set[str]:
    matrix = known.user_items if isinstance(known, Histories) else known
    return {split.train.catalogue.items.ids[index] for index in matrix[row].indices}


@pytest.fixture
def one_person(event_rows: Rows) -> Split:
    """Somebody with three items before minute 80 and five new ones after it, one of them disliked."""
    mine = [("me", "m1", 10), ("me", "m2", 20), ("me", "m3", 30, "thumbs_down")]
    new = [("me", f"n{i}", 100 + i) for i in range(4)] + [("me", "n4", 104, "thumbs_down")]
    filler = [("else", "m0", 90 + i) for i in range(14)]
    return split(event_rows([*BACKGROUND[:75], *mine, *filler[:14], *new]))


def test_the_cut_lies_at_the_quantile_of_the_events_times(event_rows: Rows) -> None:
    found = split(event_rows([("u", f"m{minute}", minute) for minute in range(101)]))
    assert found.cut_ms == START_MS + 80 * 60_000
    assert found.train.rows.height == 80


def test_stale_is_from_before_the_cut_and_fresh_has_the_earlier_half_of_the_new(one_person: Split) -> None:
    assert names(one_person, one_person.stale, 0) == {"m1", "m2", "m3"}
    assert names(one_person, one_person.fresh, 0) == {"m1", "m2", "m3", "n0", "n1"}
    assert names(one_person, one_person.held_out, 0) == {"n2", "n3"}


def test_weights_come_along_and_disliked_items_stay_as_explicit_zeros(one_person: Split) -> None:
    assert sorted(one_person.fresh.user_items.data.tolist()) == [0, 1, 1, 1, 1]
    assert (one_person.held_out.data > 0).all()


def test_what_is_held_out_is_in_no_history_of_the_person(event_rows: Rows) -> None:
    """Neither because it was known before the cut, nor because two events about it fall on both sides of the half."""
    known = [("me", "m1", 10), ("me", "m1", 120)]
    twice = [("me", "n1", 100), ("me", "n1", 109, "thumbs_up"), ("me", "n2", 105), ("me", "n3", 106)]
    found = split(event_rows([*BACKGROUND, *known, *twice]))
    assert found.fresh.user_items.multiply(found.held_out).nnz == 0
    assert names(found, found.fresh, 0) == {"m1", "n2"}
    assert names(found, found.held_out, 0) == {"n1", "n3"}


def test_nothing_from_the_cut_on_reaches_what_is_fitted(event_rows: Rows) -> None:
    """Whatever happens after the cut, the matrix to fit on is the same."""
    random = np.random.default_rng(0)
    before = [(f"u{i % 9}", f"m{random.integers(30)}", i) for i in range(80)]
    after = [(f"u{i % 9}", f"m{random.integers(30)}", 80 + i) for i in range(20)]
    other = [(f"v{i % 4}", f"m{random.integers(30)}", 80 + i, "thumbs_up") for i in range(20)]
    one, two = split(event_rows([*before, *after])), split(event_rows([*before, *other]))
    assert one.cut_ms == two.cut_ms
    assert all(row[0] < one.cut_ms for row in one.train.rows.select(Column.AT_MS).rows())
    ids = [
        {(s.train.users.ids[u], s.train.catalogue.items.ids[i]): w for u, i, _, w, _ in s.train.rows.rows()}
        for s in (one, two)
    ]
    assert ids[0] == ids[1]


def test_an_event_at_the_very_moment_of_the_cut_is_not_trained_on(event_rows: Rows) -> None:
    found = split(event_rows([*BACKGROUND, *[("me", f"n{i}", 90) for i in range(40)]]))
    assert found.cut_ms == START_MS + 90 * 60_000
    assert "me" not in found.train.users.ids


def test_people_with_less_than_two_new_items_or_nothing_liked_are_not_judged(event_rows: Rows) -> None:
    new = [("one", "n0", 100), ("two", "n0", 101), ("two", "n1", 102)]
    sour = [("sour", "n0", 101), ("sour", "n1", 102, "thumbs_down")]
    filler = [("else", "m0", 90)] * 14
    found = split(event_rows([*BACKGROUND, *filler, *new, *sour]))
    assert found.held_out.shape[0] == 1
    assert names(found, found.held_out, 0) == {"n1"}


def test_newcomers_have_an_empty_stale_history(event_rows: Rows) -> None:
    found = split(event_rows([*BACKGROUND, *[("new", f"n{i}", 100 + i) for i in range(20)]]))
    assert found.stale.user_items.nnz == 0
    assert found.fresh.user_items.nnz == 10
    assert found.held_out.nnz == 10


def test_of_too_many_people_some_are_drawn_the_same_ones_each_time(event_rows: Rows) -> None:
    after = [(f"p{i:02}", f"n{j}", 100 + j) for i in range(10) for j in range(2)]
    rows = event_rows([*BACKGROUND, *after])
    one, two, other = (split(rows, most_people=4, seed=seed) for seed in (0, 0, 5))
    assert one.held_out.shape[0] == 4
    assert one.held_out.toarray().tolist() == two.held_out.toarray().tolist()
    assert other.held_out.shape[0] == 4


def test_fresh_histories_keep_the_newest_items_only(event_rows: Rows) -> None:
    mine = [("me", f"m{i}", i) for i in range(5)]
    rows = event_rows([*BACKGROUND, *mine, *[("me", f"n{i}", 100 + i) for i in range(21)]])
    found = split(rows, length=12)
    assert names(found, found.fresh, 0) == {"m3", "m4", *(f"n{i}" for i in range(10))}


@pytest.mark.parametrize(
    ("acts", "why"),
    [
        ([], "no event"),
        ([("u", f"m{i}", 5) for i in range(20)], "same moment"),
        ([(f"u{i}", "m1", i) for i in range(50)], "nobody has two new items"),
    ],
)
def test_what_cannot_be_split_says_what_is_missing(
    event_rows: Rows, acts: list[tuple[str, str, int]], why: str
) -> None:
    with pytest.raises(NothingHeldOut, match=why):
        split(event_rows(acts))


def test_hidden_items_are_neither_trained_on_nor_held_out(event_rows: Rows) -> None:
    rows = event_rows([*BACKGROUND, *[("me", f"n{i}", 100 + i) for i in range(20)]])
    events = read_events(rows.lazy(), WEIGHTS)
    shown = read_catalogue(None, Events(events.rows.filter(pl.col(Column.ITEM) != "n19"), replace(events.counts)))
    found = split_by_time(events, shown, length=100)
    assert "n19" not in names(found, found.held_out, 0)
