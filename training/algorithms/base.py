"""The one interface of every algorithm: fitted on `user_items`, it turns histories into ranked lists."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from training.bundle import Indices, Scores

CELLS = 16_000_000
"""Scores that are held in memory at once: 64 MB."""
AfterRound = Callable[["Algorithm", int], None]
"""Called after each round of fitting with the algorithm as it is then and the number of rounds so far, from 1 on.

What it is given is good until it returns.
"""
NOTHING = -np.finfo(np.float32).max
"""At or below this score there is no recommendation: `implicit` marks held items and padding with it."""


class CatalogueTooLarge(ValueError):
    """There are more items than the algorithm can be fitted on; the message names the limit and what to use instead."""


class Algorithm(ABC):
    """A recommender. Its parameters are its constructor's keyword arguments; what it learns are item-side arrays.

    Fitting is deterministic: the same matrix and the same parameters give the same arrays, bit by bit.
    """

    name: ClassVar[str]
    least: ClassVar[float] = -np.inf
    """Items that score this or less are not recommended."""

    @abstractmethod
    def fit(
        self,
        user_items: sparse.csr_matrix,
        ages: npt.NDArray[np.float32] | None = None,
        after_round: AfterRound | None = None,
    ) -> None:
        """Learn from histories.

        Args:
            user_items: (users, items) CSR, float32, rows in canonical order; values are weights, all above 0.
            ages: (nnz,) days before the newest interaction of all, aligned with the values; None: not known.
            after_round: called by algorithms that fit in rounds; what it raises ends the fitting.

        Raises:
            CatalogueTooLarge: the algorithm is not made for so many items.
        """

    @abstractmethod
    def scores(self, user_items: sparse.csr_matrix) -> Scores:
        """(rows, items) float32: what each item is worth to each row, held items too; larger is better."""

    def recommend(self, user_items: sparse.csr_matrix, k: int) -> tuple[Indices, Scores]:
        """Best items of each row that the row does not hold: see `training.bundle.Model`."""
        indices, scores = no_lists(user_items.shape[0], k)
        step = max(1, CELLS // max(1, user_items.shape[1]))
        for start in range(0, user_items.shape[0], step):
            rows = slice(start, start + step)
            indices[rows], scores[rows] = best(self.scores(user_items[rows]), user_items[rows], k, self.least)
        return indices, scores

    @abstractmethod
    def contributions(self, user_items: sparse.csr_matrix, item_index: int) -> Scores:
        """What each item of one history adds to the score of an item: see `training.bundle.Model`."""

    @abstractmethod
    def similar_items(self, item_index: int, k: int) -> tuple[Indices, Scores]:
        """The items most like this one: see `training.bundle.Model`."""

    @property
    def looks_at_ages(self) -> bool:
        """Whether it makes a difference to `fit` how old the interactions are."""
        return False

    @property
    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON values."""

    @abstractmethod
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What was learnt, for the bundle: no Python objects, no person."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, parameters: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The fitted algorithm that `arrays` came from."""


def no_lists(rows: int, k: int) -> tuple[Indices, Scores]:
    """Lists that are all padding, (rows, k), to be filled in."""
    return np.full((rows, k), -1, np.int32), np.full((rows, k), -np.inf, np.float32)


def best(scores: Scores, held: sparse.csr_matrix, k: int, least: float = -np.inf) -> tuple[Indices, Scores]:
    """Lists of length `k` from the scores of all items, which are overwritten.

    Args:
        scores: (rows, items).
        held: (rows, items) CSR: what must not be listed.
        k: list length.
        least: items that score this or less are not listed.

    Returns:
        item indices (rows, k), best first, of two as good the lower index, padded with -1; their scores. Where all
        scores are 0 nothing is known, and the list is empty.
    """
    indices, listed = no_lists(len(scores), k)
    for row, values in enumerate(scores):
        values[held.indices[held.indptr[row] : held.indptr[row + 1]]] = -np.inf
        found = np.flatnonzero(values > least)
        if not values[found].any():
            continue
        # What is as good as the last place stays in, in the order of the items, which a stable sort keeps.
        if len(found) > k:
            found = found[values[found] >= np.partition(values[found], len(found) - k)[len(found) - k]]
        found = found[np.argsort(-values[found], kind="stable")[:k]]
        indices[row, : len(found)], listed[row, : len(found)] = found, values[found]
    return indices, listed


def padded(found: Indices, found_scores: Scores, k: int) -> tuple[Indices, Scores]:
    """Lists of length `k` from (rows, any) lists, best first, that say `NOTHING` where they end.

    Where all scores are 0 nothing is known, and the list is empty.
    """
    indices, scores = no_lists(len(found), k)
    width = min(k, found.shape[1])
    real = (found_scores[:, :width] > NOTHING) & found_scores[:, :width].any(axis=1, keepdims=True)
    indices[:, :width][real] = found[:, :width][real]
    scores[:, :width][real] = found_scores[:, :width][real]
    return indices, scores


def most_similar(item_index: int, found: Indices, found_scores: Scores, k: int) -> tuple[Indices, Scores]:
    """Of the items found, best first, the `k` best that are alike at all and not the item itself."""
    keep = np.flatnonzero((found != item_index) & (found_scores > 0))[:k]
    return found[keep].astype(np.int32), found_scores[keep].astype(np.float32)
