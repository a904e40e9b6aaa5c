"""The loop, closed: what is shown decides what is watched, and what was watched is what the next model learns from.

Each arm is a way to recommend in a world of its own, with the viewers and dice of all others. The models, and the
function that makes lists of them, are the platform's own.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import numpy as np

from training.algorithms.base import best
from training.bundle import Indices, recommend
from training.recipe import Recipe
from workshop.world import Diary, Floats, Plan, Round, rounds_of


class Recommender(Protocol):
    """A way to recommend, in the course of one world."""

    def lists(self, now: Round, diary: Diary, k: int) -> Indices:
        """(viewers, k) item indices for everybody who is there, best first, padded with -1."""
        ...


class Learner:
    """A model that is trained on what was watched, and asked with histories.

    Args:
        recipe: of the model.
        retrain_every: rounds from one training to the next; None: there is one, before the first round.
        fold_in: histories have in them what was watched since the training, as nearline's. False: they have not;
            what was watched since is not shown again, no more.
    """

    def __init__(self, recipe: Recipe, *, retrain_every: int | None, fold_in: bool) -> None:
        self._recipe = recipe
        self._every = retrain_every
        self._fold_in = fold_in

    def lists(self, now: Round, diary: Diary, k: int) -> Indices:
        """Lists of the model of the newest training. Items and viewers that it never met are strangers to it."""
        if now.number == 1 or (self._every is not None and (now.number - 1) % self._every == 0):
            self._train(now, diary)
        histories = diary.histories(len(now.chances), self._items, None if self._fold_in else self._trained)
        return recommend(self._model, self._popular, histories.weighted(self._recipe.recency), k)[0]

    def _train(self, now: Round, diary: Diary) -> None:
        self._trained, self._items = now.number, now.chances.shape[1]
        known = diary.histories(*now.chances.shape)
        self._model = self._recipe.make()
        self._model.fit(known.user_items, known.ages() if self._model.looks_at_ages else None)
        counts = np.bincount(known.user_items.indices, minlength=self._items)
        self._popular = np.lexsort((np.arange(self._items), -counts)).astype(np.int32)


class Oracle:
    """Knows what everybody would like best, though not the dice."""

    def lists(self, now: Round, diary: Diary, k: int) -> Indices:
        """The items with the best chances of those not watched yet."""
        return best(now.chances.astype(np.float32), diary.histories(*now.chances.shape).user_items, k)[0]


POPULAR = Recipe("popularity", {"half_life_days": 2.0})
"""A day is a round. To count old and new alike would be a weaker opponent: `docs/log.md`."""
RECIPE = Recipe("ials", {"factors": 16})
"""Chosen by what is watched in the simulation itself, which nobody can do outside of one: `docs/simulation.md`."""

Arms = Mapping[str, Callable[[], Recommender]]
"""Name → how it starts."""


ARMS: Arms = {
    "popularity": partial(Learner, POPULAR, retrain_every=1, fold_in=True),
    "stale": partial(Learner, RECIPE, retrain_every=None, fold_in=False),
    "nearline": partial(Learner, RECIPE, retrain_every=None, fold_in=True),
    "fresh": partial(Learner, RECIPE, retrain_every=1, fold_in=True),
    "oracle": Oracle,
}


def play(
    plan: Plan,
    rounds: int,
    seed: int,
    arms: Arms = ARMS,
    on_round: Callable[[], None] | None = None,
) -> Floats:
    """(arms, rounds) watch rates: the share of the places shown from which an item was watched.

    Args:
        plan: of the worlds.
        rounds: how often everybody is shown a list.
        seed: of viewers, items and dice.
        arms: what to compare.
        on_round: told after every round.
    """
    recommenders = [start() for start in arms.values()]
    diaries = [Diary(plan.viewers_in(rounds), plan.items_in(rounds)) for _ in arms]
    rates = np.zeros((len(arms), rounds))
    for now in rounds_of(plan, rounds, seed):
        for arm, (recommender, diary) in enumerate(zip(recommenders, diaries, strict=True)):
            if now.number:
                rates[arm, now.number - 1] = diary.answer(now, recommender.lists(now, diary, plan.k))
            diary.meet(now)
        if now.number and on_round is not None:
            on_round()
    return rates
