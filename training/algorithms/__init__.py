"""The algorithms: one interface (`base.py`), one file an algorithm."""

from training.algorithms.base import Algorithm


def algorithm_named(name: str) -> type[Algorithm]:
    """The algorithm that calls itself `name`.

    Raises:
        ValueError: no algorithm does.
    """
    raise ValueError(f"no algorithm is called {name!r}")
