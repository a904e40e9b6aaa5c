"""Votes lose half of their weight in so many days, whenever they are counted."""

from collections.abc import Callable
from typing import Any

import pytest

from infra.online_store import OnlineStore
from ingest.events import PopularityRules
from serving import votes
from serving.histories import Histories
from serving.votes import MS_A_DAY, STEP, Board, boards
from training.bundle import (
    COMPLETE,
    LANDMARKS,
    POPULAR,
    TRENDING,
    WRITTEN,
    Interaction,
    decode_history,
    encode_history,
    history_key,
)

RULES = PopularityRules(popular_half_life_days=90, trending_half_life_days=3)
DAY = MS_A_DAY
NOW = 20_000 * DAY
TTL = 90 * 86_400


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.ms = float(NOW)

    def __call__(self) -> float:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    """It stands at NOW."""
    return Clock()


@pytest.fixture
def histories(store: OnlineStore, clock: Clock) -> Histories:
    """Of an empty store."""
    return Histories(store, TTL, 100, RULES, clock)


def weights(store: OnlineStore, key: str, clock: Clock) -> dict[str, float]:
    """What each item's votes weigh now, a new vote weighing 1."""
    board = next(each for each in boards(RULES) if each.key == key).at(clock(), None)
    found: Any = store.zrange(key, 0, -1, withscores=True)
    return {item.decode(): round(score / board.weight(clock()), 9) for item, score in found}


def add(histories: Histories, *acts: tuple[str, str, float, float], length: int = 10) -> None:
    """Fold (user, item, days before NOW, weight)."""
    for user, item, days, weight in acts:
        histories.add({user: [(item, Interaction(int(NOW - days * DAY), weight))]}, length)


def test_a_vote_weighs_half_after_a_half_life_and_sums_over_people(
    histories: Histories, store: OnlineStore, clock: Clock
) -> None:
    add(histories, ("ann", "m1", 3, 1.0), ("bob", "m1", 0, 2.0), ("bob", "m2", 6, 1.0))
    assert weights(store, TRENDING, clock) == {"m1": 1.5, "m2": 0.25}
    assert weights(store, POPULAR, clock)["m1"] == pytest.approx(1 + 2 ** (-3 / 90))
    clock.ms += 90 * DAY
    assert weights(store, POPULAR, clock)["m2"] == pytest.approx(2 ** (-96 / 90))


def test_what_was_seen_but_speaks_for_nothing_is_no_vote(histories: Histories, store: OnlineStore) -> None:
    add(histories, ("ann", "m1", 0, 0.0))
    assert store.exists(history_key("ann"))
    assert not store.exists(POPULAR, TRENDING)


def test_the_newest_act_replaces_the_vote_and_counting_again_changes_nothing(
    histories: Histories, store: OnlineStore, clock: Clock
) -> None:
    acts = [("ann", "m1", 6.0, 1.0), ("ann", "m1", 3.0, 1.5), ("ann", "m2", 3.0, 1.0), ("ann", "m2", 0.0, 0.0)]
    for _ in range(3):
        add(histories, *acts)
        add(histories, *reversed(acts))
        assert weights(store, TRENDING, clock) == {"m1": 0.5}


def test_what_a_history_is_too_long_for_leaves_with_its_vote(
    histories: Histories, store: OnlineStore, clock: Clock
) -> None:
    add(histories, ("ann", "m1", 3, 1.0), ("ann", "m2", 0, 1.0), ("ann", "m3", 0, 1.0), length=2)
    assert weights(store, TRENDING, clock) == {"m2": 1.0, "m3": 1.0}


