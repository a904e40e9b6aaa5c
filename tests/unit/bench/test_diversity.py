"""The benchmark of variety: what it compares with, and its figures on data of known answer."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from bench.diversity import cost, marginal_relevance, of_model
from ingest.events import Item, read_domain
from serving.diversity import category_vectors
from training.recipe import Recipe
from training.split import leave_last
from workshop.datasets import ACTS, Dataset
from workshop.reading import catalogue_of, events_of

WESTERN, COMEDY = {"genres": ["Western"]}, {"genres": ["Comedy"]}


def test_marginal_relevance_takes_the_best_of_what_is_unlike() -> None:
    """No strength: the order; full strength: the odd one out is second."""
    vectors = category_vectors([WESTERN] * 5 + [COMEDY], "genres")
    assert marginal_relevance(vectors, 6, 0.0) == list(range(6))
    assert marginal_relevance(vectors, 2, 1.0) == [0, 5]


def test_the_cost_is_a_share_of_the_own_order() -> None:
    """Half of theirs lost by one of two people, of whom that one had two thirds, is a third of all."""
    assert cost(np.array([0.5, 0.5]), np.array([1.0, 0.5])) == {"ndcg_change_percent": -33.33, "standard_error": 23.57}


def test_the_figures_of_a_small_audience() -> None:
    """Every way and strength has them; the strongest has more categories in ten than the model's own order."""
    domain = read_domain(Path(__file__).parents[3] / "domain.toml")
    items = [Item(item_id=f"m{i:03}", attributes={"genres": [f"g{i % 7}"]}) for i in range(140)]
    start = datetime(2026, 1, 1, tzinfo=UTC)
    acts = [
        (f"u{user:02}", f"m{(7 * step + user % 7 + user * step // 9) % 140:03}", "play", start + timedelta(hours=step))
        for user in range(40)
        for step in range(18)
    ]
    dataset = Dataset("small", items, pl.DataFrame(acts, ACTS, orient="row"))
    split = leave_last(events_of(dataset, domain.history_weights), catalogue_of(dataset), domain.history.length, 5)
    found = of_model(Recipe("ials", {"factors": 8}), split, "genres")
    orders = [one for one in found["new_orders"] if (one["way"], one["vectors"]) == ("determinantal", "categories")]
    assert len(orders) == 6
    assert orders[-1]["categories_in_10"] > found["own_order"]["categories_in_10"]
    assert {"ndcg_at_10", "coverage_at_10", "gini_at_10", "ndcg_change_percent", "standard_error"} <= orders[0].keys()
