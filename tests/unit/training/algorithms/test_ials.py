"""iALS beside the library that fits it."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from irspack.recommenders.ials import IALSRecommender
from scipy import sparse

from training.algorithms.fold_in import turned
from training.algorithms.ials import IALS

SETTINGS: dict[str, Any] = {"alpha0": 0.2, "regularization": 0.02, "nu": 0.7, "iterations": 5, "seed": 3}


def histories(seed: int = 5) -> sparse.csr_matrix:
    """(50, 30): from 1 item to all, so that some histories have fewer items than there are factors and some more."""
    random = np.random.default_rng(seed)
    held = random.random((50, 30)) < np.linspace(0.05, 1.0, 50)[:, None]
    held[np.arange(50), np.arange(50) % 30] = True
    return sparse.csr_matrix(np.where(held, random.choice([0.5, 1.0, 3.0], held.shape), 0).astype(np.float32))


def fitted(**parameters: Any) -> IALS:
    ials = IALS(factors=12, **{**SETTINGS, **parameters})
    ials.fit(histories())
    return ials


def library(user_items: sparse.csr_matrix) -> IALSRecommender:
    """The library's own recommender, that solves for people's vectors exactly."""
    recommender = IALSRecommender(
        user_items,
        n_components=12,
        alpha0=0.2,
        reg=0.02,
        nu=0.7,
        train_epochs=5,
        random_seed=3,
        n_threads=1,
        prediction_time_max_cg_steps=100,
    )
    return recommender.learn()


def exact(ials: IALS, history: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(factors,) by the formula of Rendle et al. 2022, in double precision."""
    vectors = ials.arrays()["item_factors"].astype(np.float64)
    weights = np.diag(history.astype(np.float64))
    pull = 0.02 * (np.count_nonzero(history) + 0.2 * len(vectors)) ** 0.7
    system = 0.2 * vectors.T @ vectors + vectors.T @ weights @ vectors + pull * np.eye(12)
    return vectors @ np.linalg.solve(system, vectors.T @ history)


def test_scores_are_the_library_s() -> None:
    others = histories(seed=6)
    expected = library(histories()).get_score_cold_user(others)
    assert np.allclose(fitted(activity=0.0).scores(others), expected, atol=1e-3)


def test_people_s_vectors_solve_the_equation_whether_they_have_few_items_or_many() -> None:
    ials, others = fitted(activity=0.0), histories(seed=6)
    lengths = np.diff(others.indptr)
    assert lengths.min() < 12 <= lengths.max()
    for history, scores in zip(others.toarray(), ials.scores(others), strict=True):
        assert np.allclose(scores, exact(ials, history), atol=1e-5)


def test_with_activity_long_histories_count_less_an_item_in_the_fit_and_when_asked() -> None:
    lengths = np.diff(histories().indptr)
    usual = np.exp(np.log(lengths).mean())
    scaled = sparse.csr_matrix(histories().multiply(((lengths / usual) ** -0.5)[:, None]), dtype=np.float32)
    expected = library(scaled).get_score_cold_user(scaled)
    assert np.allclose(fitted(activity=0.5).scores(histories()), expected, atol=1e-3)
    assert not np.allclose(fitted(activity=0.0).scores(histories()), expected, atol=1e-2)


def test_vectors_are_stored_in_half_precision() -> None:
    assert fitted().arrays()["item_factors"].dtype == np.float16


def test_an_empty_history_scores_nothing() -> None:
    assert not fitted().scores(sparse.csr_matrix(np.zeros((1, 30), np.float32))).any()


def test_turned_vectors_have_the_same_products_and_orthogonal_columns() -> None:
    vectors = np.random.default_rng(1).standard_normal((30, 12)).astype(np.float32)
    other = turned(vectors)
    assert np.allclose(other @ other.T, vectors @ vectors.T, atol=1e-5)
    products = other.astype(np.float64).T @ other
    assert np.abs(products - np.diag(np.diag(products))).max() < 1e-6 * products.max()


def test_similar_items_are_the_nearest_by_cosine() -> None:
    ials = fitted()
    vectors = ials.arrays()["item_factors"].astype(np.float64)
    directions = vectors / np.linalg.norm(vectors, axis=1)[:, None]
    cosines = directions @ directions[4]
    cosines[4] = -2
    indices, values = ials.similar_items(4, 5)
    assert indices.tolist() == np.argsort(-cosines)[:5].tolist()
    assert values == pytest.approx(np.sort(cosines)[::-1][:5], abs=1e-5)
