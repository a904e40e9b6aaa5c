"""The vectors are those of `implicit`'s own fit, to the bit, and the matrix is left as it was."""

import numpy as np
import pytest
from implicit.cpu.als import AlternatingLeastSquares
from scipy import sparse

from training.algorithms import als_rounds
from training.algorithms.als import ALS
from training.algorithms.blas import one_blas_thread


def interactions(people: int, items: int, weights: list[float], seed: int = 0) -> sparse.csr_matrix:
    random = np.random.default_rng(seed)
    there = random.random((people, items)) < 0.1
    there[3] = False
    return sparse.csr_matrix(np.where(there, random.choice(weights, there.shape), 0).astype(np.float32))


@pytest.mark.parametrize("weights", [[1.0], [0.1, 1.0, 1.5, 2.0], np.linspace(0.5, 4, 700).tolist()])
@pytest.mark.parametrize("alpha", [1.0, 0.3, 7.0])
@pytest.mark.parametrize("parts", [1, 4, 100])
def test_the_vectors_are_the_librarys(
    weights: list[float], alpha: float, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(als_rounds, "PARTS", parts)
    user_items = interactions(60, 40, weights)
    before = user_items.copy()
    with one_blas_thread():
        librarys = AlternatingLeastSquares(
            factors=8, regularization=0.5, alpha=alpha, iterations=3, random_state=5, num_threads=1
        )
        librarys.fit(user_items, show_progress=False)
    ours = ALS(factors=8, regularization=0.5, alpha=alpha, iterations=3, seed=5)
    ours.fit(user_items)
    assert np.array_equal(ours.arrays()["item_factors"], librarys.item_factors)
    for one, other in ((user_items.data, before.data), (user_items.indices, before.indices)):
        assert np.array_equal(one, other)


def test_nobody_and_nothing_are_no_trouble() -> None:
    ours = ALS(factors=4, iterations=2)
    ours.fit(sparse.csr_matrix((3, 5), dtype=np.float32))
    assert not ours.arrays()["item_factors"].any()
