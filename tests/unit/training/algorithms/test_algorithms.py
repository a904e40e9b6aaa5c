"""What every algorithm must do, on data whose answer is known."""

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from training.algorithms import ALGORITHMS, algorithm_named
from training.algorithms.base import Algorithm

SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "popularity": ("popularity", {}),
    "als": ("als", {"factors": 8, "regularization": 1.0}),
    "cosine": ("item_item", {"weighting": "cosine"}),
    "tfidf": ("item_item", {"weighting": "tfidf"}),
    "bm25": ("item_item", {"weighting": "bm25"}),
}
every_algorithm = pytest.mark.parametrize("setting", SETTINGS)
personal = pytest.mark.parametrize("setting", [name for name in SETTINGS if name != "popularity"])


def unfitted(setting: str) -> Algorithm:
    name, parameters = SETTINGS[setting]
    return algorithm_named(name)(**parameters)


def fitted(setting: str, user_items: sparse.csr_matrix) -> Algorithm:
    algorithm = unfitted(setting)
    algorithm.fit(user_items)
    return algorithm


def checkerboard(size: int = 50) -> sparse.csr_matrix:
    """Even people have even items, odd people odd ones; each lacks the one item of its own number."""
    rows, columns = np.indices((size, size))
    board = (rows % 2 == columns % 2) & (rows != columns)
    return sparse.csr_matrix(board.astype(np.float32))


def scattered(seed: int = 1) -> sparse.csr_matrix:
    """(80, 60) interactions of random weights, as histories have them."""
    random = np.random.default_rng(seed)
    held = random.random((80, 60)) < 0.1
    return sparse.csr_matrix(np.where(held, random.choice([1.0, 1.5, 2.0], held.shape), 0).astype(np.float32))


def nobody(items: int) -> sparse.csr_matrix:
    return sparse.csr_matrix(np.zeros((0, items), np.float32))


def reloaded(algorithm: Algorithm) -> Algorithm:
    arrays = {name: array.copy() for name, array in algorithm.arrays().items()}
    return type(algorithm).from_arrays(algorithm.parameters, arrays)


def test_every_algorithm_is_found_by_its_own_name() -> None:
    assert {algorithm_named(name).name for name in ALGORITHMS} == set(ALGORITHMS)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'oracle'; there are popularity, als, item_item"):
        algorithm_named("oracle")


@personal
def test_on_the_checkerboard_everyone_gets_the_one_item_they_lack(setting: str) -> None:
    board = checkerboard()
    indices, _ = fitted(setting, board).recommend(board, 1)
    assert indices[:, 0].tolist() == list(range(50))


def test_popularity_ranks_by_the_number_of_people_and_then_by_index() -> None:
    user_items = sparse.csr_matrix(np.array([[0, 1, 1, 0], [0, 0, 2, 0]], np.float32))
    indices, scores = fitted("popularity", user_items).recommend(sparse.csr_matrix(np.zeros((1, 4), np.float32)), 4)
    assert indices.tolist() == [[2, 1, 0, 3]]
    assert scores.tolist() == [[2, 1, 0, 0]]


@personal
def test_on_the_checkerboard_similar_items_are_of_the_same_colour(setting: str) -> None:
    algorithm = fitted(setting, checkerboard())
    for item in range(50):
        indices, scores = algorithm.similar_items(item, 10)
        assert len(indices) == 10
        assert item not in indices
        assert all(indices % 2 == item % 2)
        assert (np.diff(scores) <= 0).all()


def test_popularity_knows_nothing_alike() -> None:
    assert fitted("popularity", checkerboard()).similar_items(0, 10)[0].shape == (0,)


@every_algorithm
def test_lists_have_their_shapes_and_types_and_fall_in_score(setting: str) -> None:
    user_items = scattered()
    indices, scores = fitted(setting, user_items).recommend(user_items, 7)
    assert indices.shape == scores.shape == (80, 7)
    assert indices.dtype == np.int32
    assert scores.dtype == np.float32
    real = indices >= 0
    assert all((np.diff(row[kept]) <= 0).all() for row, kept in zip(scores, real, strict=True))


