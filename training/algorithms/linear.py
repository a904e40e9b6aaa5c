"""Algorithms that are a matrix: each item of a history adds its weights to the scores of the others."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from implicit.nearest_neighbours import all_pairs_knn
from scipy import sparse

from training.algorithms.base import CELLS, Algorithm, most_similar
from training.bundle import Indices, Scores

DENSE = 0.05
"""Share of weights above 0 from which on a dense matrix is multiplied faster than a sparse one."""


class Linear(Algorithm):
    """Scores are the history times (items, items) weights: an item's row says what it adds to each of the others."""

    least = 0.0

    def __init__(self) -> None:
        self._weights: sparse.csr_matrix | Scores = np.zeros((0, 0), np.float32)

    def scores(self, user_items: sparse.csr_matrix) -> Scores:
        """The sums of the held items' weights."""
        return self._sums(user_items)

    def contributions(self, user_items: sparse.csr_matrix, item_index: int) -> Scores:
        """Each item's weight for the one that is explained, times its value. They sum to the score."""
        weights = self._weights[user_items.indices, np.full(user_items.nnz, item_index)]
        return np.asarray(user_items.data * np.ravel(weights), np.float32)

    def similar_items(self, item_index: int, k: int) -> tuple[Indices, Scores]:
        """The items that this one speaks for, the most first."""
        held = ([np.float32(1)], [item_index], [0, 1])
        values = self._sums(sparse.csr_matrix(held, shape=(1, self._weights.shape[0])))[0]
        found = np.flatnonzero(values > 0)
        found = found[np.argsort(-values[found], kind="stable")]
        return most_similar(item_index, found.astype(np.int32), values[found], k)

    def _sums(self, user_items: sparse.csr_matrix) -> Scores:
        sums = user_items @ self._weights
        return np.asarray(sums.toarray() if sparse.issparse(sums) else sums, np.float32)


class Neighbours(Linear):
    """A linear algorithm that keeps a few weights of each item."""

    def __init__(self) -> None:
        super().__init__()
        self._learn(sparse.csr_matrix(np.zeros((0, 0), np.float32)))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The weights, (items, items), as the parts of a CSR matrix: `data`, `indices`, `indptr`."""
        narrow = np.min_scalar_type(max(self._kept.shape[1] - 1, 0))
        return {"data": self._kept.data, "indices": self._kept.indices.astype(narrow), "indptr": self._kept.indptr}

    @classmethod
    def from_arrays(cls, parameters: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The model with these weights."""
        model = cls(**parameters)
        model._load(arrays)
        return model

    def _load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        items = len(arrays["indptr"]) - 1
        self._learn(sparse.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=(items, items)))

    def _learn(self, weights: sparse.csr_matrix) -> None:
        cells = weights.shape[0] * weights.shape[1]
        self._kept = weights
        self._weights = weights.toarray() if cells <= CELLS and weights.nnz > DENSE * cells else weights


def nearest(weighted: sparse.csr_matrix, neighbours: int) -> sparse.csr_matrix:
    """The largest inner products of every item's column with all columns, itself among them.

    Args:
        weighted: (users, items) CSR, all above 0.
        neighbours: how many are kept of each item.

    Returns:
        (items, items) CSR, float32, in canonical order.
    """
    kept = min(neighbours, weighted.shape[1])
    products = sparse.csr_matrix(
        all_pairs_knn(weighted.astype(np.float64), kept, show_progress=False), dtype=np.float32
    )
    products.eliminate_zeros()
    return products
