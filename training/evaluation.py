"""How well lists guess what was held out: full catalogue, by the function that makes the served lists."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from training.algorithms.base import Algorithm
from training.algorithms.popularity import Popularity
from training.bundle import Indices, Model, recommend
from training.split import Split

K = 10
RECALL_K = 20
BATCH = 1000


@dataclass(frozen=True)
class Quality:
    """What one way of recommending is worth; means over the people judged.

    Attributes:
        ndcg_at_10: 1 when the ten places begin with what was held out, less the lower it stands.
        recall_at_20: share of the held-out items that are among the first twenty.
        coverage_at_10: share of the catalogue that is in anybody's first ten.
        novelty_at_10: mean surprise of the first ten, in bits: minus log2 of the share of people who have the item.
    """

    ndcg_at_10: float
    recall_at_20: float
    coverage_at_10: float
    novelty_at_10: float

    def named(self, prefix: str) -> dict[str, float]:
        """Its figures by name, for the registry and the metrics."""
        return {f"{prefix}{name}": value for name, value in vars(self).items()}


@dataclass(frozen=True)
class Evaluation:
    """One model on one split: with the histories training knew, and with the newest."""

    stale: Quality
    fresh: Quality


def evaluate(model: Model, split: Split) -> Evaluation:
    """Judge a model that was fitted on `split.train` by both histories."""
    return Evaluation(judge(model, split, split.stale), judge(model, split, split.fresh))


def evaluate_popularity(split: Split) -> Evaluation:
    """Judge the same list for everybody: what is popular before the cut."""
    return evaluate(fit(Popularity(), split), split)


def fit(algorithm: Algorithm, split: Split) -> Algorithm:
    """The algorithm, fitted on what happened before the cut and nothing else."""
    algorithm.fit(split.train.positives)
    return algorithm


def judge(model: Model, split: Split, histories: sparse.csr_matrix) -> Quality:
    """Judge the lists that `model` makes of `histories`.

    Args:
        histories: (people, items) CSR, rows as in the split.
    """
    popularity = split.train.popularity
    popular = np.lexsort((np.arange(len(popularity)), -popularity)).astype(np.int32)
    lists = np.vstack(
        [
            recommend(model, popular, histories[start : start + BATCH], RECALL_K)[0]
            for start in range(0, histories.shape[0], BATCH)
        ]
    )
    hits = hit_matrix(lists, split.held_out)
    wanted = np.diff(split.held_out.indptr)
    return Quality(
        float(ndcg(hits[:, :K], wanted).mean()),
        float(recall(hits, wanted).mean()),
        coverage(lists[:, :K], len(popularity)),
        novelty(lists[:, :K], popularity, len(split.train.users)),
    )


def hit_matrix(lists: Indices, held_out: sparse.csr_matrix) -> npt.NDArray[np.bool_]:
    """(people, k) whether each place of each list is one of the held-out items. Padding is not."""
    bounds = zip(held_out.indptr[:-1], held_out.indptr[1:], strict=True)
    return np.array(
        [np.isin(row, held_out.indices[start:end]) for row, (start, end) in zip(lists, bounds, strict=True)]
    )


def ndcg(hits: npt.NDArray[np.bool_], wanted: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """(people,) nDCG@k: each hit counts 1 / log2(1 + place), divided by the sum of the best possible list.

    >>> ndcg(np.array([[True, False], [False, True]]), np.array([1, 1])).round(3).tolist()
    [1.0, 0.631]
    """
    discounts = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    best = np.cumsum(discounts)[np.minimum(wanted, hits.shape[1]) - 1]
    return np.asarray((hits @ discounts) / best)


def recall(hits: npt.NDArray[np.bool_], wanted: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """(people,) share of the held-out items that are in the list.

    >>> recall(np.array([[True, False]]), np.array([4])).tolist()
    [0.25]
    """
    return np.asarray(hits.sum(axis=1) / wanted)


def coverage(lists: Indices, items: int) -> float:
    """Share of the catalogue that is in any list."""
    return len(np.unique(lists[lists >= 0])) / items


def novelty(lists: Indices, popularity: npt.NDArray[np.float32], people: int) -> float:
    """Mean of -log2(share of people who have the item) over all that was listed; one person is added to each count."""
    listed = lists[lists >= 0]
    if not len(listed):
        return 0.0
    return float(np.mean(-np.log2((popularity[listed] + 1.0) / (people + 1.0))))
