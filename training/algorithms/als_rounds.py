"""The rounds of `implicit`'s ALS, by its own solver, without the copies of the matrix that its `fit` makes.

Its `fit` holds the matrix as it is, weighed with alpha, and that turned over; and the weights once more while a side is
solved. Here only the places are turned over, with a byte for each weight, and rows are weighed when their turn comes.
The vectors are the same to the bit.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from implicit.cpu import _als
from scipy import sparse

from training.bundle import Scores

PARTS = 2
"""Rows are weighed half of the interactions at a time: in more parts the products of the vectors, which the solver
makes anew for each, would be felt in the time."""


def rounds(model: Any, user_items: sparse.csr_matrix, seed: int) -> Iterator[int]:
    """Fit in place. Yields the number of rounds done, after each.

    Args:
        model: `implicit`'s AlternatingLeastSquares; gets its `item_factors`.
        user_items: (users, items) CSR, float32.
        seed: of the vectors that fitting starts from.
    """
    random = np.random.default_rng(seed)
    users, items = (_first(random, count, model.factors) for count in user_items.shape)
    model.item_factors = items
    weights, item_users = _turned_over(user_items)
    alpha = np.float32(model.alpha)
    weighed = weights * alpha
    for number in range(model.iterations):
        _solve(model, user_items, lambda values: values * alpha, users, items)
        _solve(model, item_users, lambda places: weighed[places], items, users)
        yield number + 1


def _first(random: np.random.Generator, count: int, factors: int) -> Scores:
    vectors = random.random((count, factors), np.float32)
    vectors *= 0.01
    return vectors


def _turned_over(user_items: sparse.csr_matrix) -> tuple[Scores, sparse.csr_matrix]:
    """The weights that there are; and (items, users) CSR, whose values are the places of the weights among them."""
    values = user_items.data
    step = max(1, -(-len(values) // PARTS))
    parts = [slice(start, start + step) for start in range(0, len(values), step)]
    weights = np.unique([weight for part in parts for weight in np.unique(values[part])]).astype(np.float32)
    codes = np.empty(len(values), np.min_scalar_type(len(weights)))
    for part in parts:
        codes[part] = np.searchsorted(weights, values[part])
    coded = sparse.csr_matrix((codes, user_items.indices, user_items.indptr), shape=user_items.shape)
    return weights, coded.T.tocsr()


def _solve(
    model: Any, matrix: sparse.csr_matrix, weigh: Callable[[Any], Scores], vectors: Scores, others: Scores
) -> None:
    """One side, in place: of each row the vector that explains it best.

    Args:
        model: for its settings.
        matrix: (rows, columns) CSR.
        weigh: makes weights of its values.
        vectors: (rows, factors), those of the round before.
        others: (columns, factors).
    """
    for rows in _parts(matrix.indptr):
        bounds = matrix.indptr[rows.start : rows.stop + 1]
        part = slice(bounds[0], bounds[-1])
        # Not by `model.solver`, which takes a matrix, and copies its values for a type that they have.
        _als._least_squares_cg(
            bounds - bounds[0],
            matrix.indices[part],
            weigh(matrix.data[part]),
            vectors[rows],
            others,
            model.regularization,
            model.num_threads,
            model.cg_steps,
        )


def _parts(bounds: Any) -> Iterator[slice]:
    """The rows, in parts of about as many interactions."""
    ends = np.searchsorted(bounds, np.linspace(0, bounds[-1], PARTS + 1))
    ends[0], ends[-1] = 0, len(bounds) - 1
    return (slice(start, end) for start, end in pairwise(ends.tolist()) if start < end)
