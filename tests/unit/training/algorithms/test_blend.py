"""Several algorithms together."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import sparse
from scipy.stats import rankdata

from training.algorithms import algorithm_named
from training.algorithms.base import Algorithm
from training.algorithms.blend import Blend, normalised

EASE = ("ease", {"regularization": 3.0})
ITEM_ITEM = ("item_item", {"weighting": "cosine"})
POPULARITY = ("popularity", {})


def histories() -> sparse.csr_matrix:
    random = np.random.default_rng(8)
    held = random.random((40, 20)) < 0.2
    held[np.arange(40), np.arange(40) % 20] = True
    return sparse.csr_matrix(np.where(held, random.choice([1.0, 2.0], held.shape), 0).astype(np.float32))


def blended(*parts: tuple[tuple[str, dict[str, Any]], float], **parameters: Any) -> Blend:
    words = [{"algorithm": name, "parameters": own, "weight": weight} for (name, own), weight in parts]
    blend = Blend(words, **parameters)
    blend.fit(histories())
    return blend


def alone(part: tuple[str, dict[str, Any]]) -> Algorithm:
    algorithm = algorithm_named(part[0])(**part[1])
    algorithm.fit(histories())
    return algorithm


def free(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The scores with those of held items left out (NaN)."""
    return np.where(histories().toarray() > 0, np.nan, scores)


def standardised(part: tuple[str, dict[str, Any]]) -> npt.NDArray[np.float32]:
    scores = free(alone(part).scores(histories()))
    return (scores - np.nanmean(scores, axis=1, keepdims=True)) / np.nanstd(scores, axis=1, keepdims=True)


def test_scores_are_the_weighted_sum_of_the_parts_standardised_over_what_is_not_held() -> None:
    expected = 0.7 * standardised(EASE) + 0.3 * standardised(ITEM_ITEM)
    scores = free(blended((EASE, 0.7), (ITEM_ITEM, 0.3)).scores(histories()))
    assert np.allclose(scores, expected, atol=1e-4, equal_nan=True)


def test_ranked_scores_are_sums_of_reciprocal_ranks_among_what_is_not_held() -> None:
    blend = blended((EASE, 0.7), (POPULARITY, 0.3), normalisation="ranked")
    expected = np.zeros((40, 20))
    for part, weight in ((EASE, 0.7), (POPULARITY, 0.3)):
        ranks = rankdata(-free(alone(part).scores(histories())), method="min", axis=1, nan_policy="omit")
        expected += weight / (10 + ranks)
    assert np.allclose(free(blend.scores(histories())), free(expected), atol=1e-6, equal_nan=True)


def test_scores_that_are_all_alike_say_nothing() -> None:
    """Their standard deviation is rounding, which would turn them into noise."""
    alike = np.full((40, 20), 0.1, np.float32) + np.linspace(0, 1e-8, 20, dtype=np.float32)
    assert not normalised(alike.copy(), histories(), "standardised").any()
    assert not normalised(np.full_like(alike, 0.1), histories(), "ranked").any()


def test_contributions_sum_to_the_score_but_for_what_is_the_same_for_all_items() -> None:
    blend = blended((EASE, 0.7), (ITEM_ITEM, 0.3))
    history = histories()[3]
    scores = blend.scores(history)[0]
    items = [item for item in range(20) if item not in history.indices]
    rest = [scores[item] - blend.contributions(history, item).sum() for item in items]
    assert rest == pytest.approx([rest[0]] * len(rest), abs=1e-4)


def test_contributions_are_the_parts_in_the_unit_of_their_scores() -> None:
    history = histories()[3]
    expected = np.zeros(history.nnz)
    for part, weight in ((EASE, 0.7), (ITEM_ITEM, 0.3)):
        spread = np.nanstd(free(alone(part).scores(histories()))[3])
        expected += weight * alone(part).contributions(history, 5) / spread
    blend = blended((EASE, 0.7), (ITEM_ITEM, 0.3))
    assert blend.contributions(history, 5) == pytest.approx(expected, abs=1e-5)


def test_similar_items_are_as_the_heaviest_part_that_knows_any_has_them() -> None:
    blend = blended((ITEM_ITEM, 0.2), (EASE, 0.3), (POPULARITY, 0.5))
    assert blend.similar_items(4, 5)[0].tolist() == alone(EASE).similar_items(4, 5)[0].tolist()
    assert alone(EASE).similar_items(4, 5)[0].tolist() != alone(ITEM_ITEM).similar_items(4, 5)[0].tolist()
    assert blended((POPULARITY, 1.0)).similar_items(4, 5)[0].tolist() == []


def test_parameters_name_every_parameter_of_every_part() -> None:
    assert blended((ITEM_ITEM, 0.3)).parameters == {
        "parts": [
            {
                "algorithm": "item_item",
                "parameters": {"weighting": "cosine", "neighbours": 200, "activity": 0.25},
                "weight": 0.3,
            }
        ],
        "normalisation": "standardised",
    }


def test_arrays_carry_the_number_of_their_part() -> None:
    parts = [(POPULARITY, 1.0)] * 11 + [(EASE, 1.0)]
    arrays = blended(*parts).arrays()
    assert list(arrays)[:2] == ["0.popularity", "1.popularity"]
    assert "11.weights" in arrays
    again = Blend.from_arrays(blended(*parts).parameters, arrays)
    assert again.scores(histories()).tolist() == blended(*parts).scores(histories()).tolist()


def test_ages_reach_the_parts() -> None:
    parts = [{"algorithm": "popularity", "parameters": {"half_life_days": 2}, "weight": 1.0}]
    blend = Blend(parts)
    blend.fit(sparse.csr_matrix(np.array([[1, 1]], np.float32)), np.array([0, 2], np.float32))
    assert blend.arrays()["0.popularity"].tolist() == [1, 0.5]
    assert blend.looks_at_ages
    assert not blended((POPULARITY, 1.0)).looks_at_ages
