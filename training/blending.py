"""Which models to blend, and how much each should weigh: found on their scores, without asking them again."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from training.algorithms.base import CELLS, Algorithm
from training.algorithms.blend import normalised
from training.bundle import Scores
from training.panel import gain
from training.ranking import Floats, K, ndcg
from training.recency import Recency
from training.split import Split

CANDIDATES = 150
"""Items of each model that its blends can list. Their first ten hardly ever come from further down."""
MOST_PARTS = 3
MARGIN = 0.004
"""A part is added where it raises nDCG@10 by this share: it has to be fitted, stored and asked for every list."""
SHARES = np.arange(0.1, 0.75, 0.1)


class Scored(NamedTuple):
    """Normalised scores of several models for the items that any of them has high in its list.

    Attributes:
        scores: (models, people, candidates) float32; -inf pads people with fewer candidates.
        hits: (people, candidates) whether the item is held out.
        wanted: (people,) number of held-out items.
    """

    scores: Scores
    hits: npt.NDArray[np.bool_]
    wanted: npt.NDArray[np.int64]

    def ndcg(self, weights: Sequence[float]) -> Floats:
        """(people,) nDCG@10 of the blend with these weights; 0 leaves a model out."""
        total = np.zeros(self.hits.shape, np.float32)
        for weight, scores in zip(weights, self.scores, strict=True):
            if weight:
                total += np.float32(weight) * scores
        top = np.argpartition(-total, K - 1, axis=1)[:, :K]
        order = np.argsort(-np.take_along_axis(total, top, axis=1), axis=1, kind="stable")
        listed = np.take_along_axis(top, order, axis=1)
        return ndcg(np.take_along_axis(self.hits, listed, axis=1), self.wanted)


def score(models: Sequence[Algorithm], split: Split, recency: Recency) -> Scored:
    """Ask every model about every person once, a few people at a time.

    Args:
        models: fitted on `split.train`.
        split: whose people are asked about.
        recency: that their fresh histories are weighed by.
    """
    histories, items = split.fresh.weighted(recency), split.fresh.user_items.shape[1]
    step = max(1, CELLS // max(1, items * len(models)))
    parts = [
        _candidates(models, histories[start : start + step], split.held_out[start : start + step, :items])
        for start in range(0, histories.shape[0], step)
    ]
    width = max(K, *(hits.shape[1] for _, hits in parts))
    scores = np.concatenate([_wide(found, width, -np.inf) for found, _ in parts], axis=1)
    hits = np.concatenate([_wide(found, width, False) for _, found in parts])
    return Scored(scores, hits, np.diff(split.held_out.indptr).astype(np.int64))


def best_weights(scored: Scored) -> list[float]:
    """A weight for each model, 0 for those that are not worth their place; they sum to 1.

    It starts from the best model and adds, one at a time, the one that gains most.
    """
    models = range(len(scored.scores))
    weights = max((list(np.eye(len(models))[place]) for place in models), key=lambda one: scored.ndcg(one).mean())
    while sum(weight > 0 for weight in weights) < min(MOST_PARTS, len(models)):
        tried = [_added(weights, place, share) for place in models if not weights[place] for share in SHARES]
        more = max(tried, key=lambda one: scored.ndcg(one).mean())
        before, after = scored.ndcg(weights), scored.ndcg(more)
        gained = gain(after, before)
        if not gained.certain or gained.mean < MARGIN * before.mean():
            break
        weights = _polished(scored, more)
    return weights


def _polished(scored: Scored, weights: list[float]) -> list[float]:
    """Each part's share moved by a twentieth as long as that helps."""
    value = scored.ndcg(weights).mean()
    moved = True
    while moved:
        moved = False
        for place, weight in enumerate(weights):
            for share in (weight - 0.05, weight + 0.05) if weight else ():
                if (
                    0.04 < share < 0.96
                    and (found := scored.ndcg(other := _added(weights, place, share)).mean()) > value
                ):
                    value, weights, moved = found, other, True
    return weights


def _added(weights: list[float], place: int, share: float) -> list[float]:
    """The weights with this share for one, and the rest shared out as before."""
    others = 1 - weights[place]
    return [round(share if at == place else weight * (1 - share) / others, 3) for at, weight in enumerate(weights)]


def _candidates(
    models: Sequence[Algorithm], histories: sparse.csr_matrix, held_out: sparse.csr_matrix
) -> tuple[Scores, npt.NDArray[np.bool_]]:
    """(models, people, candidates) scores and (people, candidates) hits."""
    people, items = histories.shape
    rows = np.repeat(np.arange(people), np.diff(histories.indptr))
    asked = histories.copy()
    asked.eliminate_zeros()
    every = np.empty((len(models), people, items), np.float32)
    chosen = np.zeros((people, items), bool)
    for place, model in enumerate(models):
        every[place] = normalised(model.scores(asked), asked, "standardised")
        every[place][rows, histories.indices] = -np.inf
        top = np.argpartition(-every[place], min(CANDIDATES, items) - 1, axis=1)[:, :CANDIDATES]
        np.put_along_axis(chosen, top, True, axis=1)
    width = int(chosen.sum(axis=1).max())
    columns = np.argsort(~chosen, axis=1, kind="stable")[:, :width]
    scores = np.take_along_axis(every, columns[None], axis=2)
    return scores, np.take_along_axis(held_out.toarray() > 0, columns, axis=1)


def _wide(values: npt.NDArray[np.generic], width: int, padding: float) -> npt.NDArray[np.generic]:
    """The same with the last axis `width` long."""
    missing = [(0, 0)] * (values.ndim - 1) + [(0, width - values.shape[-1])]
    return np.pad(values, missing, constant_values=padding)
