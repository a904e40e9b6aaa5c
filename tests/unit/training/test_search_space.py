"""Where the search looks: around what the shape of the data suggests."""

import numpy as np
import pytest
from scipy import sparse

from training.recipe import Recipe
from training.search_space import Shape, default_recipes, shape_of, spaces, suggested, untuned

SHAPES = {
    "ml-1m": Shape(6_040, 3_706, 891_410),
    "gowalla": Shape(29_858, 40_981, 810_128),
    "ml-latest-small": Shape(671, 9_125, 100_004),
    "three events": Shape(2, 2, 3),
    "nothing": Shape(0, 0, 0),
    "one item": Shape(50, 1, 50),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_default_is_a_recipe_and_lies_in_its_range(shape: Shape) -> None:
    for recipe in default_recipes(shape):
        assert recipe.make().name == recipe.algorithm
    for space in spaces(shape).values():
        assert all(where.low <= where.default <= where.high for where in space.ranges.values())


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_whatever_the_search_suggests_is_a_recipe(shape: Shape) -> None:
    import optuna

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for algorithm, space in spaces(shape).items():
        for _ in range(5):
            recipe = suggested(study.ask(), algorithm, space)
            assert recipe.make().name == algorithm
            assert set(recipe.parameters) == {*space.ranges, *space.fixed}


def test_an_algorithm_has_the_fixed_parameters_in_every_recipe() -> None:
    assert {recipe.algorithm: recipe for recipe in default_recipes(SHAPES["ml-1m"])}["item_item"] == Recipe(
        "item_item", {"weighting": "cosine", "activity": 0.5, "neighbours": 200}
    )


def test_vectors_are_longer_where_there_are_more_people_and_items() -> None:
    lengths = [spaces(SHAPES[name])["ials"].ranges["factors"].default for name in ("ml-latest-small", "ml-1m")]
    assert lengths == [128, 256]
    assert spaces(SHAPES["gowalla"])["ials"].ranges["factors"].default == 512


def test_what_was_not_met_weighs_less_where_little_was_met() -> None:
    dense, thin = (spaces(SHAPES[name])["ials"].ranges["alpha0"].default for name in ("ml-1m", "gowalla"))
    assert 0.2 < dense < 0.4
    assert 0.01 < thin < 0.04


def test_ease_is_for_small_catalogues() -> None:
    assert untuned(SHAPES["ml-1m"]).algorithm == "ease"
    assert untuned(SHAPES["gowalla"]).algorithm == "ials"


def test_the_shape_is_that_of_the_matrix() -> None:
    assert shape_of(sparse.csr_matrix(np.eye(3, 4, dtype=np.float32))) == Shape(3, 4, 3)


@pytest.mark.parametrize("algorithm", ["item_item", "gf_cf", "ials", "ease", "als"])
def test_every_default_finds_the_tastes_of_three_hundred_people(algorithm: str) -> None:
    """Five tastes of thirty items; people have fourteen of their taste and four of any. Two of the taste are hidden."""
    random = np.random.default_rng(0)
    people = np.zeros((300, 150), np.float32)
    hidden = np.zeros((300, 2), np.int64)
    for person in range(300):
        of_taste = random.permutation(30)[:14] + 30 * (person % 5)
        people[person, of_taste[2:]] = people[person, random.permutation(150)[:4]] = 1
        people[person, of_taste[:2]] = 0
        hidden[person] = of_taste[:2]
    user_items = sparse.csr_matrix(people)
    recipe = next(one for one in default_recipes(shape_of(user_items)) if one.algorithm == algorithm)
    model = recipe.make()
    model.fit(user_items)
    listed = model.recommend(user_items, 18)[0]
    # Eighteen items of the taste are left: whoever knows the tastes finds nearly all, by chance it is an eighth.
    assert np.mean([np.isin(hidden[person], listed[person]).mean() for person in range(300)]) > 0.6
