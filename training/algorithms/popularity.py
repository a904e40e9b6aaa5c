"""The same for everybody: what most people have. What every other algorithm has to beat."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from training.algorithms.base import AfterRound, Algorithm, no_lists
from training.algorithms.parameters import positive
from training.bundle import Indices, Scores


class Popularity(Algorithm):
    """Items by the number of people who have them; of two as popular the lower index goes first.

    Args:
        half_life_days: age at which an interaction counts half; None: all count the same.
    """

    name = "popularity"

    def __init__(self, half_life_days: float | None = None) -> None:
        if half_life_days is not None:
            positive(half_life_days=half_life_days)
        self._half_life_days = half_life_days
        self._popularity: Scores = np.zeros(0, np.float32)
        self._order: Indices = np.zeros(0, np.int32)

    def fit(
        self,
        user_items: sparse.csr_matrix,
        ages: npt.NDArray[np.float32] | None = None,
        after_round: AfterRound | None = None,
    ) -> None:
        """Count each item's people, older interactions for less. Where no ages are known, all count the same."""
        worth = None if ages is None or self._half_life_days is None else np.exp2(-ages / self._half_life_days)
        self._learn(np.bincount(user_items.indices, worth, user_items.shape[1]).astype(np.float32))

    def scores(self, user_items: sparse.csr_matrix) -> Scores:
        """The popularity of every item, in every row."""
        return np.tile(self._popularity, (user_items.shape[0], 1))

    def recommend(self, user_items: sparse.csr_matrix, k: int) -> tuple[Indices, Scores]:
        """The most popular items that the row does not hold."""
        indices, scores = no_lists(user_items.shape[0], k)
        for row in range(user_items.shape[0]):
            held = user_items.indices[user_items.indptr[row] : user_items.indptr[row + 1]]
            head = self._order[: k + len(held)]
            best = head[~np.isin(head, held)][:k]
            indices[row, : len(best)], scores[row, : len(best)] = best, self._popularity[best]
        return indices, scores

    def contributions(self, user_items: sparse.csr_matrix, item_index: int) -> Scores:
        """All 0: popularity does not look at the history."""
        return np.zeros(user_items.nnz, np.float32)

    def similar_items(self, item_index: int, k: int) -> tuple[Indices, Scores]:
        """None: popularity does not know what is alike."""
        return np.zeros(0, np.int32), np.zeros(0, np.float32)

    @property
    def looks_at_ages(self) -> bool:
        """Where older interactions count for less."""
        return self._half_life_days is not None

    @property
    def parameters(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"half_life_days": self._half_life_days}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """`popularity`: (items,) float32."""
        return {"popularity": self._popularity}

    @classmethod
    def from_arrays(cls, parameters: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The popularity that was counted."""
        popularity = cls(**parameters)
        popularity._learn(arrays["popularity"])
        return popularity

    def _learn(self, popularity: Scores) -> None:
        self._popularity = popularity
        self._order = np.lexsort((np.arange(len(popularity)), -popularity)).astype(np.int32)
