"""GF-CF: the history through a linear and an ideal low-pass filter of the item graph (Shen et al. 2021)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import svds

from training.algorithms.base import AfterRound
from training.algorithms.blas import one_blas_thread
from training.algorithms.linear import Neighbours, nearest
from training.algorithms.parameters import not_negative, whole
from training.bundle import Scores

TOLERANCE = 1e-3
"""Relative, of the singular values: nothing is gained from more (nDCG@20 on Gowalla is the same to four digits)."""


class GFCF(Neighbours):
    """Likenesses of items whose people and items are both made comparable, and the main patterns among them.

    Args:
        factors: number of patterns (singular vectors) that the low-pass filter lets through.
        weight: what the low-pass filter counts beside the linear one.
        neighbours: how many likenesses are kept of each item.
        seed: of the vector that the search for patterns starts from.
    """

    name = "gf_cf"

    def __init__(self, factors: int = 256, weight: float = 0.3, neighbours: int = 200, seed: int = 0) -> None:
        whole(factors=factors, neighbours=neighbours)
        whole(0, seed=seed)
        not_negative(weight=weight)
        super().__init__()
        self._parameters: dict[str, Any] = {
            "factors": factors,
            "weight": weight,
            "neighbours": neighbours,
            "seed": seed,
        }
        self._let_through(np.zeros((0, 1), np.float16), np.zeros(0, np.float32))

    def fit(
        self,
        user_items: sparse.csr_matrix,
        ages: npt.NDArray[np.float32] | None = None,
        after_round: AfterRound | None = None,
    ) -> None:
        """Compare every two items that somebody has both of, and find the main patterns."""
        roots = np.sqrt(_sums(user_items, axis=0))
        normalised = _scaled(user_items, _inverse(np.sqrt(_sums(user_items, axis=1))), _inverse(roots))
        # One more, since an item's likeness to itself, which nobody asks for, is most often among the nearest.
        self._learn(nearest(normalised, self._parameters["neighbours"] + 1))
        self._let_through(self._main_patterns(normalised), roots.astype(np.float32))

    def scores(self, user_items: sparse.csr_matrix) -> Scores:
        """The sums of likenesses and, weighed, of what the low-pass filter leaves of the history."""
        spread = sparse.csr_matrix(
            (self._entering(user_items), user_items.indices, user_items.indptr), user_items.shape
        )
        with one_blas_thread():
            low_pass = (spread @ self._patterns) @ self._patterns.T
        low_pass *= self._parameters["weight"] * self._roots
        return np.asarray(super().scores(user_items) + low_pass, np.float32)

    def contributions(self, user_items: sparse.csr_matrix, item_index: int) -> Scores:
        """What both filters make of each item for the one that is explained, times its value. They sum to the score."""
        patterns = self._patterns[user_items.indices] @ self._patterns[item_index]
        low_pass = self._entering(user_items) * patterns * (self._parameters["weight"] * self._roots[item_index])
        return np.asarray(super().contributions(user_items, item_index) + low_pass, np.float32)

    @property
    def parameters(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(self._parameters)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The likenesses; `patterns`: (items, factors) float16, as good as float32 to 4 digits; `roots` of the sums."""
        return {**super().arrays(), "patterns": self._kept_patterns, "roots": self._roots}

    def _load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        super()._load(arrays)
        self._let_through(arrays["patterns"], arrays["roots"])

    def _let_through(self, patterns: npt.NDArray[np.float16], roots: Scores) -> None:
        self._kept_patterns, self._roots = patterns, roots
        self._patterns: Scores = patterns.astype(np.float32)

    def _entering(self, user_items: sparse.csr_matrix) -> Scores:
        """(nnz,) the values as they enter the low-pass filter: each by the root of its item's sum."""
        return np.asarray(user_items.data * _inverse(self._roots)[user_items.indices], np.float32)

    def _main_patterns(self, normalised: sparse.csr_matrix) -> npt.NDArray[np.float16]:
        """(items, factors) right singular vectors, the largest first, each with its largest entry above 0."""
        factors = min(self._parameters["factors"], min(normalised.shape) - 1)
        if not factors:
            return np.zeros((normalised.shape[1], 0), np.float16)
        with one_blas_thread():
            _, values, found = svds(normalised.astype(np.float32), factors, tol=TOLERANCE, rng=self._parameters["seed"])
        vectors = found[np.argsort(-values)].T
        signs = np.sign(np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None, :], axis=0))
        return np.ascontiguousarray(vectors * signs, np.float16)


def _sums(user_items: sparse.csr_matrix, axis: int) -> npt.NDArray[np.float64]:
    return np.asarray(user_items.sum(axis=axis, dtype=np.float64)).ravel()


def _inverse(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """1 / value, and 0 where that is 0: who has nothing says nothing."""
    return np.asarray(np.divide(1, values, out=np.zeros_like(values), where=values > 0))


def _scaled(
    user_items: sparse.csr_matrix, rows: npt.NDArray[np.float64], columns: npt.NDArray[np.float64]
) -> sparse.csr_matrix:
    """float64 CSR: every value times its row's and its column's factor."""
    lengths = np.diff(user_items.indptr)
    values = user_items.data * np.repeat(rows, lengths) * columns[user_items.indices]
    return sparse.csr_matrix((values, user_items.indices, user_items.indptr), shape=user_items.shape)
