"""The truth of the simulation: what is drawn, and what a diary keeps of it."""

from dataclasses import replace

import numpy as np
import pytest

from training.recency import MS_A_DAY
from workshop.world import Diary, Plan, Round, rounds_of

SMALL = Plan(viewers=200, items=120, past=30, met=3, k=8)


def a_round(number: int, would: list[list[bool]], looks: list[list[bool]], meets: list[list[int]]) -> Round:
    taken = np.array(would)
    return Round(number, taken.astype(float), taken, np.array(looks), np.array(meets, int))


def test_the_same_seed_gives_the_same_world_and_another_seed_another() -> None:
    first, again, other = (list(rounds_of(SMALL, 3, seed)) for seed in (1, 1, 2))
    for one, two, three in zip(first, again, other, strict=True):
        assert (one.would == two.would).all()
        assert (one.looks == two.looks).all()
        assert (one.meets == two.meets).all()
        assert (one.would != three.would).any()


def test_more_rounds_have_the_same_beginning_for_those_who_are_there() -> None:
    """The dice of a round do not depend on how many rounds follow."""
    plan = replace(SMALL, new_viewers=0.0, new_items=0.0)
    for short, long in zip(rounds_of(plan, 2, 1), rounds_of(plan, 5, 1), strict=False):
        assert (short.chances == long.chances).all()
        assert (short.would == long.would).all()


def test_viewers_and_items_arrive_before_each_round_but_the_first() -> None:
    sizes = [one.chances.shape for one in rounds_of(replace(SMALL, new_viewers=0.1, new_items=0.05), 3, 1)]
    assert sizes == [(200, 120), (200, 120), (220, 126), (240, 132)]


def test_what_is_new_is_worth_more_for_a_while() -> None:
    """News halves every three rounds, for the first items as for those that come later."""
    plan = replace(SMALL, new_items=0.05, taste=0.0, appeal=0.0, usual=0.0, news=1.0)
    last = list(rounds_of(plan, 4, 1))[-1]
    inclined = np.log(last.chances[0] / (1 - last.chances[0]))
    assert (np.diff(inclined) >= -1e-12).all()
    assert plan.ages_in(4)[[-1, -7, 119, 113]].tolist() == [0, 1, 3, 4]
    assert plan.ages_in(0).min() == 0
    assert np.isinf(replace(plan, new_items=0.0).ages_in(4)).all(), "where nothing is ever new, nothing is now"
    assert inclined[[-1, 119]] == pytest.approx([1.0, 0.5])


def test_without_tastes_all_viewers_have_the_same_chances_and_with_them_they_have_not() -> None:
    _, flat = rounds_of(replace(SMALL, taste=0.0), 1, 1)
    _, varied = rounds_of(SMALL, 1, 1)
    assert np.ptp(flat.chances, axis=0).max() == 0
    assert np.ptp(varied.chances, axis=0).min() > 0.1


def test_tastes_stay_as_they_are_without_drift_and_move_with_it() -> None:
    still, moving = (
        [one.chances[:, :100] for one in rounds_of(replace(SMALL, drift=drift, news=0.0), 2, 1)] for drift in (0.0, 0.5)
    )
    assert (still[0] == still[2][:200]).all()
    assert np.abs(moving[0] - moving[2][:200]).mean() > 0.05


def test_higher_places_are_looked_at_more_often_and_nobody_meets_an_item_twice_at_once() -> None:
    _, now = rounds_of(replace(SMALL, viewers=4000), 1, 1)
    assert now.looks.mean(axis=0) == pytest.approx(np.arange(1, 9) ** -0.5, abs=0.03)
    assert all(len(set(row)) == 3 for row in now.meets.tolist())


def test_a_place_is_watched_from_if_it_is_looked_at_and_liked_and_new() -> None:
    diary = Diary(2, 3)
    lists = np.array([[0, 1], [2, -1]])
    seen, no_meeting = [[True, False], [True, True]], [[], []]
    first = a_round(1, [[True, True, True]] * 2, seen, no_meeting)
    assert diary.answer(first, lists) == 2 / 4
    assert diary.histories(2, 3).user_items.toarray().tolist() == [[1, 0, 0], [0, 0, 1]]
    again = a_round(2, [[True, True, True], [False, False, False]], [[True, True], [True, True]], no_meeting)
    assert diary.answer(again, lists) == 1 / 4, "what was watched is not watched again"
    assert diary.histories(2, 3).user_items.toarray().tolist() == [[1, 1, 0], [0, 0, 1]]


def test_a_history_knows_when_and_what_came_too_late_speaks_for_nothing() -> None:
    diary = Diary(1, 3)
    nowhere = [[False, False]]
    diary.meet(a_round(0, [[True, False, True]], nowhere, [[2, 1]]))
    diary.meet(a_round(1, [[True, False, True]], nowhere, [[2, 0]]))
    whole, early = diary.histories(1, 3), diary.histories(1, 3, until=1)
    assert whole.user_items.indices.tolist() == [0, 2]
    assert whole.at_ms.tolist() == [MS_A_DAY + 3, 2]
    assert early.user_items.data.tolist() == [0, 1], "watched since: hidden, but says nothing"