def test_a_forgotten_person_takes_the_votes_along_exactly(
    histories: Histories, store: OnlineStore, clock: Clock
) -> None:
    """After everybody is forgotten, in whatever order and at whatever time, nothing is left."""
    people = [f"u{number}" for number in range(50)]
    add(histories, ("bob", "m1", 1, 1.0))
    alone = weights(store, POPULAR, clock)
    add(histories, *((user, f"m{n % 7}", n * 1.37, 1.0) for n, user in enumerate(people)))
    histories.forget(people, ())
    assert weights(store, POPULAR, clock) == alone
    clock.ms += 200 * DAY
    histories.forget(["bob", "nobody"], ())
    assert [key for key in store.scan_iter("*") if key != LANDMARKS.encode()] == []


def test_forgetting_counts_the_keys_and_the_votes(histories: Histories) -> None:
    add(histories, ("ann", "m1", 0, 1.0), ("ann", "m2", 0, 1.0), ("ann", "m3", 0, 0.0))
    assert histories.forget(["ann", "nobody"], ()) == {"ann": 3, "nobody": 0}


def test_sums_survive_new_landmarks(histories: Histories, store: OnlineStore, clock: Clock) -> None:
    """They are divided by a power of two: nothing is lost, and taking votes back after that is exact too."""
    add(histories, ("ann", "m1", 0, 1.0), ("bob", "m1", 0, 1.0), ("bob", "m2", -1, 1.0))
    before = store.get(LANDMARKS)
    clock.ms += 50 * DAY
    histories.forget(["ann"], ())
    clock.ms = (int(clock.ms // (STEP * 3 * DAY)) + 1) * STEP * 3 * DAY + 1
    add(histories, ("eve", "m3", (NOW - clock.ms) / DAY, 1.0))
    assert store.get(LANDMARKS) != before
    elapsed = (clock.ms - NOW) / DAY
    expected = {"m1": 2 ** (-elapsed / 90), "m2": 2 ** ((1 - elapsed) / 90), "m3": 1.0}
    assert weights(store, POPULAR, clock) == pytest.approx(expected)
    histories.forget(["bob", "eve"], ())
    assert not store.exists(POPULAR, TRENDING)


def test_a_landmark_moves_the_sums_of_others_too(histories: Histories, store: OnlineStore, clock: Clock) -> None:
    """A trending vote of 20 days ago, seen on both sides of a landmark, weighs the same."""
    border = (NOW // (STEP * 3 * DAY) + 1) * STEP * 3 * DAY
    clock.ms = border - 1
    add(histories, ("ann", "m1", (NOW - border) / DAY + 20, 1.0))
    seen = weights(store, TRENDING, clock)
    clock.ms = border + 1
    add(histories, ("bob", "m2", (NOW - border) / DAY, 1.0))
    assert weights(store, TRENDING, clock)["m1"] == pytest.approx(seen["m1"], rel=1e-6)
    assert weights(store, TRENDING, clock)["m2"] == pytest.approx(1.0)


def test_a_member_whose_clock_is_behind_does_not_move_the_landmark_back(
    histories: Histories, store: OnlineStore, clock: Clock
) -> None:
    add(histories, ("ann", "m1", 0, 1.0))
    before = store.get(LANDMARKS)
    clock.ms -= 1000 * DAY
    add(histories, ("bob", "m1", 0, 1.0))
    assert store.get(LANDMARKS) == before


def test_votes_of_the_last_century_and_of_far_ahead_do_no_harm(
    histories: Histories, store: OnlineStore, clock: Clock
) -> None:
    """The one weighs nothing; the other is bounded: neither breaks the others' order."""
    add(histories, ("ann", "old", 19_000, 1.0), ("bob", "now", 0, 1.0), ("eve", "ahead", -100_000, 1.0))
    assert set(weights(store, TRENDING, clock)) == {"now", "ahead"}
    assert weights(store, TRENDING, clock)["now"] == 1.0
    histories.forget(["ann", "bob", "eve"], ())
    assert not store.exists(POPULAR, TRENDING)


@pytest.mark.parametrize("half_life_ms", [0.5, 1000.0, 3 * DAY, 10_000 * DAY])
@pytest.mark.parametrize("at_ms", [-(2**62), 0, NOW, 2**62])
def test_no_weight_overflows(half_life_ms: float, at_ms: int) -> None:
    weight = Board(POPULAR, half_life_ms, 0).at(NOW, None).weight(at_ms)
    assert 0.0 <= weight * 10**9 < float("inf")


def test_two_members_at_a_time_count_once(
    histories: Histories, store: OnlineStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another member changes the same history between our reading and our writing: we begin again."""
    other, real, changed = Histories(store, TTL, 100, RULES, clock), votes.changed, []

    def meanwhile(*args: Any) -> Any:
        if not changed:
            changed.append(True)
            add(other, ("ann", "m2", 0, 1.0))
        return real(*args)

    add(histories, ("ann", "m1", 3, 1.0))
    monkeypatch.setattr(votes, "changed", meanwhile)
    add(histories, ("ann", "m2", 0, 1.0))
    assert weights(store, TRENDING, clock) == {"m1": 0.5, "m2": 1.0}
    assert changed


def test_other_half_lives_count_everything_anew(histories: Histories, store: OnlineStore, clock: Clock) -> None:
    """The old sums cannot be told from the new ones: they go, and the rebuilding counts who has done nothing since."""
    add(histories, ("ann", "m1", 3, 1.0), ("bob", "m2", 3, 1.0))
    store.hset(COMPLETE, "lake", "{}")
    rules = PopularityRules(popular_half_life_days=90, trending_half_life_days=1)
    changed = Histories(store, TTL, 100, rules, clock)
    changed.forget(["bob"], ())
    add(changed, ("ann", "m3", 0, 1.0))
    board = boards(rules)[1].at(clock(), None)
    found: Any = store.zrange(TRENDING, 0, -1, withscores=True)
    assert {item: score / board.weight(clock()) for item, score in found} == {b"m1": 0.125, b"m3": 1.0}
    assert not store.exists(COMPLETE)


def test_a_history_whose_votes_were_never_counted_is_counted_whole(
    histories: Histories, store: OnlineStore, clock: Clock
) -> None:
    store.set(history_key("ann"), encode_history({"m1": Interaction(NOW, 1.0)}))
    assert histories.forget(["bob"], ()) == {"bob": 0}
    add(histories, ("ann", "m1", 0, 1.0))
    assert weights(store, TRENDING, clock) == {"m1": 1.0}


def test_a_history_that_sees_no_event_leaves_with_its_votes_before_it_expires(
    histories: Histories, store: OnlineStore, clock: Clock
) -> None:
    add(histories, ("ann", "m1", 0, 1.0))
    clock.ms += 80 * DAY
    add(histories, ("bob", "m1", -80, 1.0))
    assert histories.sweep() == 0
    clock.ms += 8 * DAY
    assert histories.sweep() == 1
    assert weights(store, POPULAR, clock)["m1"] == pytest.approx(2 ** (-8 / 90))
    assert not store.exists(history_key("ann"))
    assert store.zrange(WRITTEN, 0, -1) == [b"bob"]


def test_who_comes_back_while_the_old_histories_are_swept_stays(
    histories: Histories, store: OnlineStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(histories, ("ann", "m1", 0, 1.0))
    clock.ms += 89 * DAY
    real: Callable[..., Any] = histories._forget

    def meanwhile(*args: Any) -> Any:
        add(histories, ("ann", "m2", -89, 1.0))
        return real(*args)

    monkeypatch.setattr(histories, "_forget", meanwhile)
    assert histories.sweep() == 0
    assert sorted(decode_history(store.get(history_key("ann")))) == ["m1", "m2"]  # type: ignore[arg-type]


def test_a_history_that_cannot_be_read_is_begun_anew(histories: Histories, store: OnlineStore) -> None:
    store.set(history_key("ann"), b"\xff[")
    add(histories, ("ann", "m1", 0, 1.0))
    assert list(decode_history(store.get(history_key("ann")))) == ["m1"]  # type: ignore[arg-type]
