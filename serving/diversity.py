"""A list that is not all of one kind: the places of a determinantal point process, one by one (Chen et al. 2018)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.filters import values_of

STRENGTH = 0.05
"""Of the top picks of a page. bench/diversity.py has what each strength costs and gains."""

_OF_ITS_OWN = 0.01
"""What every item has that no other has: two of the very same categories may stand in one list."""

Vectors = npt.NDArray[np.float32]


def category_vectors(attributes: Sequence[Mapping[str, Any]], category: str) -> Vectors:
    """(items, categories + 1) float32, rows of length 1: what each item is. Items of no category are like each other.

    Args:
        attributes: (items,) what was said of each.
        category: the attribute whose values are categories.
    """
    columns: dict[str, int] = {}
    of_items = [[columns.setdefault(name, len(columns)) for name in values_of(of.get(category))] for of in attributes]
    vectors = np.zeros((len(attributes), len(columns) + 1), np.float32)
    for row, of_item in enumerate(of_items):
        vectors[row, of_item or [-1]] = 1 / np.sqrt(max(1, len(of_item)))
    return vectors


def spread(vectors: Vectors, k: int, strength: float = STRENGTH) -> list[int]:
    """The first `k` places of a list in a new order: each adds the most to relevance and variety together.

    "Fast Greedy MAP Inference for Determinantal Point Process to Improve Recommendation Diversity", NeurIPS 2018, with
    1 - θ as strength. Relevance falls with the places as nDCG discounts them: of a stored list only the order is known.
    The first k of a longer list are the same: what is taken does not depend on what follows.

    Args:
        vectors: (places, any) rows of length 1, of the items of a list, best first.
        k: places wanted.
        strength: 0 leaves the order as it is, 1 looks at nothing but variety.
    """
    places = len(vectors)
    relevance = (1 - strength) / np.log2(np.arange(2, places + 2))
    new = np.ones(places)  # share of each item that nothing taken has
    explained = np.zeros((min(k, places), places))
    taken: list[int] = []
    for row in range(len(explained)):
        place = int(np.argmax(relevance + strength * np.log(new)))
        taken.append(place)
        relevance[place] = -np.inf
        alike = (1 - _OF_ITS_OWN) * (vectors @ vectors[place])
        alike[place] = 1
        explained[row] = (alike - explained[:row, place] @ explained[:row]) / np.sqrt(new[place])
        new = np.maximum(new - explained[row] ** 2, np.finfo(np.float32).tiny)
    return taken
