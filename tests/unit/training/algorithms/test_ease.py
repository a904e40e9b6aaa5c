"""EASE beside its closed form."""

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
from scipy import sparse

from training.algorithms.base import CatalogueTooLarge
from training.algorithms.ease import EASE

HISTORIES = np.array([[1, 1, 0, 0], [1, 1.5, 1, 0], [0, 1, 1, 0], [2, 0, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1]], np.float32)


def weights(**parameters: float) -> npt.NDArray[np.float32]:
    """What each item (row) adds to each other, read off the scores of histories of one item."""
    ease = EASE(**parameters)  # type: ignore[arg-type]
    ease.fit(sparse.csr_matrix(HISTORIES))
    return ease.scores(sparse.csr_matrix(np.eye(4, dtype=np.float32)))


def closed_form(
    gram: npt.NDArray[np.floating], regularization: npt.NDArray[np.floating] | float
) -> npt.NDArray[np.float64]:
    """Steck 2019, equation 8."""
    inverse = np.linalg.inv(gram + regularization * np.eye(4))
    form = -inverse / np.diag(inverse)[None, :]
    return np.where(np.eye(4) == 1, 0, form)


def test_the_weights_are_those_of_the_closed_form() -> None:
    expected = closed_form(HISTORIES.T @ HISTORIES, 0.7)
    assert np.allclose(weights(regularization=0.7, denoising=0, activity=0), expected, atol=1e-3)


def test_denoising_regularises_an_item_by_what_it_has() -> None:
    gram = HISTORIES.T @ HISTORIES
    expected = closed_form(gram, 0.7 + 0.5 * np.diag(gram))
    assert np.allclose(weights(regularization=0.7, denoising=0.5, activity=0), expected, atol=1e-3)


def test_with_activity_long_histories_count_less_an_item_and_the_sum_stays() -> None:
    rows = HISTORIES / np.sqrt((HISTORIES > 0).sum(axis=1, keepdims=True))
    gram = rows.T @ rows
    gram *= np.trace(HISTORIES.T @ HISTORIES) / np.trace(gram)
    expected = closed_form(gram, 0.7)
    assert np.allclose(weights(regularization=0.7, denoising=0, activity=0.5), expected, atol=1e-3)
    assert not np.allclose(expected, closed_form(HISTORIES.T @ HISTORIES, 0.7), atol=1e-2)


def test_no_item_speaks_for_itself() -> None:
    assert np.diag(weights()).tolist() == [0, 0, 0, 0]


def test_similar_items_are_those_with_weights_above_0_the_largest_first() -> None:
    ease = EASE(regularization=0.7)
    ease.fit(sparse.csr_matrix(HISTORIES))
    row = weights(regularization=0.7)[1]
    indices, values = ease.similar_items(1, 4)
    assert indices.tolist() == [item for item in np.argsort(-row) if row[item] > 0]
    assert values.tolist() == sorted(row[row > 0], reverse=True)
    assert (row < 0).any()


def test_what_is_kept_is_half_as_large_as_what_is_asked() -> None:
    ease = EASE()
    ease.fit(sparse.csr_matrix(HISTORIES))
    assert ease.arrays()["weights"].nbytes == 4 * 4 * 2


def test_a_history_is_asked_without_a_copy_of_the_weights() -> None:
    random = np.random.default_rng(2)
    ease = EASE()
    ease.fit(sparse.csr_matrix((random.random((300, 400)) < 0.1).astype(np.float32)))
    history = sparse.csr_matrix(([1.0], [7], [0, 1]), shape=(1, 400), dtype=np.float32)
    tracemalloc.start()
    ease.scores(history)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 400 * 400 * 4 / 4


def test_a_catalogue_that_is_too_large_is_refused_with_what_to_use_instead() -> None:
    ease = EASE(max_items=11_999)
    message = (
        "12,000 items are more than the 11,999 that ease is fitted on, and would take 2.9 GB: "
        "use gf_cf or ials, or raise max_items on a machine that has as much"
    )
    with pytest.raises(CatalogueTooLarge, match=message):
        ease.fit(sparse.csr_matrix(([1.0], [7], [0, 1]), shape=(1, 12_000), dtype=np.float32))
    EASE(max_items=4).fit(sparse.csr_matrix(HISTORIES))
