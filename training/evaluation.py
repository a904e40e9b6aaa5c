"""What a recipe is worth on a hold-out: fitted, then asked for lists by the function that makes the served ones."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from training.algorithms.base import AfterRound, Algorithm
from training.bundle import Indices, Model, Scores, recommend
from training.interactions import Interactions
from training.ranking import RECALL_K, Ranking, hit_matrix
from training.recipe import Recipe
from training.split import Split

BATCH = 1000


@dataclass(frozen=True)
class Evaluation:
    """One model on one split: with the histories training knew, and with the newest."""

    stale: Ranking
    fresh: Ranking


Fit = Callable[[Recipe, Interactions, int | None], Algorithm]
"""Fits a recipe on what had happened before a moment: see `training.engine.Engine.fit`."""


def evaluate(recipe: Recipe, split: Split, fit_it: Fit | None = None) -> Evaluation:
    """Fit a recipe on what happened before the cut, and judge it by both histories; without `fit_it`, here."""
    model = fit(recipe, split.train) if fit_it is None else fit_it(recipe, split.train, split.cut_ms)
    return Evaluation(*(rank(model, split, known.weighted(recipe.recency)) for known in (split.stale, split.fresh)))


def fit(recipe: Recipe, train: Interactions, after_round: AfterRound | None = None) -> Algorithm:
    """The recipe's algorithm, fitted on these interactions and nothing else.

    Raises:
        training.algorithms.base.CatalogueTooLarge: see there.
    """
    algorithm = recipe.make()
    algorithm.fit(train.positives, train.ages if algorithm.looks_at_ages else None, after_round)
    return algorithm


def rank(model: Model, split: Split, histories: sparse.csr_matrix, k: int = RECALL_K) -> Ranking:
    """Judge the lists that `model` makes of `histories`, by the function that makes the served ones.

    Args:
        model: fitted on `split.train`.
        split: whose hold-out is asked for.
        histories: (people, items) CSR, rows as in the split.
        k: list length.
    """
    return judge(lists(model, split, histories, k)[0], split)


def lists(model: Model, split: Split, histories: sparse.csr_matrix, k: int) -> tuple[Indices, Scores]:
    """(people, k) item indices, best first, padded with -1, and their scores: what `model` makes of `histories`."""
    popularity = split.train.popularity
    popular = np.lexsort((np.arange(len(popularity)), -popularity)).astype(np.int32)
    batches = [histories[start : start + BATCH] for start in range(0, histories.shape[0], BATCH)]
    made = [recommend(model, popular, batch, k) for batch in batches]
    return np.vstack([indices for indices, _ in made]), np.vstack([scores for _, scores in made])


def judge(indices: Indices, split: Split) -> Ranking:
    """Set (people, k) lists beside what was held out."""
    wanted = np.diff(split.held_out.indptr).astype(np.int64)
    train = split.train
    return Ranking(indices, hit_matrix(indices, split.held_out), wanted, train.popularity, len(train.users))
