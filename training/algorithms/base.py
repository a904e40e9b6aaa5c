"""The one interface of every algorithm: fitted on `user_items`, it turns histories into ranked lists."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy.typing as npt
from scipy import sparse

from training.bundle import Indices, Scores


class Algorithm(ABC):
    """A recommender. Its parameters are its constructor's keyword arguments; what it learns are item-side arrays."""

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
