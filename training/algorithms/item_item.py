"""Item to item: neighbours (Sarwar et al. 2001; Deshpande and Karypis 2004), by `implicit`."""

from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from implicit.nearest_neighbours import ItemItemRecommender, NearestNeighboursScorer, bm25_weight, tfidf_weight
from scipy import sparse

from training.algorithms.base import AfterRound, Algorithm, most_similar, no_lists
from training.bundle import Indices, Scores

Weighting = Literal["cosine", "tfidf", "bm25"]
SMALLEST = 1e-6


class ItemItem(Algorithm):
    """Items beside their nearest neighbours: who has these, also has those.

    Args:
        weighting: what makes people's rows comparable before items are compared.
        neighbours: how many neighbours are kept of each item.
    """

    name = "item_item"
    least = 0.0

    def __init__(self, weighting: Weighting = "tfidf", neighbours: int = 100) -> None:
        self._weighting: Weighting = weighting
        self._neighbours = neighbours
        self._learn(sparse.csr_matrix(np.zeros((0, 0), np.float32)))

    def fit(
        self,
        user_items: sparse.csr_matrix,
        ages: npt.NDArray[np.float32] | None = None,
        after_round: AfterRound | None = None,
    ) -> None:
        """Compare every two items that somebody has both of."""
        knn = ItemItemRecommender(K=min(self._neighbours, user_items.shape[1]))
        knn.fit(_weighted(user_items, self._weighting), show_progress=False)
        similarity = knn.similarity.astype(np.float32)
        similarity.eliminate_zeros()
        similarity.sort_indices()
        self._learn(similarity)

    def scores(self, user_items: sparse.csr_matrix) -> Scores:
        """The sums of likenesses."""
        return np.asarray((user_items @ self._similarity).toarray(), np.float32)

    def recommend(self, user_items: sparse.csr_matrix, k: int) -> tuple[Indices, Scores]:
        """Items that are neighbours of what the row holds, by the sum of likenesses."""
        indices, scores = no_lists(user_items.shape[0], k)
        for row in range(user_items.shape[0]):
            bounds = user_items.indptr[row : row + 2]
            found, values = self._scorer.recommend(bounds, user_items.indices, user_items.data, K=k)
            # The scorer keeps held items, at zero.
            best = np.flatnonzero(values > 0)
            indices[row, : len(best)], scores[row, : len(best)] = found[best], values[best]
        return indices, scores

    def contributions(self, user_items: sparse.csr_matrix, item_index: int) -> Scores:
        """Each item's likeness to the one that is explained, times its weight."""
        raise NotImplementedError

    def similar_items(self, item_index: int, k: int) -> tuple[Indices, Scores]:
        """The item's neighbours."""
        bounds = slice(self._similarity.indptr[item_index], self._similarity.indptr[item_index + 1])
        found, values = self._similarity.indices[bounds], self._similarity.data[bounds]
        order = np.lexsort((found, -values))
        return most_similar(item_index, found[order], values[order], k)

    @property
    def parameters(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"weighting": self._weighting, "neighbours": self._neighbours}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The likenesses, (items, items), as the parts of a CSR matrix: `data`, `indices`, `indptr`."""
        return {part: getattr(self._similarity, part) for part in ("data", "indices", "indptr")}

    @classmethod
    def from_arrays(cls, parameters: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The model with these likenesses."""
        model = cls(**parameters)
        items = len(arrays["indptr"]) - 1
        model._learn(sparse.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=(items, items)))
        return model

    def _learn(self, similarity: sparse.csr_matrix) -> None:
        self._similarity = similarity
        self._scorer = NearestNeighboursScorer(similarity)


def _weighted(user_items: sparse.csr_matrix, weighting: Weighting) -> sparse.csr_matrix:
    """(users, items) CSR, float64: weighted, and its items made of length 1 where the weighting asks for that."""
    item_users = user_items.T.tocoo().astype(np.float64)
    if weighting == "tfidf":
        item_users = tfidf_weight(item_users)
    elif weighting == "bm25":
        item_users = bm25_weight(item_users, K1=1.2, B=0.75)
    # Both are zero or less for a person who has nearly every item: that person says next to nothing, not the contrary.
    item_users.data = np.maximum(item_users.data, SMALLEST)
    if weighting != "bm25":
        lengths = np.sqrt(np.bincount(item_users.row, item_users.data**2))
        item_users.data = item_users.data / lengths[item_users.row]
    return sparse.csr_matrix(item_users.T)
