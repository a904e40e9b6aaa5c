"""The order is that of `np.lexsort`."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.ordering import order_by

rows = st.lists(st.tuples(st.integers(-3, 3), st.sampled_from([0.0, 1.5, 2.0]), st.integers(0, 50)), max_size=40)


@given(rows=rows)
def test_the_order_is_by_the_key_then_by_the_other_columns(rows: list[tuple[int, float, int]]) -> None:
    key, weight, index = (np.array([row[place] for row in rows]) for place in range(3))
    order = order_by(key.astype(np.int64), weight, index)
    assert [rows[place] for place in order] == sorted(rows)
    assert sorted(order.tolist()) == list(range(len(rows)))
