"""Recipes: what a model is made from."""

from training.recency import Recency
from training.recipe import Recipe


def test_a_recipe_that_leaves_parameters_out_is_the_one_that_names_them() -> None:
    asked = Recency(boost=2)
    assert Recipe("als", {}, asked).whole() == Recipe("als", Recipe("als", {}).make().parameters, asked)
