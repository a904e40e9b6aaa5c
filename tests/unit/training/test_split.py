"""Hold-outs: what is trained on, what has arrived by the time people ask, and what they are asked for."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from training.interactions import Catalogue, Column, Events, read_catalogue, read_events
from training.recency import Histories
from training.split import NothingHeldOut, Split, leave_last, random_share, split_by_time

Rows = Callable[..., pl.DataFrame]
WEIGHTS = {"play": 1.0, "thumbs_up": 2.0, "thumbs_down": 0.0}
START_MS = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000)
BACKGROUND = [("old", f"m{minute}", minute) for minute in range(80)]


def split(rows: pl.DataFrame, length: int = 100, described: bool = True, **options: Any) -> Split:
    """By time, of items that were described beforehand, so that training knows them all."""
    events = read_events(rows.lazy(), WEIGHTS)
    catalogue = read_catalogue(None, events)
    return split_by_time(events, all_described(catalogue) if described else catalogue, length, **options)


def all_described(catalogue: Catalogue) -> Catalogue:
    return replace(catalogue, attributes=tuple({"title": name} for name in catalogue.items.ids))


def names(split: Split, known: Histories | sparse.csr_matrix, row: int) -> set[str]:
    matrix = known.user_items if isinstance(known, Histories) else known
    return {split.train.catalogue.items.ids[index] for index in matrix[row].indices}


def moments(split: Split, known: Histories, row: int) -> dict[str, int]:
    """item → minute, as the history has it."""
    bounds = slice(*known.user_items.indptr[row : row + 2])
    minutes = (known.at_ms[bounds] - START_MS) // 60_000
    items = (split.train.catalogue.items.ids[index] for index in known.user_items.indices[bounds])
    return dict(zip(items, minutes.tolist(), strict=True))


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
        ([("u", f"m{i}", 5) for i in range(20)], "older events"),
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
    found = split_by_time(events, all_described(shown), length=100)
    assert found.held_out.nnz + found.fresh.user_items.nnz == 19
    assert "n19" not in names(found, found.held_out, 0)


def test_items_that_training_has_not_met_are_wanted_and_in_no_history(event_rows: Rows) -> None:
    """They cannot be guessed, so they have columns of their own after those of the items that are known."""
    new = [*[("me", f"n{i}", 100 + i) for i in range(3)], ("me", "m1", 110), ("me", "m2", 111)]
    found = split(event_rows([*BACKGROUND, *new, *[("else", "m0", 99)] * 15]), described=False)
    known = len(found.train.catalogue.items)
    assert found.train.catalogue.items.ids == tuple(sorted(item for _, item, _ in BACKGROUND))
    assert found.fresh.user_items.shape == (1, known)
    assert names(found, found.fresh, 0) == set()
    assert found.held_out.shape == (1, known + 1)
    assert found.held_out.nnz == 3


def test_with_a_gap_training_ends_earlier_and_what_happened_since_has_arrived(event_rows: Rows) -> None:
    """The cut lies at minute 80. Training ended at minute 60; what came in between is in the fresh history only."""
    old = [("old", f"m{minute}", minute) for minute in range(70)]
    mine = [("me", "m1", 10), ("me", "m2", 59), ("me", "m3", 60), ("me", "m4", 70), ("me", "m1", 65)]
    new = [("me", "n0", 80), ("me", "n1", 81), ("me", "n2", 82), ("me", "n3", 83), ("me", "m3", 90)]
    found = split(event_rows([*old, *mine, *new, *[("else", "m0", 99)] * 14]), gap=timedelta(minutes=20))
    assert found.cut_ms == START_MS + 60 * 60_000
    assert found.train.rows[Column.AT_MS].to_numpy().max() < found.cut_ms
    assert moments(found, found.stale, 0) == {"m1": 10, "m2": 59}
    assert moments(found, found.fresh, 0) == {"m1": 65, "m2": 59, "m3": 60, "m4": 70, "n0": 80, "n1": 81}
    assert names(found, found.held_out, 0) == {"n2", "n3"}


def test_a_gap_that_leaves_nothing_to_train_on_says_so(event_rows: Rows) -> None:
    with pytest.raises(NothingHeldOut, match="shorter gap"):
        split(event_rows([*BACKGROUND, ("me", "n0", 100), ("me", "n1", 101)]), gap=timedelta(days=1))


def test_fresh_histories_have_the_times_of_what_they_hold(one_person: Split) -> None:
    assert moments(one_person, one_person.stale, 0) == {"m1": 10, "m2": 20, "m3": 30}
    assert moments(one_person, one_person.fresh, 0) == {"m1": 10, "m2": 20, "m3": 30, "n0": 100, "n1": 101}


@pytest.fixture
def per_person(event_rows: Rows) -> Events:
    """`a` with five items, the second of them met again last; `b` with two; `c` disliked the last of three."""
    acts = [("a", f"m{i}", 10 + i) for i in range(5)] + [("a", "m1", 50)]
    acts += [("b", "m0", 5), ("b", "m3", 60), ("c", "m0", 1), ("c", "m1", 2), ("c", "m2", 3, "thumbs_down")]
    return read_events(event_rows(acts).lazy(), WEIGHTS)


def asked(split: Split) -> dict[str, set[str]]:
    return {person: names(split, split.held_out, row) for row, person in enumerate(split.people.ids)}


def test_leave_last_holds_out_the_newest_items_of_each_person(per_person: Events) -> None:
    """Newest by their newest event; who dislikes the last is not asked, and it is not trained on either."""
    found = leave_last(per_person, read_catalogue(None, per_person), length=100)
    assert asked(found) == {"a": {"m1"}, "b": {"m3"}}
    assert moments(found, found.fresh, 0) == {"m0": 10, "m2": 12, "m3": 13, "m4": 14}
    assert found.fresh is found.stale
    assert found.train.users.ids == ("a", "b", "c")
    assert found.train.positives.nnz == 4 + 1 + 2
    assert found.train.rows.height == 7


def test_leave_last_asks_only_who_has_more_and_trains_on_all_that_the_others_have(per_person: Events) -> None:
    catalogue = all_described(read_catalogue(None, per_person))
    found = leave_last(per_person, catalogue, length=100, n=2)
    assert asked(found) == {"a": {"m1", "m4"}, "c": {"m1"}}
    assert found.train.rows.height == 3 + 2 + 1
    with pytest.raises(NothingHeldOut, match="hold out fewer"):
        leave_last(per_person, catalogue, length=100, n=5)


def test_random_share_holds_out_that_share_of_each_person(event_rows: Rows) -> None:
    acts = [(f"u{user}", f"m{item}", item) for user in range(30) for item in range(10)]
    events = read_events(event_rows(acts).lazy(), WEIGHTS)
    catalogue = read_catalogue(None, events)
    found = random_share(events, catalogue, length=100, share=0.25)
    assert np.diff(found.held_out.indptr).tolist() == [2] * 30
    assert np.diff(found.fresh.user_items.indptr).tolist() == [8] * 30
    assert len({tuple(row) for row in found.held_out.toarray()}) > 10


def test_random_share_depends_on_the_seed_and_not_on_the_order_of_the_events(event_rows: Rows) -> None:
    acts = [(f"u{user}", f"m{item}", item) for user in range(9) for item in range(10)]
    events = [read_events(event_rows(each).lazy(), WEIGHTS) for each in (acts, acts[::-1])]
    one, two = (random_share(each, read_catalogue(None, each), length=100) for each in events)
    other = random_share(events[0], read_catalogue(None, events[0]), length=100, seed=1)
    assert one.held_out.toarray().tolist() == two.held_out.toarray().tolist() != other.held_out.toarray().tolist()
