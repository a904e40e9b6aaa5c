"""What two versions would show the same people."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from training.bundle import Bundle, ItemTable, Manifest, Snapshot
from training.evaluation import fit
from training.interactions import Catalogue, IdMap, Interactions, histories, read_catalogue, read_events
from training.list_diff import ListDiff, diff_lists, rank_biased_overlap, shared
from training.recency import UNWEIGHTED, Recency
from training.recipe import Recipe

TFIDF = Recipe("item_item", {"weighting": "tfidf"})
POPULAR = Recipe("popularity", {})

Viewers = Callable[..., pl.DataFrame]


@pytest.fixture(scope="module")
def interactions(viewers: Viewers) -> Interactions:
    """Sixty viewers with tastes."""
    events = read_events(viewers().lazy(), {"play": 1.0})
    return histories(events.rows, read_catalogue(None, events), 100)


def bundle(recipe: Recipe, interactions: Interactions, recency: Recency = UNWEIGHTED) -> Bundle:
    model = fit(recipe, interactions)
    manifest = Manifest(
        algorithm=model.name,
        parameters=model.parameters,
        recency=recency,
        domain="films",
        history_length=100,
        snapshot=Snapshot(version=1, digest="", watermark={}, events=1, users=1),
        code="c0ffee",
        run_id="run",
        trained_at=datetime(2024, 1, 1, tzinfo=UTC),
        metrics={},
    )
    catalogue = interactions.catalogue
    table = ItemTable(catalogue.items.ids, catalogue.attributes, interactions.popularity)
    return Bundle(manifest, table, model, model.arrays())


def test_a_version_beside_itself_changes_nothing(interactions: Interactions) -> None:
    one = bundle(TFIDF, interactions)
    assert diff_lists(one, one, interactions) == ListDiff(60, 0.0, 1.0, 1.0, (0,) * 10 + (60,), ())


def test_another_model_changes_lists_and_the_items_that_gain_gain_what_others_lose(interactions: Interactions) -> None:
    old, new = bundle(POPULAR, interactions), bundle(TFIDF, interactions)
    found = diff_lists(old, new, interactions)
    assert (found.people, found.changed) == (60, 1.0)
    assert 0 < found.kept < 1
    assert 0 < found.overlap < 1
    assert sum(found.by_kept) == 60
    assert found.kept == pytest.approx(np.arange(11) @ np.array(found.by_kept) / 600)
    change = [one.after - one.before for one in found.items]
    assert change == sorted(change, reverse=True)
    assert sum(change) == 0
    back = diff_lists(new, old, interactions)
    assert {(one.item_id, one.after, one.before) for one in back.items} == {
        (one.item_id, one.before, one.after) for one in found.items
    }


def test_items_are_matched_by_id_not_by_their_place_in_a_version(interactions: Interactions, viewers: Viewers) -> None:
    """The newer version has an item that comes first in canonical order, so every index has moved."""
    first = viewers().head(1).with_columns(event_id=pl.lit("x"), item_id=pl.lit("a-new-one"))
    rows = pl.concat([viewers(), first])
    events = read_events(rows.lazy(), {"play": 1.0})
    wider = histories(events.rows, read_catalogue(None, events), 100)
    assert wider.catalogue.items.ids[0] == "a-new-one"
    found = diff_lists(bundle(TFIDF, interactions), bundle(TFIDF, wider), interactions)
    assert found.kept > 0.8


def test_recency_is_part_of_a_version(interactions: Interactions) -> None:
    plain, weighted = bundle(TFIDF, interactions), bundle(TFIDF, interactions, Recency(boost=50.0, half_life=0.05))
    assert diff_lists(plain, weighted, interactions).changed > 0.5


def test_of_many_people_a_seeded_sample_is_compared(interactions: Interactions) -> None:
    old, new = bundle(POPULAR, interactions), bundle(TFIDF, interactions)
    samples = [diff_lists(old, new, interactions, most=20, seed=seed) for seed in (0, 0, 1)]
    assert samples[0].people == 20
    assert samples[0] == samples[1] != samples[2]


def test_attributes_come_along_the_newer_ones_first(interactions: Interactions) -> None:
    titled = Catalogue(interactions.catalogue.items, ({"title": "Old"},) * len(interactions.catalogue.items))
    before = bundle(POPULAR, replace(interactions, catalogue=titled))
    after = bundle(TFIDF, interactions)
    assert {one.attributes.get("title") for one in diff_lists(after, before, interactions).items} == {"Old"}
    assert {one.attributes.get("title") for one in diff_lists(before, after, interactions).items} == {None}


def test_padding_is_shared_by_nobody() -> None:
    assert shared(np.array([[1, -1], [-1, -1]]), np.array([[-1, 1], [-1, -1]])).tolist() == [1, 0]


def test_the_first_places_count_most() -> None:
    base = np.arange(10)[None, :]
    top, bottom = base.copy(), base.copy()
    top[0, 0], bottom[0, 9] = 99, 99
    overlaps = [float(rank_biased_overlap(base, other)[0]) for other in (base, bottom, top)]
    assert overlaps[0] == pytest.approx(1.0)
    assert overlaps[0] > overlaps[1] > overlaps[2] > 0
    assert float(rank_biased_overlap(base, base + 50)[0]) == 0.0


def test_nobody_is_compared_where_nobody_is(interactions: Interactions) -> None:
    one = bundle(TFIDF, interactions)
    nobody = Interactions.of(IdMap(()), interactions.catalogue, interactions.rows.clear())
    assert diff_lists(one, one, nobody).people == 0
