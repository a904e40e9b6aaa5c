"""What the items of long histories count: less each, so that the most active few do not decide what is alike."""

import numpy as np
import numpy.typing as npt
from scipy import sparse


def scaled(user_items: sparse.csr_matrix, activity: float, usual: float = 1.0) -> sparse.csr_matrix:
    """Histories whose values are multiplied by (n / usual)^-activity, n being the number of items of the row.

    Args:
        user_items: (rows, items) CSR.
        activity: 0: every item of every history counts the same; 1: every history counts the same.
        usual: number of items at which nothing changes.

    Returns:
        (rows, items) CSR of the same type.
    """
    lengths = np.diff(user_items.indptr)
    factors = (np.maximum(lengths, 1) / usual) ** -activity
    values: npt.NDArray[np.floating] = user_items.data * np.repeat(factors, lengths).astype(user_items.dtype)
    return sparse.csr_matrix((values, user_items.indices, user_items.indptr), shape=user_items.shape)


def usual(user_items: sparse.csr_matrix) -> float:
    """Geometric mean of the number of items of those who have any."""
    lengths = np.diff(user_items.indptr)
    return float(np.exp(np.mean(np.log(lengths[lengths > 0]))))
