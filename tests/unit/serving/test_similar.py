"""What is like an item is asked once a version, and not kept without end."""

from dataclasses import replace

import numpy as np
from scipy import sparse

from serving.similar import LIKE_EACH, MOST_KEPT, SimilarItems
from training.bundle import Bundle, Indices, Scores


class Counting:
    """A model that counts how often it is asked; what follows an item is like it."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def similar_items(self, item_index: int, k: int) -> tuple[Indices, Scores]:
        """The next item."""
        self.asked.append((item_index, k))
        return np.array([item_index + 1], np.int32), np.ones(1, np.float32)

    def recommend(self, user_items: sparse.csr_matrix, k: int) -> tuple[Indices, Scores]:
        """Not asked here."""
        raise NotImplementedError

    def contributions(self, user_items: sparse.csr_matrix, item_index: int) -> Scores:
        """Not asked here."""
        raise NotImplementedError


def test_an_item_is_asked_about_once(cinema: Bundle) -> None:
    """And for as many as there may be use for, of the items that there are."""
    model, similar = Counting(), SimilarItems()
    bundle = replace(cinema, model=model)
    assert [list(similar.like(bundle, 7)) for _ in range(3)] == [[8], [8], [8]]
    assert model.asked == [(7, 60)]
    assert LIKE_EACH > 100


def test_another_version_is_asked_anew(cinema: Bundle) -> None:
    """Though its items have the same indices; nothing of the old one is kept."""
    models, similar = [Counting(), Counting()], SimilarItems()
    first, second = (replace(cinema, model=model) for model in models)
    for bundle in (first, second, second, first):
        similar.like(bundle, 7)
    assert [len(model.asked) for model in models] == [2, 1]


def test_what_is_kept_is_bounded(cinema: Bundle) -> None:
    """Callers choose what is asked about: the oldest answer goes first."""
    model, similar = Counting(), SimilarItems()
    bundle = replace(cinema, model=model)
    for item in range(MOST_KEPT + 1):
        similar.like(bundle, item)
    similar.like(bundle, MOST_KEPT)
    similar.like(bundle, 0)
    assert len(model.asked) == MOST_KEPT + 2
