"""What the items of long histories count."""

import numpy as np
import pytest
from scipy import sparse

from training.algorithms.activity import scaled, usual

HISTORIES = sparse.csr_matrix(np.array([[2, 0, 0, 0], [1, 1, 1, 3], [0, 0, 0, 0]], np.float32))


def test_every_value_is_scaled_by_its_history_s_length() -> None:
    rows = scaled(HISTORIES, 0.5)
    assert rows.toarray().tolist() == [[2, 0, 0, 0], [0.5, 0.5, 0.5, 1.5], [0, 0, 0, 0]]
    assert rows.dtype == np.float32
    assert HISTORIES.data.tolist() == [2, 1, 1, 1, 3]


def test_histories_of_the_usual_length_stay_as_they_are() -> None:
    assert scaled(HISTORIES, 0.5, usual=4.0).toarray().tolist() == [[4, 0, 0, 0], [1, 1, 1, 3], [0, 0, 0, 0]]


def test_the_usual_length_is_the_geometric_mean_of_those_who_have_anything() -> None:
    assert usual(HISTORIES) == pytest.approx(2.0)
