"""Nothing that is asked about is told beforehand: the traps that make offline figures too good to be true."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from training.algorithms import ALGORITHMS
from training.evaluation import fit, judge, lists
from training.holdout_files import HoldOut
from training.interactions import Column, Events, ReadCounts, read_catalogue
from training.recency import Recency
from training.recipe import Recipe
from training.split import Split, leave_last, random_share, split_by_time

TASTES, ITEMS_A_TASTE, PEOPLE, TAKEN_UP = 60, 10, 240, 9
CUT = 800
PARTS = [{"algorithm": name, "parameters": {}, "weight": 1.0} for name in ("item_item", "ease")]
FAMILIES = [Recipe(name, {"parts": PARTS} if name == "blend" else {}) for name in ALGORITHMS]

SPLITS: dict[str, Callable[..., Split]] = {
    "time": split_by_time,
    "time with a gap": partial(split_by_time, gap=timedelta(milliseconds=100)),
    "last": partial(leave_last, n=2),
    "random": random_share,
}


def events(acts: list[tuple[str, str, int, float]]) -> Events:
    """From (user_id, item_id, moment, weight)."""
    rows = pl.DataFrame(acts, [Column.USER, Column.ITEM, Column.AT_MS, Column.WEIGHT], orient="row")
    return Events(rows.with_columns(pl.lit(1).alias(Column.RECEIPT)), ReadCounts(len(acts), 0, 0))


def split(of: Events, make: Callable[..., Split] = split_by_time) -> Split:
    return make(of, read_catalogue(None, of), 1000)


def tastes(seed: int = 0) -> list[tuple[str, str, int, float]]:
    """People who take up most items of one taste at random moments from 0 to 1000. No item is more popular by plan.

    Four people share a taste, so a model that has been told their future knows it from their past.
    """
    random = np.random.default_rng(seed)
    acts = []
    for person in range(PEOPLE):
        for item in random.permutation(ITEMS_A_TASTE)[:TAKEN_UP]:
            acts.append((f"u{person:03}", f"m{person % TASTES}-{item:02}", int(random.integers(1000)), 1.0))
    return acts


def with_future(seed: int) -> Events:
    """Always the same until the moment 800, and then other people, items and weights, as many at the same moments."""
    past = [act for act in tastes() if act[2] < CUT]
    random = np.random.default_rng(seed)
    future = [
        (f"u{random.integers(PEOPLE + 9):03}", f"m{seed}{random.integers(2)}-{random.integers(40):02}", at, weight)
        for at, weight in zip(range(CUT, 1000), random.choice([0.0, 1.0, 2.0], 200), strict=True)
        for _ in range(2)
    ]
    return events(past + future)


@pytest.fixture(scope="module", params=["time", "time with a gap"])
def two_futures(request: pytest.FixtureRequest) -> tuple[Split, Split]:
    """Two splits that differ in what happens after the cut."""
    return split(with_future(0), SPLITS[request.param]), split(with_future(1), SPLITS[request.param])


def test_a_future_event_never_reaches_the_training_side(two_futures: tuple[Split, Split]) -> None:
    """Neither the matrix nor the ids, the popularity or the ages, nor the items that there are."""
    one, two = two_futures
    assert one.cut_ms == two.cut_ms
    assert one.held_out.shape != two.held_out.shape
    assert one.train.users.ids == two.train.users.ids
    assert one.train.catalogue == two.train.catalogue
    assert one.train.digest == two.train.digest
    assert one.train.popularity.tolist() == two.train.popularity.tolist()
    assert one.train.ages.tolist() == two.train.ages.tolist()
    assert one.train.ages.min() == 0
    assert one.train.rows[Column.AT_MS].to_numpy().max() < one.cut_ms


@pytest.mark.parametrize("recipe", FAMILIES, ids=lambda recipe: recipe.algorithm)
def test_what_is_learnt_does_not_depend_on_the_future(two_futures: tuple[Split, Split], recipe: Recipe) -> None:
    one, two = (fit(recipe, each.train).arrays() for each in two_futures)
    assert {name: array.tobytes() for name, array in one.items()} == {n: array.tobytes() for n, array in two.items()}


def test_lists_from_stale_histories_do_not_depend_on_the_future(two_futures: tuple[Split, Split]) -> None:
    """Newcomers' popular lists, and what fills lists up, included: a model that knows nothing shows them to all."""
    nothing = Recipe("item_item", {"neighbours": 1})
    shown = []
    for each in two_futures:
        found = lists(fit(nothing, each.train), each, each.stale.weighted(Recency(boost=3.0)), 60)[0]
        shown.append({row.tobytes(): listed.tolist() for row, listed in zip(histories(each), found, strict=True)})
    both = shown[0].keys() & shown[1].keys()
    assert len(both) > 20
    assert {key: shown[0][key] for key in both} == {key: shown[1][key] for key in both}


def histories(of: Split) -> list[np.ndarray]:
    """Each stale history, items and moments, as one array."""
    bounds = of.stale.user_items.indptr
    pairs = np.stack([of.stale.user_items.indices.astype(np.int64), of.stale.at_ms])
    return [np.ascontiguousarray(pairs[:, start:end]) for start, end in pairwise(bounds)]


