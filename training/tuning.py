"""Which recipe to train: candidates judged on a validation hold-out."""

from collections.abc import Sequence

import structlog

from training.evaluation import evaluate
from training.recipe import Recipe
from training.split import Split

CANDIDATES = (
    Recipe("als", {"factors": 64, "regularization": 10.0, "alpha": 3.0, "iterations": 15}),
    Recipe("item_item", {"weighting": "tfidf", "neighbours": 100}),
)


def select(split: Split, candidates: Sequence[Recipe] = CANDIDATES) -> Recipe:
    """The candidate whose fresh nDCG@10 is highest, of two as good the first."""
    judged: list[tuple[float, Recipe]] = []
    for recipe in candidates:
        judged.append((float(evaluate(recipe, split).fresh.ndcg().mean()), recipe.whole()))
        structlog.get_logger(__name__).info(
            "candidate judged", algorithm=recipe.algorithm, ndcg_at_10=round(judged[-1][0], 4)
        )
    return max(judged, key=lambda one: one[0])[1]
