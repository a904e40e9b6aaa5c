"""What a model is made from: an algorithm, its parameters, and how it is asked."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from training.algorithms import algorithm_named
from training.algorithms.base import Algorithm
from training.recency import UNWEIGHTED, Recency


class Recipe(NamedTuple):
    """An algorithm, its parameters, and the recency that histories are weighed by when it is asked."""

    algorithm: str
    parameters: Mapping[str, Any]
    recency: Recency = UNWEIGHTED

    def make(self) -> Algorithm:
        """The algorithm, not fitted yet, with every parameter that the recipe leaves out at its default."""
        return algorithm_named(self.algorithm)(**self.parameters)

    def whole(self) -> "Recipe":
        """The same with every parameter named, so that two can be compared."""
        return Recipe(self.algorithm, self.make().parameters, self.recency)
