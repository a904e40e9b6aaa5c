"""The algorithms: one interface (`base.py`), one file an algorithm."""

from importlib import import_module
from typing import cast

from training.algorithms.base import Algorithm

ALGORITHMS = {
    "popularity": "training.algorithms.popularity:Popularity",
    "als": "training.algorithms.als:ALS",
    "item_item": "training.algorithms.item_item:ItemItem",
    "ials": "training.algorithms.ials:IALS",
    "ease": "training.algorithms.ease:EASE",
    "gf_cf": "training.algorithms.gf_cf:GFCF",
    "blend": "training.algorithms.blend:Blend",
}
"""name → where its class is. Imported on demand, so that a process loads only what its bundle needs."""


def algorithm_named(name: str) -> type[Algorithm]:
    """The algorithm that calls itself `name`.

    Raises:
        ValueError: no algorithm does.
    """
    if name not in ALGORITHMS:
        raise ValueError(f"no algorithm is called {name!r}; there are {', '.join(ALGORITHMS)}")
    module, _, cls = ALGORITHMS[name].partition(":")
    return cast("type[Algorithm]", getattr(import_module(module), cls))
