"""Which recipe to train: the candidates and the champion's, compared on one hold-out."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import structlog

from training.algorithms import algorithm_named
from training.algorithms.base import Algorithm
from training.evaluation import Evaluation, evaluate, evaluate_popularity, fit
from training.split import Split


class Recipe(NamedTuple):
    """An algorithm and its parameters."""

    algorithm: str
    parameters: Mapping[str, Any]

    def make(self) -> Algorithm:
        """The algorithm, not fitted yet, with every parameter that the recipe leaves out at its default."""
        return algorithm_named(self.algorithm)(**self.parameters)

    def whole(self) -> "Recipe":
        """The same with every parameter named, so that two can be compared."""
        return Recipe(self.algorithm, self.make().parameters)


CANDIDATES = (
    Recipe("als", {"factors": 64, "regularization": 10.0, "alpha": 3.0, "iterations": 15}),
    Recipe("item_item", {"weighting": "tfidf", "neighbours": 100}),
)


class Comparison(NamedTuple):
    """Models on one hold-out, all fitted on what happened before its cut.

    Attributes:
        best: the candidate whose fresh nDCG@10 is highest, of two as good the first.
        challenger: what it is worth.
        popularity: the same list for everybody.
        champion: the champion's recipe; None when there is no champion.
    """

    best: Recipe
    challenger: Evaluation
    popularity: Evaluation
    champion: Evaluation | None

    def metrics(self) -> dict[str, float]:
        """All figures by name; without a prefix: the challenger with fresh histories."""
        figures = self.challenger.fresh.named("") | self.challenger.stale.named("stale_")
        figures |= self.popularity.fresh.named("popularity_")
        return figures | (self.champion.fresh.named("champion_") if self.champion else {})


def compare(split: Split, champion: Recipe | None, candidates: Sequence[Recipe] = CANDIDATES) -> Comparison:
    """Fit and judge every candidate, popularity and the champion's recipe."""
    judged: list[tuple[Recipe, Evaluation]] = []
    for recipe in candidates:
        judged.append((recipe.whole(), evaluate(fit(recipe.make(), split), split)))
        structlog.get_logger(__name__).info(
            "candidate judged", algorithm=recipe.algorithm, ndcg_at_10=round(judged[-1][1].fresh.ndcg_at_10, 4)
        )
    best, challenger = max(judged, key=lambda one: one[1].fresh.ndcg_at_10)
    return Comparison(best, challenger, evaluate_popularity(split), _champion(split, champion, judged))


def _champion(split: Split, champion: Recipe | None, judged: Sequence[tuple[Recipe, Evaluation]]) -> Evaluation | None:
    if champion is None:
        return None
    for recipe, evaluation in judged:
        if recipe == champion.whole():
            return evaluation
    return evaluate(fit(champion.make(), split), split)
