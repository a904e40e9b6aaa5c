"""Where a model is fitted and lists are made: in this process, or on a cluster."""

from collections.abc import Sequence
from typing import Protocol

from training.algorithms.base import Algorithm
from training.evaluation import fit
from training.interactions import Interactions
from training.recipe import Recipe


class EngineError(Exception):
    """The engine cannot be had, or gave up; the message says what to do. The champion keeps serving."""


class Engine(Protocol):
    """Fits recipes for the retraining job.

    Attributes:
        name: as the registry has it.
    """

    name: str

    def choose(self, recipes: Sequence[Recipe]) -> Recipe | None:
        """The recipe to train without a search, of those that were found before, the best first; None: search."""
        ...

    def fit(self, recipe: Recipe, train: Interactions, before_ms: int | None = None) -> Algorithm:
        """The recipe's algorithm, fitted.

        Args:
            recipe: what to fit.
            train: on these interactions.
            before_ms: they are what had happened before this moment, in milliseconds since 1970; None: all there is.

        Raises:
            EngineError: see there.
            training.algorithms.base.CatalogueTooLarge: see there.
        """
        ...


class OneProcess:
    """This process, with every algorithm there is."""

    name = "process"

    def choose(self, recipes: Sequence[Recipe]) -> Recipe | None:
        """See `Engine.choose`: here there is time to search."""
        return None

    def fit(self, recipe: Recipe, train: Interactions, before_ms: int | None = None) -> Algorithm:
        """See `Engine.fit`."""
        return fit(recipe, train)
