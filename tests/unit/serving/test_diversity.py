"""A list in an order that is not all of one kind."""

from typing import Any

import numpy as np
import pytest

from serving.diversity import STRENGTH, category_vectors, spread

WESTERN, COMEDY, BOTH = {"genres": ["Western"]}, {"genres": ["Comedy"]}, {"genres": ["Western", "Comedy"]}
NONE: dict[str, list[str]] = {}


def test_vectors_are_alike_as_far_as_categories_are_shared() -> None:
    """Rows of length 1; two items of no category are alike; a category named twice counts once; one word is one."""
    items: list[dict[str, Any]] = [WESTERN, COMEDY, BOTH, NONE]
    items += [{"genres": []}, {"genres": ["Comedy", "Comedy"]}, {"genres": "Comedy"}]
    vectors = category_vectors(items, "genres")
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    alike = vectors @ vectors.T
    assert alike[0, 1] == alike[0, 3] == 0
    assert alike[0, 2] == pytest.approx(2**-0.5)
    assert alike[3, 4] == alike[1, 5] == alike[1, 6] == pytest.approx(1)


def test_no_strength_leaves_the_order_as_it_is() -> None:
    """Relevance falls with the places."""
    assert spread(category_vectors([WESTERN, WESTERN, COMEDY] * 10, "genres"), 30, 0.0) == list(range(30))


def test_the_first_place_stays_and_another_category_follows() -> None:
    """Nine Westerns, then a comedy: at full strength it is second, at the default it has moved up."""
    vectors = category_vectors([WESTERN] * 9 + [COMEDY], "genres")
    assert spread(vectors, 3, 1.0)[:2] == [0, 9]
    places = spread(vectors, 10)
    assert places[0] == 0
    assert places.index(9) < 9
    assert [place for place in places if place != 9] == list(range(9))


def test_stronger_means_earlier() -> None:
    """The place of the odd one out never falls as strength grows."""
    vectors = category_vectors([WESTERN] * 9 + [COMEDY], "genres")
    found = [spread(vectors, 10, strength).index(9) for strength in (0, 0.01, STRENGTH, 0.2, 0.5, 1)]
    assert found == sorted(found, reverse=True)
    assert (found[0], found[-1]) == (9, 1)


def test_it_is_the_determinant_that_grows_most() -> None:
    """Each place is the best of all that are left, by the definition: relevance and log-determinant of the kernel."""
    drawn = np.random.default_rng(3).normal(size=(12, 5)).astype(np.float32)
    vectors = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    kernel = 0.99 * (vectors @ vectors.T).astype(np.float64) + 0.01 * np.eye(12)
    relevance, strength = 1 / np.log2(np.arange(2, 14)), 0.4
    taken: list[int] = []

    def worth(places: list[int]) -> float:
        volume = np.linalg.slogdet(kernel[np.ix_(places, places)])[1]
        return float((1 - strength) * relevance[places].sum() + strength * volume)

    for _ in range(8):
        taken.append(max((place for place in range(12) if place not in taken), key=lambda p: worth([*taken, p])))
    assert spread(vectors, 8, strength) == taken


@pytest.mark.parametrize(("places", "k"), [(0, 5), (1, 5), (5, 0), (3, 100), (100, 100)])
def test_every_place_is_taken_once(places: int, k: int) -> None:
    """Whatever the lengths, and though all items are the same."""
    found = spread(category_vectors([WESTERN] * places, "genres"), k)
    assert len(found) == len(set(found)) == min(places, k)
    assert set(found) <= set(range(places))


def test_a_shorter_list_is_the_beginning_of_a_longer_one() -> None:
    """What is taken does not depend on what follows."""
    vectors = category_vectors([WESTERN, WESTERN, COMEDY, BOTH, NONE] * 8, "genres")
    assert spread(vectors, 40)[:7] == spread(vectors, 7)
