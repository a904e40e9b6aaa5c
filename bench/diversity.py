"""What variety costs and gains: lists in a new order, by two ways, over two sorts of vectors, at several strengths.

    .venv/bin/python -m bench.diversity ../shared/data/ml-latest-small

DATA is a MovieLens folder. Of everybody's items the last ten are held out; lists of 100 are made by two models and put
in a new order, as the home page does with the top picks. Writes bench/results/diversity.json.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from ingest.events import read_domain
from serving.diversity import STRENGTH, Vectors, category_vectors, spread
from training.algorithms.base import Algorithm
from training.bundle import Indices
from training.evaluation import fit, judge, lists
from training.recency import Recency
from training.recipe import Recipe
from training.split import Split, leave_last
from workshop.datasets import read_movielens
from workshop.reading import catalogue_of, events_of

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench/results/diversity.json"
CANDIDATES, K, HELD_OUT = 100, 10, 10
RECIPES = (Recipe("ease", {"regularization": 300.0}, Recency(boost=4.0, half_life=0.1)), Recipe("ials", {}))

Way = Callable[[Vectors, int, float], list[int]]
Figures = dict[str, float]


def marginal_relevance(vectors: Vectors, k: int, strength: float) -> list[int]:
    """Each place is the best of what is left, less its likeness to the nearest before (Carbonell and Goldstein 1998).

    Args:
        vectors: (places, any) rows of length 1, of the items of a list, best first.
        k: places wanted.
        strength: 1 - λ of the paper.
    """
    worth = (1 - strength) / np.log2(np.arange(2, len(vectors) + 2))
    nearest, taken = np.zeros(len(vectors)), list[int]()
    for _ in range(min(k, len(vectors))):
        place = int(np.argmax(worth - strength * nearest))
        taken.append(place)
        worth[place] = -np.inf
        np.maximum(nearest, vectors @ vectors[place], out=nearest)
    return taken


WAYS: Mapping[str, tuple[Way, tuple[float, ...]]] = {
    "determinantal": (spread, (0.01, 0.02, 0.035, STRENGTH, 0.08, 0.16)),
    "marginal_relevance": (marginal_relevance, (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)),
}


def main() -> None:
    """Measure, print and write."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "../shared/data/ml-latest-small")
    domain, dataset = read_domain(ROOT / "domain.toml"), read_movielens(folder)
    if domain.items.category is None:
        sys.exit("domain.toml names no category (items.category), so nothing can be spread over categories")
    events = events_of(dataset, domain.history_weights)
    split = leave_last(events, catalogue_of(dataset), domain.history.length, HELD_OUT)
    result = {
        "command": f"python -m bench.diversity {folder.name}",
        "measured": datetime.now(UTC).date().isoformat(),
        "people": len(split.people),
        "candidates": CANDIDATES,
        "k": K,
        "served": {"way": "determinantal", "vectors": "categories", "strength": STRENGTH},
        "models": {recipe.algorithm: of_model(recipe, split, domain.items.category) for recipe in RECIPES},
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    Console().print_json(json.dumps(result))


def of_model(recipe: Recipe, split: Split, category: str) -> dict[str, Any]:
    """The figures of a model's own order, and of each other one beside them."""
    categories = category_vectors(split.train.catalogue.attributes, category)
    vectors = {"categories": categories, "factors": factors(fit(Recipe("ials", {}), split.train))}
    made, _ = lists(fit(recipe, split.train), split, split.fresh.weighted(recipe.recency), CANDIDATES)
    own, per_person = figures(made, split, categories)
    others = []
    for sort, of_items in vectors.items():
        for name, (way, strengths) in WAYS.items():
            for strength in strengths:
                ordered, seconds = in_order(made, of_items, way, strength)
                found, of_person = figures(ordered, split, categories)
                setting = {
                    "way": name,
                    "vectors": sort,
                    "strength": strength,
                    "microseconds_a_list": round(seconds * 1e6),
                }
                others.append(setting | found | cost(of_person, per_person))
    return {"own_order": own, "new_orders": others}


def in_order(made: Indices, vectors: Vectors, way: Way, strength: float) -> tuple[Indices, float]:
    """(people, K) the first places in the new order, and seconds a list.

    Args:
        made: (people, candidates) item indices, best first.
        vectors: (items, any) that the way looks at.
        way: how places are taken.
        strength: of the way.
    """
    started = time.perf_counter()
    ordered = np.stack([of[way(vectors[of], K, strength)] for of in made])
    return ordered, (time.perf_counter() - started) / len(made)


def cost(ndcg: npt.NDArray[np.float64], own: npt.NDArray[np.float64]) -> Figures:
    """What a new order costs, in per cent of the own order's mean nDCG, with its standard error over the people."""
    change = 100 * (ndcg - own) / own.mean()
    error = change.std() / np.sqrt(len(change))
    return {"ndcg_change_percent": round(float(change.mean()), 2), "standard_error": round(float(error), 2)}


def figures(made: Indices, split: Split, categories: Vectors) -> tuple[Figures, npt.NDArray[np.float64]]:
    """What the first K places are worth, and nDCG of each person."""
    ranking, kinds = judge(made, split), categories[:, :-1] > 0
    per_person = ranking.ndcg(K)
    in_a_list = np.mean([kinds[of].any(axis=0).sum() for of in made[:, :K]])
    return {
        "ndcg_at_10": round(float(per_person.mean()), 4),
        "coverage_at_10": round(ranking.coverage(K), 4),
        "gini_at_10": round(ranking.gini(K), 4),
        "categories_in_10": round(float(in_a_list), 2),
    }, per_person


def factors(model: Algorithm) -> Vectors:
    """(items, factors) directions of the items as a factor model knows them."""
    vectors = model.arrays()["item_factors"].astype(np.float32)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9), np.float32)


if __name__ == "__main__":
    main()
