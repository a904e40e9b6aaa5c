"""The people that recipes are compared on: a sample of a hold-out, the same for every recipe."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from training.bundle import Model
from training.evaluation import rank
from training.interactions import IdMap
from training.ranking import Floats, K
from training.recency import Recency
from training.split import Split

PEOPLE = 5_000
"""Judged at most. The difference between two recipes is then known to about a hundredth of their nDCG."""
GLANCE = 1_000
"""Judged after a round of fitting, to see whether it is worth going on."""
STANDARD_ERRORS = 2.0


class Gain(NamedTuple):
    """What one way is better by than another, on the same people.

    Attributes:
        mean: of the differences in nDCG@10.
        error: its standard error.
    """

    mean: float
    error: float

    @property
    def certain(self) -> bool:
        """Whether it is more than chance."""
        return self.mean > STANDARD_ERRORS * self.error


def gain(of: Floats, over: Floats) -> Gain:
    """The gain of (people,) figures over those of the same people.

    >>> gain(np.array([0.5, 0.5, 0.7, 0.7]), np.array([0.3, 0.5, 0.3, 0.5])).certain
    True
    """
    differences = of - over
    return Gain(float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(len(of))) if len(of) > 1 else np.inf)


def sample(split: Split, people: int = PEOPLE, seed: int = 0) -> Split:
    """The split with that many of its people, drawn at random; the split itself where it has no more."""
    if len(split.fresh) <= people:
        return split
    rows = np.sort(np.random.default_rng(seed).choice(len(split.fresh), people, replace=False))
    fresh = split.fresh[rows]
    return replace(
        split,
        people=IdMap(tuple(split.people.ids[row] for row in rows)),
        stale=fresh if split.stale is split.fresh else split.stale[rows],
        fresh=fresh,
        held_out=split.held_out[rows],
    )


def judge(model: Model, split: Split, recency: Recency) -> npt.NDArray[np.float64]:
    """(people,) nDCG@10 with fresh histories."""
    return rank(model, split, split.fresh.weighted(recency), K).ndcg()
