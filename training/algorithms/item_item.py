"""Item to item: neighbours (Sarwar et al. 2001; Deshpande and Karypis 2004), by `implicit`."""

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from implicit.nearest_neighbours import bm25_weight, tfidf_weight
from scipy import sparse

from training.algorithms.activity import scaled
from training.algorithms.base import AfterRound
from training.algorithms.linear import Neighbours, nearest
from training.algorithms.parameters import not_negative, one_of, whole

Weighting = Literal["cosine", "tfidf", "bm25"]
SMALLEST = 1e-6


class ItemItem(Neighbours):
    """Items beside their nearest neighbours: who has these, also has those.

    Args:
        weighting: what makes people's rows comparable before items are compared.
        neighbours: how many neighbours are kept of each item.
        activity: how much less the items of long histories count: see `training.algorithms.activity`.
    """

    name = "item_item"

    def __init__(self, weighting: Weighting = "tfidf", neighbours: int = 200, activity: float = 0.25) -> None:
        one_of(get_args(Weighting), weighting=weighting)
        whole(neighbours=neighbours)
        not_negative(activity=activity)
        super().__init__()
        self._weighting: Weighting = weighting
        self._neighbours = neighbours
        self._activity = activity

    def fit(
        self,
        user_items: sparse.csr_matrix,
        ages: npt.NDArray[np.float32] | None = None,
        after_round: AfterRound | None = None,
    ) -> None:
        """Compare every two items that somebody has both of."""
        self._learn(nearest(_weighted(user_items, self._weighting, self._activity), self._neighbours))

    @property
    def parameters(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"weighting": self._weighting, "neighbours": self._neighbours, "activity": self._activity}


def _weighted(user_items: sparse.csr_matrix, weighting: Weighting, activity: float) -> sparse.csr_matrix:
    """(users, items) CSR, float64: weighted, and its items made of length 1 where the weighting asks for that."""
    item_users = user_items.T.tocoo().astype(np.float64)
    if weighting == "tfidf":
        item_users = tfidf_weight(item_users)
    elif weighting == "bm25":
        item_users = bm25_weight(item_users, K1=1.2, B=0.75)
    # Both are zero or less for a person who has nearly every item: that person says next to nothing, not the contrary.
    item_users.data = np.maximum(item_users.data, SMALLEST)
    weighted = scaled(sparse.csr_matrix(item_users.T), activity)
    if weighting != "bm25":
        lengths = np.sqrt(np.bincount(weighted.indices, weighted.data**2, weighted.shape[1]))
        weighted.data /= lengths[weighted.indices]
    return weighted
