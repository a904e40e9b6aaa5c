"""Popular and trending: everybody's histories as votes for items, each vote losing half of its weight in so many days.

A vote that was given at t weighs 2^((t - landmark) / half-life), so it is written once and never touched again: all
weights fall at the same pace, and the order of the sums is that of the votes as they weigh now (forward decay: Cormode,
Shkapenyuk, Srivastava, Xu: "Forward decay: a practical time decay model for streaming systems", ICDE 2009). Every 64
half-lives the landmark moves on and all sums are divided by a power of two, which is exact.

The sums are a function of the histories alone. Whoever changes a history adds the difference in the same transaction.
"""

import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from ingest.events import PopularityRules
from training.bundle import POPULAR, TRENDING, History

STEP = 64
"""Half-lives between two landmarks."""
OLDEST = 20
"""A vote so many half-lives old counts for nothing: it is less than a millionth of a new one."""
HIGHEST = 512
"""Half-lives after the landmark up to which a weight grows: far beyond any clock that is a little ahead."""
MS_A_DAY = 86_400_000


class Vote(NamedTuple):
    """One person's vote for an item, given (`sign` = 1) or taken back (-1)."""

    item_id: str
    at_ms: int
    sign: int


class Board(NamedTuple):
    """One of the sums.

    Attributes:
        key: in Redis.
        half_life_ms: of a vote.
        landmark: its number: the moment landmark * STEP * half_life_ms.
    """

    key: str
    half_life_ms: float
    landmark: int

    def weight(self, at_ms: float) -> float:
        """What a vote of that moment weighs; 0 where it is too long ago to be told from nothing."""
        age = at_ms / self.half_life_ms - self.landmark * STEP
        return float(2.0 ** min(age, HIGHEST)) if age > -1000 else 0.0

    def at(self, now_ms: float, before: int | None) -> "Board":
        """The same with the landmark of a moment, and never with one from before that of the store."""
        return self._replace(landmark=max(before or 0, int(now_ms // (STEP * self.half_life_ms))))


def boards(rules: PopularityRules) -> tuple[Board, ...]:
    """Popular and trending, with the first landmark."""
    days = {POPULAR: rules.popular_half_life_days, TRENDING: rules.trending_half_life_days}
    return tuple(Board(key, half_life * MS_A_DAY, 0) for key, half_life in days.items())


def changed(old: History, new: History, touched: Iterable[str]) -> list[Vote]:
    """Votes given and taken back when a history becomes another one.

    Args:
        old: as it was.
        new: as it is.
        touched: the items that something was done with; others may only have been dropped.

    >>> from training.bundle import Interaction
    >>> old, new = {"m1": Interaction(1, 1.0)}, {"m1": Interaction(9, 0.0), "m2": Interaction(9, 1.0)}
    >>> changed(old, new, ["m1", "m2"])
    [Vote(item_id='m1', at_ms=1, sign=-1), Vote(item_id='m2', at_ms=9, sign=1)]
    """
    others = [item for item in {*touched, *(old.keys() - new.keys())} if old.get(item) != new.get(item)]
    back = {item: seen for item in others if (seen := old.get(item))}
    given = {item: seen for item in others if (seen := new.get(item))}
    return of(back, -1) + of(given, 1)


def of(history: History, sign: int) -> list[Vote]:
    """The votes of a history: given (`sign` = 1) or taken back (-1)."""
    return [Vote(item, seen.at_ms, sign) for item, seen in history.items() if seen.weight > 0]


def queue(writes: Any, board: Board, before: int | None, votes: Iterable[Vote], now_ms: float) -> None:
    """Add what changes the sums to a transaction that writes the histories.

    Args:
        writes: the transaction.
        board: as of now.
        before: the landmark that the sums in the store are written to; None: there are none.
        votes: given and taken back.
        now_ms: milliseconds since 1970.
    """
    if before is not None and before != board.landmark:
        writes.zunionstore(board.key, {board.key: 2.0 ** max(STEP * (before - board.landmark), -1074)})
    weighs: dict[str, float] = {}
    for vote in votes:
        weighs[vote.item_id] = weighs.get(vote.item_id, 0.0) + vote.sign * board.weight(vote.at_ms)
    for item_id, weight in weighs.items():
        if weight:
            writes.zincrby(board.key, weight, item_id)
    writes.zremrangebyscore(board.key, "-inf", board.weight(now_ms - OLDEST * board.half_life_ms))


def now_ms() -> float:
    """The present moment in milliseconds since 1970."""
    return time.time() * 1000