@pytest.mark.parametrize("kind", SPLITS)
@pytest.mark.parametrize("seed", range(3))
def test_held_out_items_are_in_no_history_and_not_trained_on(kind: str, seed: int) -> None:
    """Also where people meet an item again and again, before the cut, in the gap and after."""
    random = np.random.default_rng(seed)
    again = [(f"u{random.integers(40):02}", f"m{random.integers(60):02}", at, 1.0) for at in range(1000)]
    found = split(events(again), SPLITS[kind])
    held_out = found.held_out[:, : len(found.train.catalogue.items)]
    assert held_out.nnz > 30
    trained_on = [found.train.users.index[person] for person in found.people.ids]
    for history in (found.stale.user_items, found.fresh.user_items, found.train.user_items[trained_on]):
        assert history.multiply(held_out).nnz == 0


@pytest.mark.parametrize("kind", ["time", "time with a gap", "last"])
def test_histories_end_before_what_is_held_out_begins(kind: str) -> None:
    """So a recency has nothing of the future to look at. What was met before is as old as it was then."""
    acts = tastes(1)
    at = {(user, item): moment for user, item, moment, _ in acts}
    found = split(events(acts), SPLITS[kind])
    items = found.train.catalogue.items.ids
    assert len(found.people) > PEOPLE / 3
    for row, person in enumerate(found.people.ids):
        asked = [at[person, items[i]] for i in found.held_out[row].indices if i < len(items)]
        begins = min(asked, default=1000)
        for history, ends in ((found.stale, min(begins, found.cut_ms - 1)), (found.fresh, begins)):
            bounds = slice(*history.user_items.indptr[row : row + 2])
            moments = [at[person, items[i]] for i in history.user_items.indices[bounds]]
            assert history.at_ms[bounds].tolist() == moments
            assert max(moments, default=0) <= ends


def shuffled(acts: list[tuple[str, str, int, float]]) -> Events:
    """What people take up after the cut is given to somebody else, as a whole."""
    people = sorted({user for user, *_ in acts})
    other = dict(zip(people, np.random.default_rng(5).permutation(people), strict=True))
    return events([(str(other[u]) if at >= CUT else u, item, at, weight) for u, item, at, weight in acts])


def recalls(recipe: Recipe, of: Split, known: sparse.csr_matrix) -> tuple[np.ndarray, float]:
    """(people,) recall@10 of a recipe, and what it would be on average if the lists had been dealt out by lot.

    By lot, an item is what somebody wants as often as people want it who do not have it.
    """
    found = lists(fit(recipe, of.train), of, known, 10)[0]
    asked = of.held_out.toarray()
    often = (asked / asked.sum(axis=1, keepdims=True)).mean(axis=0)
    by_lot = often[found].sum(axis=1) / (often.sum() - known @ often[: known.shape[1]])
    return judge(found, of).recall(10), float(by_lot.mean())


def assert_chance(found: np.ndarray, by_lot: float) -> None:
    """Within four standard errors."""
    assert abs(found.mean() - by_lot) <= 4 * np.sqrt(by_lot / len(found))


@pytest.mark.parametrize("recipe", FAMILIES, ids=lambda recipe: recipe.algorithm)
def test_with_shuffled_labels_every_algorithm_falls_to_chance(recipe: Recipe) -> None:
    """With everybody's own future the same algorithm finds the tastes, unless it is popularity."""
    own, others = split(events(tastes())), split(shuffled(tastes()))
    tasted, lucky = recalls(recipe, own, own.stale.user_items)
    assert tasted.mean() > 10 * lucky or recipe.algorithm == "popularity"
    assert_chance(*recalls(recipe, others, others.stale.user_items))


@pytest.mark.parametrize("recipe", FAMILIES, ids=lambda recipe: recipe.algorithm)
@pytest.mark.parametrize("refit", [True, False])
def test_with_a_shuffled_test_file_every_algorithm_falls_to_chance(recipe: Recipe, refit: bool) -> None:
    """Fitted again or not: what is in test is neither learnt from nor in anybody's history."""
    split = hold_out().refitted() if refit else hold_out().arrived()
    assert_chance(*recalls(recipe, split, split.fresh.user_items))


def hold_out() -> HoldOut:
    """Five items of each in train, two in valid, two in test, where they are another's."""
    acts = pl.DataFrame(tastes(), ["user_id", "item_id", "at_ms", "weight"], orient="row")
    acts = acts.with_columns(receipt=pl.lit(0), place=pl.int_range(pl.len()).over("user_id"))
    people = acts["user_id"].unique().sort()
    other = dict(zip(people, people.shuffle(seed=7), strict=True))
    train, valid, test = (acts.filter(pl.col("place").is_between(*p)).drop("place") for p in ((0, 4), (5, 6), (7, 8)))
    test = test.with_columns(pl.col("user_id").replace(other))
    for known in (train, valid):
        test = test.join(known, on=["user_id", "item_id"], how="anti")
    return HoldOut(train, valid, test, pl.String(), pl.String(), ())
