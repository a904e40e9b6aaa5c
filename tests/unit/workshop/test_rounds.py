"""The loop with known answers: who cannot win, who has to be equal, and what a stale model does not know."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from training.bundle import Indices
from workshop.rounds import ARMS, RECIPE, Arms, Learner, Oracle, Recommender, play
from workshop.rounds_report import mean
from workshop.world import Diary, Floats, Plan, Round

SMALL = Plan(viewers=100, items=120, past=40, met=3, k=8)
ROUNDS = 4


class Watched:
    """A recommender whose lists are looked at by the test as well."""

    def __init__(self, inner: Recommender, look: Callable[[Round, Diary, Indices], None]) -> None:
        self._inner = inner
        self._look = look

    def lists(self, now: Round, diary: Diary, k: int) -> Indices:
        found = self._inner.lists(now, diary, k)
        self._look(now, diary, found)
        return found


def expected(now: Round, lists: Indices) -> Floats:
    """(viewers,) what a list is worth, without the dice."""
    worth = np.where(lists >= 0, np.take_along_axis(now.chances, np.maximum(lists, 0), axis=1), 0)
    return np.asarray(worth @ (np.arange(1, lists.shape[1] + 1) ** -0.5))


def never_beaten(arms: Arms) -> None:
    """For nobody and in no round is there a list that is worth more than the oracle's, whatever was watched before."""
    oracle = arms["oracle"]()

    def look(now: Round, diary: Diary, lists: Indices) -> None:
        best = oracle.lists(now, diary, SMALL.k)
        assert (expected(now, lists) <= expected(now, best) + 1e-6).all()

    play(SMALL, ROUNDS, 1, {name: lambda start=start: Watched(start(), look) for name, start in arms.items()})  # type: ignore[misc]


def test_nobody_is_ever_shown_a_better_list_than_the_oracles() -> None:
    never_beaten(ARMS)


def test_an_oracle_that_only_knows_what_is_popular_would_be_found_out() -> None:
    mutant = partial(Learner, RECIPE, retrain_every=1, fold_in=True)
    with pytest.raises(AssertionError):
        never_beaten({**ARMS, "oracle": mutant})


def test_over_all_rounds_the_oracle_is_ahead_of_everybody_by_more_than_chance() -> None:
    rates = np.array([play(SMALL, ROUNDS, seed).mean(axis=1) for seed in range(1, 5)])
    for arm in range(4):
        assert mean(rates[:, 4] - rates[:, arm]).low > 0, list(ARMS)[arm]


def test_where_every_item_is_as_good_for_everybody_no_arm_is_better_than_another() -> None:
    """And the rate is the chance to watch, times the chance to look at a place.

    Four arms are compared, and one interval in twenty misses: twice its width has to hold the 0.
    """
    plan = replace(SMALL, taste=0.0, appeal=0.0, news=0.0, usual=-1.0)
    rates = np.array([play(plan, ROUNDS, seed).mean(axis=1) for seed in range(1, 7)])
    for arm in range(1, 5):
        gained = mean(rates[:, arm] - rates[:, 0])
        assert abs(gained.value) < 2 * (gained.high - gained.value) < 0.03
    chance = 1 / (1 + np.exp(1.0)) * np.mean(np.arange(1, 9) ** -0.5)
    assert rates.mean() == pytest.approx(chance, abs=0.005)


def test_before_anything_was_watched_from_a_list_the_three_personal_arms_are_the_same() -> None:
    rates = dict(zip(ARMS, play(SMALL, 2, 3), strict=True))
    assert rates["stale"][0] == rates["nearline"][0] == rates["fresh"][0]
    assert rates["stale"][1] != rates["fresh"][1]


def stays_as_it_was(start: Callable[[], Recommender]) -> None:
    """A model that is not retrained never shows an item that came later, and treats new viewers as strangers."""
    newcomers: list[set[tuple[int, ...]]] = []

    def look(now: Round, diary: Diary, lists: Indices) -> None:
        assert lists.max() < SMALL.items
        if now.number == 2:
            newcomers.append({tuple(row) for row in lists[SMALL.viewers :].tolist()})

    play(SMALL, ROUNDS, 1, {"stale": lambda: Watched(start(), look)})
    assert len(newcomers[0]) == 1, "strangers are all shown the same"


@pytest.mark.parametrize("arm", ["stale", "nearline"])
def test_a_model_that_is_not_retrained_knows_no_item_and_no_viewer_that_came_later(arm: str) -> None:
    stays_as_it_was(ARMS[arm])


def test_a_stale_model_that_is_retrained_in_silence_would_be_found_out() -> None:
    with pytest.raises(AssertionError):
        stays_as_it_was(partial(Learner, RECIPE, retrain_every=1, fold_in=False))


def test_a_stale_model_is_told_nothing_of_what_was_watched_since_and_nearline_is() -> None:
    """New viewers are strangers to the one for good, and to the other until they have watched something."""
    lists: dict[str, Indices] = {}

    def keep(name: str) -> Callable[[Round, Diary, Indices], None]:
        return lambda now, diary, found: lists.update({name: found[SMALL.viewers : SMALL.viewers + 5]})

    starts = {name: ARMS[name] for name in ("stale", "nearline")}
    play(SMALL, ROUNDS, 1, {name: lambda n=name, s=start: Watched(s(), keep(n)) for name, start in starts.items()})  # type: ignore[misc]
    popular = [set(row) for row in lists["stale"].tolist()]
    told = [set(row) for row in lists["nearline"].tolist()]
    assert all(len(row & popular[0]) >= SMALL.k / 2 for row in popular)
    assert np.mean([len(row & popular[0]) for row in told]) < np.mean([len(row & popular[0]) for row in popular])


def test_nobody_is_shown_again_what_was_watched() -> None:
    def look(now: Round, diary: Diary, lists: Indices) -> None:
        held = diary.histories(*now.chances.shape).user_items.toarray() != 0
        rows = np.arange(len(lists))[:, None]
        assert not (held[rows, np.maximum(lists, 0)] & (lists >= 0)).any()

    play(SMALL, 3, 1, {name: lambda start=start: Watched(start(), look) for name, start in ARMS.items()})  # type: ignore[misc]


def test_two_arms_that_do_the_same_have_the_same_world_to_the_last_digit() -> None:
    one, two = play(SMALL, ROUNDS, 1, {"a": Oracle, "b": Oracle})
    assert (one == two).all()


def test_a_model_is_trained_again_when_its_rounds_are_over() -> None:
    """Every second round: as good as fresh in round 3, where both have just been trained on the same worlds."""
    seen: dict[int, int] = {}

    def look(now: Round, diary: Diary, lists: Indices) -> None:
        seen[now.number] = int(lists.max())

    start = partial(Learner, RECIPE, retrain_every=2, fold_in=True)
    play(replace(SMALL, new_items=0.5), 4, 1, {"every second": lambda: Watched(start(), look)})
    assert seen[2] < 120 <= seen[3] < 240
    assert seen[4] < 240, "what came in round 4 waits for the next training"
