"""The rounds of `implicit`'s ALS, by its own solver, without its two weighed copies of the matrix.

Its `fit` holds the matrix three times: as it is, weighed with alpha, and that turned over. Here only the places are
turned over, with a byte for each weight; rows are weighed when their turn comes. The vectors are the same to the bit.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import sparse

from training.bundle import Scores

PARTS = 4
"""Rows are weighed a quarter of the interactions at a time: in more parts the products of the vectors, made anew for
each, would be felt in the time."""


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
    weights, coded = _coded(user_items)
    sides = ((coded, users, items), (coded.T.tocsr(), items, users))
    weighed = (weights * np.float32(model.alpha)).astype(np.float32)
    for number in range(model.iterations):
        for matrix, vectors, others in sides:
            for rows in _parts(matrix.indptr):
                some = _rows(matrix, rows, weighed)
                model.solver(some, vectors[rows], others, model.regularization, model.num_threads)
        yield number + 1


def _first(random: np.random.Generator, count: int, factors: int) -> Scores:
    vectors = random.random((count, factors), np.float32)
    vectors *= 0.01
    return vectors


def _coded(user_items: sparse.csr_matrix) -> tuple[Scores, sparse.csr_matrix]:
    """The weights that there are, and the matrix with the place of each among them."""
    values = user_items.data
    step = max(1, -(-len(values) // PARTS))
    parts = [slice(start, start + step) for start in range(0, len(values), step)]
    weights = np.unique([weight for part in parts for weight in np.unique(values[part])])
    codes = np.empty(len(values), np.min_scalar_type(len(weights)))
    for part in parts:
        codes[part] = np.searchsorted(weights, values[part])
    coded = sparse.csr_matrix((codes, user_items.indices, user_items.indptr), shape=user_items.shape)
    return weights, coded


def _parts(bounds: Any) -> Iterator[slice]:
    """The rows, in parts of about as many interactions."""
    ends = np.searchsorted(bounds, np.linspace(0, bounds[-1], PARTS + 1))
    ends[-1] = len(bounds) - 1
    return (slice(start, end) for start, end in pairwise(ends.tolist()) if start < end)


def _rows(coded: sparse.csr_matrix, rows: slice, weighed: Scores) -> sparse.csr_matrix:
    bounds = coded.indptr[rows.start : rows.stop + 1]
    part = slice(bounds[0], bounds[-1])
    values = (weighed[coded.data[part]], coded.indices[part], bounds - bounds[0])
    return sparse.csr_matrix(values, shape=(len(bounds) - 1, coded.shape[1]))
