"""The one interface of every algorithm: fitted on `user_items`, it turns histories into ranked lists."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from training.bundle import Indices, Scores

NOTHING = -np.finfo(np.float32).max
"""At or below this score there is no recommendation: `implicit` marks held items and padding with it."""


class Algorithm(ABC):
    """A recommender. Its parameters are its constructor's keyword arguments; what it learns are item-side arrays.

    Fitting is deterministic: the same matrix and the same parameters give the same arrays, bit by bit.
    """

    name: ClassVar[str]

    @abstractmethod
    def fit(self, user_items: sparse.csr_matrix) -> None:
        """Learn from histories.

        Args:
            user_items: (users, items) CSR, float32, rows in canonical order; values are weights, all above 0.
        """

    @abstractmethod
    def recommend(self, user_items: sparse.csr_matrix, k: int) -> tuple[Indices, Scores]:
        """Best items of each row that the row does not hold: see `training.bundle.Model`."""

    @abstractmethod
    def similar_items(self, item_index: int, k: int) -> tuple[Indices, Scores]:
        """The items most like this one: see `training.bundle.Model`."""

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


def padded(found: Indices, found_scores: Scores, k: int) -> tuple[Indices, Scores]:
    """Lists of length `k` from (rows, any) lists, best first, that say `NOTHING` where they end."""
    indices, scores = no_lists(len(found), k)
    width = min(k, found.shape[1])
    real = found_scores[:, :width] > NOTHING
    indices[:, :width][real] = found[:, :width][real]
    scores[:, :width][real] = found_scores[:, :width][real]
    return indices, scores


def most_similar(item_index: int, found: Indices, found_scores: Scores, k: int) -> tuple[Indices, Scores]:
    """Of the items found, best first, the `k` best that are alike at all and not the item itself."""
    keep = np.flatnonzero((found != item_index) & (found_scores > 0))[:k]
    return found[keep].astype(np.int32), found_scores[keep].astype(np.float32)
