"""A small world whose truth is known: viewers with hidden tastes, items, and the dice of every round.

Whoever recommends sees only what was watched: all but the oracle of `workshop.rounds`, which is what knowing the truth
would be worth. The dice of a round are thrown once, whatever is shown: in two worlds of one seed a viewer who is shown
the same answers the same, so that a difference between them comes from the lists (common random numbers).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from training.recency import MS_A_DAY, Histories

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

NEWS_HALF_LIFE = 3.0
LUCK = 0.5
"""How far it is chance what people hear of: the rest is how much everybody sees in it."""
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Plan:
    """What a world is like.

    The chance that a viewer who looks at an item watches it is the logistic function of `usual + appeal · (what
    everybody sees in it) + taste · (what this viewer sees in it) + news · 2^-(age / 3 rounds)`; what is seen in items
    is standard normal.

    Attributes:
        viewers: there from the beginning.
        items: there from the beginning.
        new_viewers: who arrive before each later round, as a share of the first ones.
        new_items: likewise.
        k: places of a list.
        features: hidden features of an item, of which tastes are made; the fewer, the easier they are to learn.
        usual: how ready viewers are to watch anything, in logits.
        appeal: how far items differ for everybody.
        taste: how far viewers differ; 0: they do not.
        drift: how far a taste moves between two rounds: 0 not at all, 1 to a taste that has nothing of the old one.
        news: what the newest items have beyond old ones for everybody, in logits; it halves every 3 rounds.
        past: items that each of the first viewers met before the first round.
        met: items that each viewer meets in a round beside the list, the better known more often.
        eyes: the chance to look at place n is n^-eyes; 0: all places are looked at.
    """

    viewers: int = 500
    items: int = 500
    new_viewers: float = 0.05
    new_items: float = 0.05
    k: int = 10
    features: int = 4
    usual: float = -1.5
    appeal: float = 0.7
    taste: float = 2.0
    drift: float = 0.15
    news: float = 1.0
    past: int = 60
    met: int = 5
    eyes: float = 0.5

    def viewers_in(self, number: int) -> int:
        """Viewers who have arrived by a round."""
        return self.viewers + round(self.viewers * self.new_viewers) * max(0, number - 1)

    def items_in(self, number: int) -> int:
        """Items that have arrived by a round."""
        return self.items + round(self.items * self.new_items) * max(0, number - 1)

    def ages_in(self, number: int) -> Floats:
        """(items,) rounds since each arrived; the first ones came as the later ones do, so many a round."""
        count, a_round = self.items_in(number), self.items_in(2) - self.items
        if not a_round:
            return np.full(count, np.inf)
        arrived = (np.arange(count) - self.items) // a_round + 2
        return np.maximum(number - arrived, 0).astype(float)


@dataclass(frozen=True)
class Round:
    """What is true in a round, of the viewers and items that are there. Both are numbered as they arrive.

    Attributes:
        number: 0 is the past, before anybody was shown anything.
        chances: (viewers, items) the chance to watch what is looked at.
        would: (viewers, items) whether this viewer watches this item, once looked at, in this round.
        looks: (viewers, k) whether this viewer looks at this place of the list.
        meets: (viewers, any) items met beside the list.
    """

    number: int
    chances: Floats
    would: Bools
    looks: Bools
    meets: Ints


def rounds_of(plan: Plan, rounds: int, seed: int) -> Iterator[Round]:
    """The rounds of a world, the past first.

    Args:
        plan: what it is like.
        rounds: after the past.
        seed: the same one gives the same world, and more rounds the same beginning.
    """
    rng = np.random.default_rng([seed, 0])
    most_viewers, most_items = plan.viewers_in(rounds), plan.items_in(rounds)
    features, appeal, fortune = (np.random.default_rng([seed, 1, part]) for part in range(3))
    items = features.normal(size=(most_items, plan.features))
    liked, luck = appeal.normal(size=most_items), LUCK * fortune.normal(size=most_items)
    tastes = rng.normal(size=(most_viewers, plan.features)) / np.sqrt(plan.features)
    for number in range(rounds + 1):
        there, on_offer = plan.viewers_in(number), plan.items_in(number)
        dice = np.random.default_rng([seed, 2, number])
        shared = plan.appeal * liked[:on_offer] + plan.news * np.exp2(-plan.ages_in(number) / NEWS_HALF_LIFE)
        inclined = plan.usual + shared + plan.taste * (tastes[:there] @ items[:on_offer].T)
        chances = 1 / (1 + np.exp(-inclined))
        reach = np.arange(1, plan.k + 1) ** -plan.eyes
        met = plan.met if number else plan.past
        yield Round(
            number,
            chances,
            dice.random(chances.shape) < chances,
            dice.random((there, plan.k)) < reach,
            _meets(shared + luck[:on_offer], there, met, dice),
        )
        moved = np.random.default_rng([seed, 3, number]).normal(size=tastes.shape) / np.sqrt(plan.features)
        tastes = np.sqrt(1 - plan.drift**2) * tastes + plan.drift * moved


def _meets(fame: Floats, viewers: int, met: int, dice: np.random.Generator) -> Ints:
    """(viewers, met) different items a viewer, drawn with odds of e^fame (Gumbel's trick)."""
    drawn = fame + dice.gumbel(size=(viewers, len(fame)))
    return np.argpartition(-drawn, met - 1, axis=1)[:, :met] if met < len(fame) else np.argsort(-drawn, axis=1)


class Diary:
    """What was watched in one world, and when: all that a recommender may know.

    Args:
        viewers: who will ever be there.
        items: that will ever be there.
    """

    def __init__(self, viewers: int, items: int) -> None:
        self._at = np.full((viewers, items), NEVER)

    def answer(self, now: Round, lists: npt.NDArray[np.integer]) -> float:
        """Let everybody look at a list, (viewers, k) padded with -1: the share of the places that was watched from."""
        return float(self._watch(now, lists, now.looks[:, : lists.shape[1]] & (lists >= 0), 0).mean())

    def meet(self, now: Round) -> None:
        """Let everybody come upon items without a list."""
        self._watch(now, now.meets, np.ones(now.meets.shape, bool), now.looks.shape[1])

    def histories(self, viewers: int, items: int, until: int | None = None) -> Histories:
        """The histories of the first viewers over the first items.

        Args:
            viewers: so many rows.
            items: so many columns.
            until: what was watched in this round or later speaks for nothing, but is not shown again; None: all speaks.
        """
        at = self._at[:viewers, :items]
        rows, columns = np.nonzero(at != NEVER)
        moments = at[rows, columns]
        speaks = np.ones(len(rows), np.float32) if until is None else (moments < until * MS_A_DAY).astype(np.float32)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=viewers))]).astype(np.int32)
        matrix = sparse.csr_matrix((speaks, columns.astype(np.int32), indptr), shape=(viewers, items))
        return Histories(matrix, moments)

    def _watch(self, now: Round, items: npt.NDArray[np.integer], looked: Bools, later: int) -> Bools:
        """(viewers, any) whether each was watched: looked at, to the viewer's taste, and not watched before."""
        rows = np.arange(len(items))[:, None]
        watched: Bools = looked & now.would[rows, items] & (self._at[rows, items] == NEVER)
        viewer, place = np.nonzero(watched)
        self._at[viewer, items[viewer, place]] = now.number * MS_A_DAY + later + place
        return watched
