"""ALS beside the library that it is made of."""

import numpy as np
import pytest
from implicit.cpu.als import AlternatingLeastSquares
from scipy import sparse

from training.algorithms.als import ALS


def histories() -> sparse.csr_matrix:
    random = np.random.default_rng(4)
    held = random.random((60, 40)) < 0.15
    return sparse.csr_matrix(np.where(held, random.choice([0.2, 1.0, 2.0], held.shape), 0).astype(np.float32))


def library() -> AlternatingLeastSquares:
    model = AlternatingLeastSquares(factors=8, regularization=2.0, alpha=3.0, iterations=5, random_state=1)
    model.fit(histories(), show_progress=False)
    return model


def fitted() -> ALS:
    als = ALS(factors=8, regularization=2.0, alpha=3.0, iterations=5, seed=1)
    als.fit(histories())
    return als


def test_the_vectors_are_the_library_s() -> None:
    assert fitted().arrays()["item_factors"].tolist() == library().item_factors.tolist()


@pytest.mark.parametrize(("row", "item"), [(0, 3), (7, 31), (59, 0)])
def test_contributions_are_the_library_s_explanation(row: int, item: int) -> None:
    user_items = histories()
    total, explained, _ = library().explain(row, user_items, item, N=40)
    contributions = fitted().contributions(user_items[row], item)
    assert contributions.sum() == pytest.approx(total, abs=1e-5)
    by_item = dict(zip(user_items[row].indices.tolist(), contributions, strict=True))
    assert by_item == pytest.approx(dict(explained), abs=1e-5)
