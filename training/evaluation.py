"""How well lists guess what was held out: full catalogue, by the function that makes the served lists."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from training.algorithms.base import AfterRound, Algorithm
from training.bundle import Indices, Model, Scores, recommend
from training.interactions import Interactions
from training.recipe import Recipe
from training.split import Split

K = 10
RECALL_K = 20
BATCH = 1000


@dataclass(frozen=True)
class Ranking:
    """What one model recommends to the people of a hold-out, and which of it they took up.

    Attributes:
        lists: (people, k) item indices, best first, padded with -1.
        hits: (people, k) whether each place is one of the held-out items.
        wanted: (people,) number of held-out items.
        popularity: (items,) number of people who have the item, as training knew it.
        trained: number of people that were trained on.
    """

    lists: Indices
    hits: npt.NDArray[np.bool_]
    wanted: npt.NDArray[np.int64]
    popularity: Scores
    trained: int

    def ndcg(self, k: int = K) -> npt.NDArray[np.float64]:
        """(people,) nDCG@k: 1 when the places begin with what was held out, less the lower it stands."""
        return ndcg(self.hits[:, :k], self.wanted)

    def recall(self, k: int = RECALL_K) -> npt.NDArray[np.float64]:
        """(people,) share of the held-out items that are among the first k."""
        return recall(self.hits[:, :k], self.wanted)

    def coverage(self, k: int = K) -> float:
        """Share of the catalogue that is in anybody's first k."""
        return coverage(self.lists[:, :k], len(self.popularity))

    def novelty(self, k: int = K) -> float:
        """Mean surprise of the first k, in bits: minus log2 of the share of people who have the item."""
        return novelty(self.lists[:, :k], self.popularity, self.trained)

    def figures(self, prefix: str = "") -> dict[str, float]:
        """Means over the people by name, for the registry and the metrics."""
        return {
            f"{prefix}ndcg_at_10": float(self.ndcg().mean()),
            f"{prefix}recall_at_20": float(self.recall().mean()),
            f"{prefix}coverage_at_10": self.coverage(),
            f"{prefix}novelty_at_10": self.novelty(),
        }


@dataclass(frozen=True)
class Evaluation:
    """One model on one split: with the histories training knew, and with the newest."""

    stale: Ranking
    fresh: Ranking


def evaluate(recipe: Recipe, split: Split) -> Evaluation:
    """Fit a recipe on what happened before the cut, and judge it by both histories."""
    model = fit(recipe, split.train)
    return Evaluation(*(rank(model, split, known.weighted(recipe.recency)) for known in (split.stale, split.fresh)))


def fit(recipe: Recipe, train: Interactions, after_round: AfterRound | None = None) -> Algorithm:
    """The recipe's algorithm, fitted on these interactions and nothing else.

    Raises:
        training.algorithms.base.CatalogueTooLarge: see there.
    """
    algorithm = recipe.make()
    algorithm.fit(train.positives, train.ages, after_round)
    return algorithm


def rank(model: Model, split: Split, histories: sparse.csr_matrix, k: int = RECALL_K) -> Ranking:
    """Judge the lists that `model` makes of `histories`, by the function that makes the served ones.

    Args:
        model: fitted on `split.train`.
        split: whose hold-out is asked for.
        histories: (people, items) CSR, rows as in the split.
        k: list length.
    """
    popularity = split.train.popularity
    popular = np.lexsort((np.arange(len(popularity)), -popularity)).astype(np.int32)
    lists = np.vstack(
        [
            recommend(model, popular, histories[start : start + BATCH], k)[0]
            for start in range(0, histories.shape[0], BATCH)
        ]
    )
    wanted = np.diff(split.held_out.indptr).astype(np.int64)
    return Ranking(lists, hit_matrix(lists, split.held_out), wanted, popularity, len(split.train.users))


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
