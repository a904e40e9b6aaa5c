"""Weights between items, however they are held in memory."""

import tracemalloc

import numpy as np
import pytest
from scipy import sparse

from training.algorithms.item_item import ItemItem
from training.algorithms.linear import nearest


def histories() -> sparse.csr_matrix:
    random = np.random.default_rng(9)
    return sparse.csr_matrix((random.random((40, 20)) < 0.2).astype(np.float32))


def fitted() -> ItemItem:
    model = ItemItem(neighbours=8)
    model.fit(histories())
    return model


def test_a_matrix_that_is_asked_as_it_is_stored_answers_like_a_dense_one(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = fitted()
    monkeypatch.setattr("training.algorithms.linear.CELLS", 0)
    thin = fitted()
    assert np.allclose(thin.scores(histories()), dense.scores(histories()), atol=1e-6)
    assert thin.contributions(histories()[3], 5) == pytest.approx(dense.contributions(histories()[3], 5))
    assert thin.similar_items(3, 5)[0].tolist() == dense.similar_items(3, 5)[0].tolist()


@pytest.mark.parametrize(("items", "width"), [(256, 1), (257, 2), (65_536, 2), (65_537, 4)])
def test_indices_are_stored_as_narrow_as_the_catalogue_allows(items: int, width: int) -> None:
    history = sparse.csr_matrix(([1.0, 1.0], [0, items - 1], [0, 2]), shape=(1, items), dtype=np.float32)
    model = ItemItem(weighting="cosine")
    model.fit(history)
    arrays = model.arrays()
    assert arrays["indices"].itemsize == width
    again = ItemItem.from_arrays(model.parameters, arrays)
    assert again.recommend(history, 1)[0].tolist() == [[-1]]
    assert again.similar_items(0, 1)[0].tolist() == [items - 1]


def test_a_large_catalogue_is_never_held_as_a_dense_matrix() -> None:
    items, kept = 4100, 210
    columns = np.tile(np.arange(kept, dtype=np.int32), items)
    arrays = {
        "data": np.ones(items * kept, np.float32),
        "indices": columns,
        "indptr": np.arange(0, items * kept + 1, kept, dtype=np.int32),
    }
    tracemalloc.start()
    model = ItemItem.from_arrays({}, arrays)
    model.scores(sparse.csr_matrix(([1.0], [5], [0, 1]), shape=(1, items), dtype=np.float32))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < items * items * 4 / 4


def test_the_nearest_are_the_largest_products_in_the_order_of_the_items() -> None:
    products = histories().toarray().T @ histories().toarray()
    found = nearest(histories(), 5)
    assert found.dtype == np.float32
    for item in range(20):
        kept = found[item].indices
        assert (np.diff(kept) > 0).all()
        assert found[item].data.tolist() == products[item, kept].tolist()
        assert found[item].data.min() >= np.sort(products[item])[-5]
