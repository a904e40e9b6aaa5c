"""Lists and what people took up of them: how good the lists are, and what they do to the catalogue.

With every metric stands the paper that it is defined after. `k` is the number of places that are looked at.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from training.bundle import Indices, Scores

K = 10
RECALL_K = 20

Hits = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """What one model recommends to the people of a hold-out, and which of it they took up.

    Attributes:
        lists: (people, k) item indices, best first, padded with -1.
        hits: (people, k) whether each place is one of the held-out items.
        wanted: (people,) number of held-out items, 1 or more; those that training never met are counted too.
        popularity: (items,) number of people who have the item, as training knew it.
        trained: number of people that were trained on.
    """

    lists: Indices
    hits: Hits
    wanted: npt.NDArray[np.int64]
    popularity: Scores
    trained: int

    def ndcg(self, k: int = K) -> Floats:
        """(people,) nDCG@k: 1 when the places begin with what was held out, less the lower it stands."""
        return ndcg(self.hits[:, :k], self.wanted)

    def recall(self, k: int = RECALL_K) -> Floats:
        """(people,) share of the held-out items that are among the first k."""
        return recall(self.hits[:, :k], self.wanted)

    def capped_recall(self, k: int = RECALL_K) -> Floats:
        """(people,) hits as a share of the most that k places can hold."""
        return capped_recall(self.hits[:, :k], self.wanted)

    def average_precision(self, k: int = K) -> Floats:
        """(people,) average precision; its mean over the people is MAP@k."""
        return average_precision(self.hits[:, :k], self.wanted)

    def reciprocal_rank(self, k: int = K) -> Floats:
        """(people,) 1 / place of the first hit; its mean over the people is MRR@k."""
        return reciprocal_rank(self.hits[:, :k])

    def coverage(self, k: int = K) -> float:
        """Share of the catalogue that is in anybody's first k."""
        return float(coverage(exposure(self.lists[:, :k], len(self.popularity))))

    def gini(self, k: int = K) -> float:
        """How unequally the first k places are shared out among the items: 0 evenly, 1 all to one."""
        return float(gini(exposure(self.lists[:, :k], len(self.popularity))))

    def novelty(self, k: int = K) -> float:
        """Mean surprise of the first k, in bits: see `surprise`."""
        return mean_of_listed(self.lists[:, :k], surprise(self.popularity, self.trained))

    def mean_popularity(self, k: int = K) -> float:
        """Popularity bias of the first k: see `shares`."""
        return mean_of_listed(self.lists[:, :k], shares(self.popularity, self.trained))

    def figures(self, prefix: str = "") -> dict[str, float]:
        """Means over the people by name, for the registry and the metrics."""
        return {
            f"{prefix}ndcg_at_10": float(self.ndcg().mean()),
            f"{prefix}recall_at_20": float(self.recall().mean()),
            f"{prefix}coverage_at_10": self.coverage(),
            f"{prefix}novelty_at_10": self.novelty(),
        }


def hit_matrix(lists: Indices, held_out: sparse.csr_matrix) -> Hits:
    """(people, k) whether each place of each list is one of the held-out items. Padding is not.

    Args:
        lists: (people, k) item indices, padded with -1.
        held_out: (people, items) CSR.
    """
    people, width = held_out.shape
    first = np.arange(people, dtype=np.int64)[:, None] * width
    wanted = np.repeat(first[:, 0], np.diff(held_out.indptr)) + held_out.indices
    return np.isin(lists + first, wanted, assume_unique=False) & (lists >= 0)


# --- one value a person ----------------------------------------------------------------------------------------------


def ndcg(hits: Hits, wanted: npt.NDArray[np.integer]) -> Floats:
    """(people,) nDCG@k (Järvelin and Kekäläinen 2002): each hit counts 1 / log2(1 + place), over the best possible sum.

    The best list has min(k, held-out items) hits in its first places.

    >>> ndcg(np.array([[True, False], [False, True]]), np.array([1, 1])).round(3).tolist()
    [1.0, 0.631]
    """
    discounts = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    best = np.cumsum(discounts)[np.minimum(wanted, hits.shape[1]) - 1]
    return np.asarray((hits @ discounts) / best)


