"""EASE: every item explained by all the others, in closed form (Steck 2019; Steck 2020)."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse

from training.algorithms.activity import scaled
from training.algorithms.base import AfterRound, CatalogueTooLarge
from training.algorithms.blas import one_blas_thread
from training.algorithms.linear import Linear
from training.algorithms.parameters import not_negative, positive, whole
from training.bundle import Scores


class EASE(Linear):
    """Every item as a weighted sum of the others: the weights of a ridge regression, none of an item for itself.

    "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019; with denoising: "Autoencoders that don't overfit
    towards the Identity", NeurIPS 2020.

    Args:
        regularization: pull of every weight towards zero; large values generalise from few events.
        denoising: what is added to the regularization of an item for each time that somebody has it: p / (1 - p) where
            a share p of every history is left out in training.
        activity: how much less the items of long histories count: see `training.algorithms.activity`.
        max_items: largest catalogue that is fitted; time grows with its cube and memory with its square.
    """

    name = "ease"

    def __init__(
        self,
        regularization: float = 500.0,
        denoising: float = 1.0,
        activity: float = 0.25,
        max_items: int = 10_000,
    ) -> None:
        positive(regularization=regularization)
        not_negative(denoising=denoising, activity=activity)
        whole(max_items=max_items)
        super().__init__()
        self._regularization = regularization
        self._denoising = denoising
        self._activity = activity
        self._max_items = max_items
        self._learn(np.zeros((0, 0), np.float16))

    def fit(
        self,
        user_items: sparse.csr_matrix,
        ages: npt.NDArray[np.float32] | None = None,
        after_round: AfterRound | None = None,
    ) -> None:
        """Solve for the weights."""
        items = user_items.shape[1]
        if items > self._max_items:
            raise CatalogueTooLarge(
                f"{items:,} items are more than the {self._max_items:,} that ease is fitted on, and would take "
                f"{20 * items**2 / 1e9:.1f} GB: use gf_cf or ials, or raise max_items on a machine that has as much"
            )
        self._learn(self._solved(self._gram(user_items)).astype(np.float16))

    @property
    def parameters(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "regularization": self._regularization,
            "denoising": self._denoising,
            "activity": self._activity,
            "max_items": self._max_items,
        }

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """`weights`: (items, items) float16. Nothing is lost: nDCG@10 on MovieLens-1M is the same to 4 digits."""
        return {"weights": self._kept}

    @classmethod
    def from_arrays(cls, parameters: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The model with these weights."""
        ease = cls(**parameters)
        ease._learn(arrays["weights"])
        return ease

    def _learn(self, weights: npt.NDArray[np.float16]) -> None:
        self._kept = weights
        # In the order of C: else the whole of it would be copied for every history that is asked.
        self._weights: Scores = np.ascontiguousarray(weights, np.float32)

    def _gram(self, user_items: sparse.csr_matrix) -> npt.NDArray[np.float64]:
        """(items, items): how often every two items are in one history; long histories count less, but not the sum."""
        whole_rows = user_items.astype(np.float64)
        rows = scaled(whole_rows, self._activity)
        gram = (rows.T @ rows).toarray()
        gram *= np.sum(whole_rows.data**2) / np.trace(gram)
        return np.asarray(gram, np.float64)

    def _solved(self, gram: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(items, items): -P / diag(P) with 0 on the diagonal, P the inverse of the regularised Gram matrix."""
        gram[np.diag_indices_from(gram)] *= 1 + self._denoising
        gram[np.diag_indices_from(gram)] += self._regularization
        with one_blas_thread():
            inverse = linalg.inv(gram, overwrite_a=True)
        inverse /= -np.diag(inverse).copy()
        np.fill_diagonal(inverse, 0)
        return np.asarray(inverse, np.float64)
