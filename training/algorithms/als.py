"""Alternating least squares on implicit feedback (Hu, Koren and Volinsky 2008), by `implicit`."""

from collections.abc import Mapping
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
from implicit.cpu.als import AlternatingLeastSquares
from scipy import sparse

from training.algorithms.als_rounds import rounds
from training.algorithms.base import AfterRound, Algorithm, most_similar, padded
from training.algorithms.blas import one_blas_thread
from training.algorithms.parameters import positive, whole
from training.bundle import Indices, Scores


class ALS(Algorithm):
    """Items as vectors. A person's vector is solved for from the history at hand, so new people need no new fit.

    Args:
        factors: length of the vectors.
        regularization: pull of every vector towards zero; large values generalise from few events.
        alpha: how much more an interaction of weight 1 counts than an item that was not met.
        iterations: rounds of fitting.
        seed: of the vectors that fitting starts from.
    """

    name = "als"

    def __init__(
        self,
        factors: int = 64,
        regularization: float = 10.0,
        alpha: float = 3.0,
        iterations: int = 15,
        seed: int = 0,
    ) -> None:
        whole(factors=factors, iterations=iterations)
        whole(0, seed=seed)
        positive(regularization=regularization, alpha=alpha)
        self._parameters: dict[str, Any] = {
            "factors": factors,
            "regularization": regularization,
            "alpha": alpha,
            "iterations": iterations,
            "seed": seed,
        }
        self._model = self._unfitted()

    def fit(
        self,
        user_items: sparse.csr_matrix,
        ages: npt.NDArray[np.float32] | None = None,
        after_round: AfterRound | None = None,
    ) -> None:
        """Learn the items' vectors. The people's are thrown away."""
        self._model = self._unfitted()
        with one_blas_thread():
            for done in rounds(self._model, user_items, self._parameters["seed"]):
                if after_round is not None:
                    # Another one is asked: what `implicit` derives from the vectors when it is asked, it keeps.
                    after_round(self.from_arrays(self._parameters, {"item_factors": self._vectors}), done)

    def scores(self, user_items: sparse.csr_matrix) -> Scores:
        """The items' vectors times the one that explains the row best."""
        with one_blas_thread():
            people = self._model.recalculate_user(np.arange(user_items.shape[0]), user_items)
            return np.asarray(people @ self._vectors.T)

    def recommend(self, user_items: sparse.csr_matrix, k: int) -> tuple[Indices, Scores]:
        """Items whose vectors point along the one that explains the row best."""
        rows, items = user_items.shape
        with one_blas_thread():
            found, scores = self._model.recommend(np.arange(rows), user_items, N=min(k, items), recalculate_user=True)
        return padded(found, scores, k)

    def contributions(self, user_items: sparse.csr_matrix, item_index: int) -> Scores:
        """The explanation of Hu, Koren and Volinsky 2008, section 5: they sum to the score."""
        held = self._vectors[user_items.indices]
        confidences = self._parameters["alpha"] * user_items.data
        with one_blas_thread():
            left = self._model.YtY + (held * (confidences - 1)[:, None]).T @ held
            left[np.diag_indices_from(left)] += self._parameters["regularization"]
            return np.asarray(confidences * (held @ np.linalg.solve(left, self._vectors[item_index])), np.float32)

    def similar_items(self, item_index: int, k: int) -> tuple[Indices, Scores]:
        """Items by the cosine of their vectors."""
        with one_blas_thread():
            found, scores = self._model.similar_items(item_index, N=min(k + 1, len(self._vectors)))
        return most_similar(item_index, found, scores, k)

    @property
    def parameters(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(self._parameters)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """`item_factors`: (items, factors) float32."""
        return {"item_factors": self._vectors}

    @classmethod
    def from_arrays(cls, parameters: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The model with these vectors; what it derives from them it computes on first use."""
        als = cls(**parameters)
        als._model.item_factors = arrays["item_factors"]
        return als

    @property
    def _vectors(self) -> Scores:
        return cast("Scores", self._model.item_factors)

    def _unfitted(self) -> Any:
        words = dict(self._parameters)
        with one_blas_thread():
            return AlternatingLeastSquares(random_state=words.pop("seed"), **words)