def recall(hits: Hits, wanted: npt.NDArray[np.integer]) -> Floats:
    """(people,) share of the held-out items that are in the list: recall of LightGCN (He et al. 2020) and most others.

    >>> recall(np.array([[True, False]]), np.array([4])).tolist()
    [0.25]
    """
    return np.asarray(hits.sum(axis=1) / wanted)


def capped_recall(hits: Hits, wanted: npt.NDArray[np.integer]) -> Floats:
    """(people,) hits / min(k, held-out items): recall of Mult-VAE (Liang et al. 2018); a perfect list reaches 1.

    >>> capped_recall(np.array([[True, False]]), np.array([4])).tolist()
    [0.5]
    """
    return np.asarray(hits.sum(axis=1) / np.minimum(wanted, hits.shape[1]))


def average_precision(hits: Hits, wanted: npt.NDArray[np.integer]) -> Floats:
    """(people,) the precision at each hit, summed, over min(k, held-out items) (Manning et al. 2008, section 8.4).

    Some libraries divide by all held-out items instead: there, k places cannot reach 1 for who has more than k.

    >>> average_precision(np.array([[True, False, True]]), np.array([2])).round(3).tolist()
    [0.833]
    """
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return np.asarray((precision * hits).sum(axis=1) / np.minimum(wanted, hits.shape[1]))


def reciprocal_rank(hits: Hits) -> Floats:
    """(people,) 1 / place of the first hit, 0 without one (Voorhees 1999).

    >>> reciprocal_rank(np.array([[False, True], [False, False]])).tolist()
    [0.5, 0.0]
    """
    return np.where(hits.any(axis=1), 1 / (1 + hits.argmax(axis=1)), 0.0)


# --- one value for all lists -----------------------------------------------------------------------------------------


def exposure(lists: Indices, items: int) -> npt.NDArray[np.int64]:
    """(items,) in how many lists each item is."""
    return np.bincount(lists[lists >= 0], minlength=items)


def coverage(exposed: npt.NDArray[np.integer]) -> Floats:
    """(...) share of the items that are in any list (Ge, Delgado-Battenfeld and Jannach 2010), of (..., items).

    >>> float(coverage(np.array([2, 1, 0, 0])))
    0.5
    """
    return np.asarray((exposed > 0).mean(axis=-1))


def gini(exposed: npt.NDArray[np.integer]) -> Floats:
    """(...) Gini index of exposure (Fleder and Hosanagar 2009), of (..., items), items that nobody is shown included.

    >>> gini(np.array([[5, 5, 5, 5], [0, 0, 0, 8]])).tolist()
    [0.0, 0.75]
    """
    items = exposed.shape[-1]
    weights = 2.0 * np.arange(1, items + 1) - items - 1
    total = np.maximum(exposed.sum(axis=-1, dtype=np.int64), 1)
    return np.asarray(np.sort(exposed, axis=-1) @ weights / (items * total))


def surprise(popularity: Scores, people: int) -> Floats:
    """(items,) -log2 of the share of people who have the item, in bits; one person is added to each count.

    Its mean over what is listed is novelty (mean self-information: Zhou et al. 2010; Vargas and Castells 2011).

    >>> surprise(np.array([7, 1, 0], np.float32), 7).tolist()
    [0.0, 2.0, 3.0]
    """
    return 0.0 - np.log2((popularity.astype(np.float64) + 1) / (people + 1))


def shares(popularity: Scores, people: int) -> Floats:
    """(items,) share of the people trained on who have the item.

    Its mean over what is listed is the average recommendation popularity (Yin et al. 2012; Abdollahpouri, Burke and
    Mobasher 2019), as a share, so that data sets of different sizes can be compared: the higher, the more popular the
    items that are recommended.
    """
    return popularity.astype(np.float64) / max(people, 1)


def mean_of_listed(lists: Indices, values: Floats) -> float:
    """The mean of the items' values over all that was listed; 0 where nothing was.

    >>> mean_of_listed(np.array([[0, 1], [1, -1]]), np.array([2.0, 5.0]))
    4.0
    """
    listed = lists[lists >= 0]
    return float(values[listed].mean()) if len(listed) else 0.0
