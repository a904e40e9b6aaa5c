"""People's vectors, solved for from their histories when they are asked for: what `ials` serves with."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.linalg.lapack import sposv

from training.algorithms.activity import scaled
from training.algorithms.blas import one_blas_thread
from training.bundle import Indices, Scores


@dataclass(frozen=True)
class FoldIn:
    """What a person's vector depends on besides the history.

    With V the items' vectors, H those of the n items of a history and w their weights, the vector x solves
    (alpha0 V'V + H'diag(w)H + regularization (n + alpha0 items)^nu I) x = H'w (Rendle et al. 2022).

    Attributes:
        item_factors: (items, factors), turned so that V'V is diagonal: see `turned`.
        activity: weights are scaled by (n / usual)^-activity first: see `training.algorithms.activity`.
    """

    item_factors: Scores
    alpha0: float
    regularization: float
    nu: float
    activity: float
    usual: float

    def people(self, user_items: sparse.csr_matrix) -> Scores:
        """(rows, factors): the vectors that explain the histories best; of an empty one: zeros."""
        asked = scaled(user_items, self.activity, self.usual)
        people = np.zeros((asked.shape[0], self.item_factors.shape[1]), np.float32)
        with one_blas_thread():
            for row in np.flatnonzero(np.diff(asked.indptr)):
                held = slice(asked.indptr[row], asked.indptr[row + 1])
                people[row] = self._person(asked.indices[held], asked.data[held])
        return people

    def contributions(self, user_items: sparse.csr_matrix, item_index: int) -> Scores:
        """What each item of one history adds to an item's score (Hu, Koren and Volinsky 2008, section 5)."""
        asked = scaled(user_items, self.activity, self.usual)
        held = self.item_factors[asked.indices]
        with one_blas_thread():
            explained = _solved(self._system(held, asked.data), self.item_factors[item_index])
            return np.asarray(asked.data * (held @ explained), np.float32)

    def _person(self, items: Indices, weights: Scores) -> Scores:
        """(factors,). Where there are fewer items than factors, the same x is found from a system of n equations.

        With D all of the system that is diagonal, x = D⁻¹H'z where (diag(w)⁻¹ + HD⁻¹H') z = 1.
        """
        held = self.item_factors[items]
        if len(items) >= held.shape[1]:
            return _solved(self._system(held, weights), weights @ held)
        spread = held / self._diagonal(len(items))
        system = np.asarray(spread @ held.T, np.float32)
        system.flat[:: len(system) + 1] += 1 / weights
        return np.asarray(_solved(system, np.ones_like(weights)) @ spread, np.float32)

    def _system(self, held: Scores, weights: Scores) -> Scores:
        """(factors, factors): what x is multiplied with."""
        system = (held * weights[:, None]).T @ held
        system.flat[:: len(system) + 1] += self._diagonal(len(held))
        return np.asarray(system, np.float32)

    def _diagonal(self, held: int) -> Scores:
        """(factors,): the system of a history of that many items, before any of them is added."""
        pull = self.regularization * (held + self.alpha0 * len(self.item_factors)) ** self.nu
        return np.asarray(self.alpha0 * self._powers + pull, np.float32)

    @cached_property
    def _powers(self) -> npt.NDArray[np.float64]:
        """(factors,): the diagonal of V'V."""
        return np.asarray(np.sum(self.item_factors.astype(np.float64) ** 2, axis=0))


def turned(item_factors: Scores) -> Scores:
    """The vectors turned so that V'V is diagonal: no product of two changes, and a person's vector is found faster."""
    with one_blas_thread():
        vectors = item_factors.astype(np.float64)
        _, directions = np.linalg.eigh(vectors.T @ vectors)
        return np.asarray(item_factors @ directions.astype(np.float32))


def _solved(system: Scores, right: Scores) -> Scores:
    """x of system · x = right, the system being symmetric and positive definite."""
    _, solution, failed = sposv(system, right)
    if failed:
        raise np.linalg.LinAlgError("a person's vector has no solution: fit with a larger regularization")
    return np.asarray(solution, np.float32)
