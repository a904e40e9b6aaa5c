"""A list tells which version it is of, and an answer that mixes two of them is found out."""

import json

import numpy as np
import pytest

from bench.editions import ITEMS, edition, interactions, mixes, put, user
from infra.online_store import OnlineStore
from training.bundle import decode_list, list_key, load, recommend


def answer(version: int, *items: tuple[int, int]) -> bytes:
    """Items are their number and the version whose attributes they carry."""
    rows = [{"item_id": f"m{number:04}", "edition": edition} for number, edition in items]
    return json.dumps({"version": version, "items": rows}).encode()


@pytest.mark.parametrize("tier", ["live", "personal", "popular"])
def test_an_answer_of_one_version_mixes_nothing(tier: str) -> None:
    assert not mixes(answer(2, (4, 2), (8, 2)), tier=tier)


@pytest.mark.parametrize("tier", ["live", "personal", "popular"])
def test_items_rendered_with_another_version_are_found_out(tier: str) -> None:
    assert mixes(answer(2, (4, 2), (8, 1)), tier=tier)


def test_a_list_of_another_version_is_found_out() -> None:
    assert mixes(answer(2, (4, 2), (5, 2)), tier="personal")
    assert not mixes(answer(2, (4, 2), (5, 2)), tier="popular")


def test_what_is_put_into_the_store_and_what_the_model_lists_is_of_the_version(store: OnlineStore) -> None:
    people = [user(number) for number in range(20)]
    for version in (1, 2):
        put(store, version, people)
        stored = [store.get(list_key(version, name)) for name in people]
        assert all(isinstance(value, bytes) and set(decode_list(value) % 2) == {version % 2} for value in stored)
        bundle = load(edition(version).dump())
        histories = interactions(version, people).histories_of(slice(None)).user_items
        lists, _ = recommend(bundle.model, bundle.popular, histories, 100)
        assert lists.shape == (20, 100)
        assert set(np.unique(lists % 2)) == {version % 2}
        assert lists.max() < ITEMS
