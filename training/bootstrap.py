"""How sure a figure is: its interval over people, by the bootstrap (Efron and Tibshirani 1993, chapter 13).

People are drawn with replacement, as many as there are, and every figure is computed again for those who were drawn.
The spread of the figures so computed, laid around the figure itself, is the interval. Around the figure, because a
draw repeats people: it has fewer different ones, so coverage comes out lower and the Gini index higher in every draw.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from training.bundle import Indices
from training.ranking import Floats, Ranking, coverage, gini, shares, surprise

RESAMPLES = 500
LEVEL = 0.95
CELLS = 4_000_000
"""Numbers that are held in memory at once: 32 MB."""


class Figure(NamedTuple):
    """A metric and its interval: what other people of the same kind might have made of it."""

    value: float
    low: float
    high: float


def figures(
    ranking: Ranking, ks: Sequence[int], *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> dict[str, Figure]:
    """Every metric at every k: `ndcg@10` and so on.

    The others are recall, capped_recall, map, mrr, coverage, gini, novelty and mean_popularity.

    Args:
        ranking: with lists of max(ks) places or more.
        ks: list lengths to look at.
        resamples: draws of people.
        level: share of the draws that an interval holds.
        seed: of the draws; rankings of the same people are judged on the same draws.
    """
    everybody = np.ones((1, len(ranking.lists)), np.int32)
    found: dict[str, Figure] = {}
    for k in ks:
        sample = _Sample(ranking, k)
        values = sample.figures(everybody)
        parts = [sample.figures(times) for times in _draws(ranking, resamples, seed)]
        for name, value in values.items():
            drawn = np.concatenate([part[name] for part in parts])
            found[f"{name}@{k}"] = _interval(float(value[0]), drawn, level, np.inf if name == "novelty" else 1.0)
    return found


def _draws(ranking: Ranking, resamples: int, seed: int) -> Iterator[npt.NDArray[np.int32]]:
    """(draws, people) how often each person was drawn, some draws at a time."""
    people = len(ranking.lists)
    random = np.random.default_rng(seed)
    step = max(1, CELLS // max(people, len(ranking.popularity)))
    for start in range(0, resamples, step):
        draws = range(start, min(start + step, resamples))
        yield np.stack(
            [np.bincount(random.integers(0, people, people), minlength=people).astype(np.int32) for _ in draws]
        )


class _Sample:
    """One ranking at one k, prepared so that many draws of its people are judged at once."""

    def __init__(self, ranking: Ranking, k: int) -> None:
        lists = ranking.lists[:, :k]
        self._means = {
            "ndcg": ranking.ndcg(k),
            "recall": ranking.recall(k),
            "capped_recall": ranking.capped_recall(k),
            "map": ranking.average_precision(k),
            "mrr": ranking.reciprocal_rank(k),
        }
        self._listed = (lists >= 0).sum(axis=1)
        self._sums = {
            "novelty": _sums(lists, surprise(ranking.popularity, ranking.trained)),
            "mean_popularity": _sums(lists, shares(ranking.popularity, ranking.trained)),
        }
        self._shown = _shown(lists, len(ranking.popularity))

    def figures(self, times: npt.NDArray[np.int32]) -> dict[str, Floats]:
        """Metric → (draws,), of (draws, people): how often each person was drawn."""
        found = {name: times @ values / times.sum(axis=1) for name, values in self._means.items()}
        exposed = np.ascontiguousarray((self._shown @ times.T).T)
        found |= {"coverage": coverage(exposed), "gini": gini(exposed)}
        listed = np.maximum(times @ self._listed, 1)
        return found | {name: times @ sums / listed for name, sums in self._sums.items()}


def _sums(lists: Indices, values: Floats) -> Floats:
    """(people,) the sum of the values of what each was shown."""
    return np.asarray(np.where(lists >= 0, values[lists], 0.0).sum(axis=1))


def _shown(lists: Indices, items: int) -> sparse.csr_matrix:
    """(items, people) CSR: 1 where a person's list has the item."""
    people, _ = np.nonzero(lists >= 0)
    ones = np.ones(len(people), np.int32)
    return sparse.csr_matrix((ones, (lists[lists >= 0], people)), shape=(items, len(lists)))


def _interval(value: float, drawn: Floats, level: float, most: float) -> Figure:
    """The figure is in its interval, and that ends where the metric does: from 0 to `most`."""
    low, high = value + np.quantile(drawn - drawn.mean(), [(1 - level) / 2, (1 + level) / 2])
    return Figure(value, min(max(0.0, float(low)), value), max(min(float(high), most), value))