@every_algorithm
def test_nobody_is_recommended_what_they_hold_and_the_rest_is_padding(setting: str) -> None:
    user_items = scattered()
    indices, scores = fitted(setting, user_items).recommend(user_items, 100)
    assert indices.shape == (80, 100)
    assert ((indices == -1) == np.isneginf(scores)).all()
    for row, held in zip(indices, user_items.toarray(), strict=True):
        listed = row[row >= 0].tolist()
        assert len(listed) == len(set(listed))
        assert not set(listed) & set(np.flatnonzero(held).tolist())
        assert (row[len(listed) :] == -1).all()


@every_algorithm
def test_a_row_that_holds_the_whole_catalogue_gets_padding_only(setting: str) -> None:
    indices, scores = fitted(setting, scattered()).recommend(sparse.csr_matrix(np.ones((1, 60), np.float32)), 5)
    assert (indices == -1).all()
    assert np.isneginf(scores).all()


@every_algorithm
def test_people_and_items_without_interactions_do_no_harm(setting: str) -> None:
    board = checkerboard().toarray()
    board[[42, 49]] = 0
    board[:, [42, 49]] = 0
    algorithm = fitted(setting, sparse.csr_matrix(board))
    assert all(np.isfinite(array).all() for array in algorithm.arrays().values())
    assert all(not {42, 49} & set(algorithm.similar_items(item, 10)[0].tolist()) for item in range(40))
    assert algorithm.similar_items(42, 10)[0].tolist() == []
    assert algorithm.recommend(nobody(50), 3)[0].shape == (0, 3)


@every_algorithm
@pytest.mark.parametrize("rows", [[[1, 1], [0, 1]], [[1, 0], [0, 1]], [[1, 1], [1, 1]]])
def test_two_people_and_two_items_are_enough_to_fit(setting: str, rows: list[list[int]]) -> None:
    algorithm = fitted(setting, sparse.csr_matrix(np.array(rows, np.float32)))
    assert all(np.isfinite(array).all() for array in algorithm.arrays().values())


@every_algorithm
def test_the_same_matrix_gives_the_same_arrays_bit_by_bit(setting: str) -> None:
    one, two = fitted(setting, scattered()).arrays(), fitted(setting, scattered()).arrays()
    assert {name: array.tobytes() for name, array in one.items()} == {
        name: array.tobytes() for name, array in two.items()
    }


@every_algorithm
def test_fitting_again_starts_afresh(setting: str) -> None:
    algorithm = fitted(setting, scattered(seed=2))
    algorithm.fit(scattered())
    once = fitted(setting, scattered()).arrays()
    assert all(array.tobytes() == once[name].tobytes() for name, array in algorithm.arrays().items())


@every_algorithm
def test_parameters_and_arrays_make_the_same_recommender_again(setting: str) -> None:
    user_items = scattered()
    algorithm = fitted(setting, user_items)
    again = reloaded(algorithm)
    assert again.parameters == algorithm.parameters
    for one, two in zip(algorithm.recommend(user_items, 10), again.recommend(user_items, 10), strict=True):
        assert one.tolist() == two.tolist()
    for one, two in zip(algorithm.similar_items(3, 5), again.similar_items(3, 5), strict=True):
        assert one.tolist() == two.tolist()


@every_algorithm
def test_arrays_grow_with_the_items_and_never_with_the_people(setting: str) -> None:
    user_items = scattered()
    twice = sparse.csr_matrix(sparse.vstack([user_items, user_items]))
    shapes = [{name: a.shape for name, a in fitted(setting, m).arrays().items()} for m in (user_items, twice)]
    assert shapes[0] == shapes[1]
