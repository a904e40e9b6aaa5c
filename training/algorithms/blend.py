"""Several algorithms together: their scores, made comparable row by row, are weighed and summed."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
from scipy import sparse

from training.algorithms.base import AfterRound, Algorithm
from training.algorithms.parameters import one_of, positive
from training.bundle import Indices, Scores

Normalisation = Literal["standardised", "ranked"]
ROUNDING = 1e-6
PART = {"algorithm", "parameters", "weight"}


class Blend(Algorithm):
    """Parts that are fitted on the same histories and asked together.

    Args:
        parts: {"algorithm": name, "parameters": its own, "weight": what it counts} of each.
        normalisation: what makes the parts' scores comparable: see `normalised`.
    """

    name = "blend"

    def __init__(self, parts: Sequence[Mapping[str, Any]], normalisation: Normalisation = "standardised") -> None:
        one_of(get_args(Normalisation), normalisation=normalisation)
        if not parts:
            raise ValueError("a blend needs parts: name at least one algorithm")
        self._parts = [_made(part) for part in parts]
        self._weights = [float(part["weight"]) for part in parts]
        self._normalisation: Normalisation = normalisation

    def fit(
        self,
        user_items: sparse.csr_matrix,
        ages: npt.NDArray[np.float32] | None = None,
        after_round: AfterRound | None = None,
    ) -> None:
        """Fit the parts, one after the other."""
        for part in self._parts:
            part.fit(user_items, ages)

    def scores(self, user_items: sparse.csr_matrix) -> Scores:
        """The weighted sum of the parts' normalised scores."""
        total = np.zeros(user_items.shape, np.float32)
        for part, weight in zip(self._parts, self._weights, strict=True):
            total += np.float32(weight) * normalised(part.scores(user_items), user_items, self._normalisation)
        return total

    def contributions(self, user_items: sparse.csr_matrix, item_index: int) -> Scores:
        """The weighted sum of the parts', each in the unit (standard deviation) of its scores for this history."""
        total = np.zeros(user_items.nnz, np.float32)
        for part, weight in zip(self._parts, self._weights, strict=True):
            unit = np.float32(weight) / _moments(part.scores(user_items), user_items)[1].item()
            total += unit * part.contributions(user_items, item_index)
        return total

    def similar_items(self, item_index: int, k: int) -> tuple[Indices, Scores]:
        """As the part that weighs most has them; where it knows none, the next."""
        for place in np.argsort(-np.array(self._weights), kind="stable"):
            found, values = self._parts[place].similar_items(item_index, k)
            if len(found):
                break
        return found, values

    @property
    def looks_at_ages(self) -> bool:
        """Where a part does."""
        return any(part.looks_at_ages for part in self._parts)

    @property
    def parameters(self) -> dict[str, Any]:
        """The constructor's arguments, with every parameter of the parts."""
        parts = [
            {"algorithm": part.name, "parameters": part.parameters, "weight": weight}
            for part, weight in zip(self._parts, self._weights, strict=True)
        ]
        return {"parts": parts, "normalisation": self._normalisation}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The parts' arrays, each with the part's number before its name: `0.item_factors`."""
        return {
            f"{place}.{name}": array for place, part in enumerate(self._parts) for name, array in part.arrays().items()
        }

    @classmethod
    def from_arrays(cls, parameters: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The blend of the parts that these arrays are of."""
        blend = cls(**parameters)
        for place, part in enumerate(blend._parts):
            start = f"{place}."
            own = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
            blend._parts[place] = type(part).from_arrays(part.parameters, own)
        return blend


def normalised(scores: Scores, held: sparse.csr_matrix, normalisation: Normalisation) -> Scores:
    """Scores that can be summed with another algorithm's: comparable over the items that are not held.

    Args:
        scores: (rows, items); they may be overwritten.
        held: (rows, items) CSR: the histories that were asked with.
        normalisation: "standardised": mean 0 and standard deviation 1 in every row; "ranked": 1 / (10 + rank), where
            the best item of a row has rank 1 (reciprocal rank fusion, Cormack, Clarke and Buettcher 2009).

    Returns:
        (rows, items) float32.
    """
    if normalisation == "ranked":
        return _reciprocal_ranks(scores, held)
    means, spreads = _moments(scores, held)
    scores -= means
    scores /= spreads
    return scores


def _moments(scores: Scores, held: sparse.csr_matrix) -> tuple[Scores, Scores]:
    """(rows, 1) means and standard deviations over the items that are not held; of scores that are all alike: inf."""
    rows = np.repeat(np.arange(held.shape[0]), np.diff(held.indptr))
    others = np.maximum(scores.shape[1] - np.diff(held.indptr), 1)[:, None]
    free = scores.copy()
    free[rows, held.indices] = 0
    means = free.sum(axis=1, keepdims=True) / others
    free -= means
    free[rows, held.indices] = 0
    spreads = np.sqrt(np.einsum("ri,ri->r", free, free)[:, None] / others)
    # What is left of equal scores is rounding, which must not be blown up: they say nothing.
    spreads[spreads <= ROUNDING * np.abs(means)] = np.inf
    return np.asarray(means, np.float32), np.asarray(spreads, np.float32)


def _reciprocal_ranks(scores: Scores, held: sparse.csr_matrix) -> Scores:
    """(rows, items): items as good as each other share the better rank; where all are, they say nothing: 0."""
    scores[np.repeat(np.arange(held.shape[0]), np.diff(held.indptr)), held.indices] = -np.inf
    order = np.argsort(-scores, axis=1)
    falling = np.take_along_axis(scores, order, axis=1)
    ranks = np.ones(scores.shape, np.float32)
    ranks[:, 1:] = np.where(falling[:, 1:] < falling[:, :-1], np.arange(2, scores.shape[1] + 1), 0)
    np.put_along_axis(scores, order, 1 / (10 + np.maximum.accumulate(ranks, axis=1)), axis=1)
    last = np.maximum(scores.shape[1] - np.diff(held.indptr), 1) - 1
    scores[falling[:, 0] == falling[np.arange(len(falling)), last]] = 0
    return scores


def _made(part: Mapping[str, Any]) -> Algorithm:
    """The algorithm of one part, not fitted yet."""
    from training.algorithms import algorithm_named

    if set(part) != PART:
        raise ValueError(f"a part of a blend has {', '.join(sorted(PART))}, not {', '.join(sorted(part)) or 'nothing'}")
    if part["algorithm"] == Blend.name:
        raise ValueError("a blend has no blend among its parts: name that one's parts instead")
    positive(weight=part["weight"])
    return algorithm_named(part["algorithm"])(**part["parameters"])
