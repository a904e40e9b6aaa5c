"""Where the search for a recipe looks: parameters of each algorithm, and what they should be for data of a shape."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from scipy import sparse

from training.recipe import Recipe

if TYPE_CHECKING:
    from optuna import Trial as Suggestions


FEW_ITEMS = 5_000


class Shape(NamedTuple):
    """Of what is trained on.

    Attributes:
        users: people.
        items: in the catalogue.
        interactions: of a person with an item.
    """

    users: int
    items: int
    interactions: int

    @property
    def density(self) -> float:
        """Share of all pairs that have met."""
        return max(self.interactions, 1) / max(self.users * self.items, 1)

    def factors(self, scale: float, most: int) -> int:
        """A power of two about `scale` times the root of the smaller side, from 16 to `most`."""
        wanted = scale * math.sqrt(max(min(self.users, self.items), 1))
        return min(most, max(16, int(2 ** round(math.log2(wanted)))))


def shape_of(user_items: sparse.csr_matrix) -> Shape:
    """The shape of (users, items) CSR."""
    return Shape(*user_items.shape, user_items.nnz)


class Range(NamedTuple):
    """Where a parameter is searched for.

    Attributes:
        default: what the shape of the data suggests; the parameter is a whole number if this is one.
        low: at least this.
        high: at most this.
        log: whether the search is even in the parameter's logarithm.
    """

    default: float
    low: float
    high: float
    log: bool = True

    def suggest(self, trial: "Suggestions", name: str) -> float:
        """What the search tries next."""
        if isinstance(self.default, int):
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


class Space(NamedTuple):
    """The recipes of an algorithm that are looked at. A parameter that is in neither stays as the algorithm has it.

    Attributes:
        ranges: parameter → where it is searched for; empty: the algorithm is tried once.
        fixed: parameter → its value.
    """

    ranges: Mapping[str, Range]
    fixed: Mapping[str, Any]


def spaces(shape: Shape) -> dict[str, Space]:
    """Algorithm → its space.

    The formulas were fitted on MovieLens (1M and latest-small) and Gowalla, three shapes that are far apart: 671 to
    29,858 people, densities of 0.0006 to 0.035. The ranges around them are narrow, a factor of two to four: so close to
    a good start, twenty trials say more about the best values than about bad ones.
    """
    return {
        "popularity": Space({}, {}),
        "item_item": Space(_item_item(), {"weighting": "cosine"}),
        "gf_cf": Space(_gf_cf(shape), {}),
        "ials": Space(_ials(shape), {}),
        "ease": Space(_ease(shape), {}),
        "als": Space({}, {}),
    }


def default_recipes(shape: Shape) -> list[Recipe]:
    """One of each algorithm, with the parameters that the shape of the data suggests."""
    return [default_recipe(algorithm, space) for algorithm, space in spaces(shape).items()]


def default_recipe(algorithm: str, space: Space) -> Recipe:
    """The recipe in the middle of a space."""
    return Recipe(algorithm, {**space.fixed, **{name: where.default for name, where in space.ranges.items()}})


def untuned(shape: Shape) -> Recipe:
    """What is trained where there is too little to choose on: `ease` for small catalogues, `ials` for large ones."""
    algorithm = "ease" if shape.items <= FEW_ITEMS else "ials"
    return default_recipe(algorithm, spaces(shape)[algorithm])


def suggested(trial: "Suggestions", algorithm: str, space: Space) -> Recipe:
    """A recipe of the algorithm, as the search wants it tried."""
    found = {name: where.suggest(trial, f"{algorithm}.{name}") for name, where in space.ranges.items()}
    return Recipe(algorithm, {**space.fixed, **found})


def _item_item() -> dict[str, Range]:
    return {"activity": Range(0.5, 0.0, 0.8, log=False), "neighbours": Range(200, 100, 400)}


def _gf_cf(shape: Shape) -> dict[str, Range]:
    return {"factors": _around(shape.factors(2, 512), 2), "weight": _around(0.5, 4)}


def _ials(shape: Shape) -> dict[str, Range]:
    return {
        "factors": _around(shape.factors(4, 512), 1.5),
        "alpha0": _around(2.2 * shape.density**0.58, 2),
        # Not more than this: with little data the formula asks for so much that only popularity is left.
        "regularization": _around(min(0.02, 14 * shape.density**0.25 / max(shape.interactions, 1) ** 0.5), 2),
        "iterations": Range(8, 6, 12),
        "activity": Range(0.25, 0.0, 0.5, log=False),
    }


def _ease(shape: Shape) -> dict[str, Range]:
    return {
        "regularization": _around(500.0 * min(1.0, max(shape.users, 1) / 5000) ** 0.5, 4),
        "denoising": _around(1.0, 4),
        "activity": Range(0.2, 0.0, 0.5, log=False),
    }


def _around(default: float, factor: float) -> Range:
    return Range(
        default, max(1, int(default / factor)) if isinstance(default, int) else default / factor, default * factor
    )
