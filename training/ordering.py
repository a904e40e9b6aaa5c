"""Sorting by several columns of which the first tells nearly all rows apart: many times faster than `np.lexsort`."""

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]


def order_by(key: Numbers, *rest: npt.NDArray[np.generic]) -> Numbers:
    """The rows in order of `key`, those with the same key in order of the other columns, the first of them first.

    >>> order_by(np.array([3, 1, 3]), np.array([2, 0, 1])).tolist()
    [1, 2, 0]
    """
    order = np.argsort(key)
    ordered = key[order]
    same = np.zeros(len(key) + 1, np.bool_)
    same[1:-1] = ordered[1:] == ordered[:-1]
    alike = np.flatnonzero(same[1:] | same[:-1])
    rows = order[alike]
    order[alike] = rows[np.lexsort([*(column[rows] for column in reversed(rest)), ordered[alike]])]
    return order
