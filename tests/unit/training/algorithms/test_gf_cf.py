"""GF-CF beside its formula."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy import sparse

from training.algorithms.gf_cf import GFCF


def histories() -> npt.NDArray[np.float32]:
    random = np.random.default_rng(6)
    held = random.random((30, 12)) < 0.3
    return np.where(held, random.choice([1.0, 2.0], held.shape), 0).astype(np.float32)


def filters(factors: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The linear and the ideal low-pass filter, (items, items) each: Shen et al. 2021, section 4."""
    matrix = histories().astype(np.float64)
    people, items = np.sqrt(matrix.sum(axis=1)), np.sqrt(matrix.sum(axis=0))
    normalised = matrix / people[:, None] / items[None, :]
    _, _, vectors = np.linalg.svd(normalised)
    main = vectors[:factors].T
    return normalised.T @ normalised, (main / items[:, None]) @ (main.T * items[None, :])


def fitted(**parameters: float) -> GFCF:
    model = GFCF(**parameters)  # type: ignore[arg-type]
    model.fit(sparse.csr_matrix(histories()))
    return model


def test_the_scores_are_those_of_both_filters() -> None:
    low, ideal = filters(3)
    scores = fitted(factors=3, weight=0.3, neighbours=12).scores(sparse.csr_matrix(histories()))
    assert np.allclose(scores, histories() @ (low + 0.3 * ideal), atol=3e-3)


def test_of_the_linear_filter_each_item_keeps_its_strongest_neighbours_besides_itself() -> None:
    low, _ = filters(3)
    scores = fitted(factors=3, weight=0.0, neighbours=2).scores(sparse.csr_matrix(np.eye(12, dtype=np.float32)))
    for item in range(12):
        kept = np.argsort(-low[item])[:3]
        assert item in kept
        assert np.allclose(scores[item, kept], low[item, kept], atol=1e-5)
        assert np.count_nonzero(scores[item]) == 3


def test_patterns_are_singular_vectors_the_largest_first_each_with_its_largest_entry_above_0() -> None:
    stored = fitted(factors=3).arrays()["patterns"]
    assert stored.dtype == np.float16
    patterns = stored.astype(np.float64)
    assert patterns.shape == (12, 3)
    assert np.allclose(patterns.T @ patterns, np.eye(3), atol=1e-3)
    low, _ = filters(3)
    values = np.diag(patterns.T @ low @ patterns)
    assert values == pytest.approx(np.linalg.eigvalsh(low)[::-1][:3], abs=1e-3)
    assert all(column[np.abs(column).argmax()] > 0 for column in patterns.T)


def test_where_there_are_too_few_people_or_items_for_the_factors_there_are_fewer_patterns() -> None:
    assert fitted(factors=64).arrays()["patterns"].shape == (12, 11)
    alone = GFCF(factors=4)
    alone.fit(sparse.csr_matrix(np.array([[1, 1, 0]], np.float32)))
    assert alone.arrays()["patterns"].shape == (3, 0)
    assert alone.recommend(sparse.csr_matrix(np.array([[1, 0, 0]], np.float32)), 2)[0].tolist() == [[1, -1]]
