"""The ladder of tiers: the best list that can be read is served."""

from collections.abc import Callable

import numpy as np
import orjson
import pytest

from serving.catalogue import Catalogue, empty_catalogue
from serving.fallback import StoredLists, Tier, choose
from training.bundle import Bundle, encode_list

LIVE = encode_list(np.array([3, 1]))
PERSONAL = encode_list(np.array([2]))
CORRUPT = b"\x01\x02\x03"
OUT_OF_RANGE = encode_list(np.array([99]))
NOTHING = b""


@pytest.mark.parametrize(
    ("stored", "tier", "items", "corrupt"),
    [
        (StoredLists(LIVE, PERSONAL), Tier.LIVE, ["m3", "m1"], 0),
        (StoredLists(None, PERSONAL), Tier.PERSONAL, ["m2"], 0),
        (StoredLists(NOTHING, PERSONAL), Tier.PERSONAL, ["m2"], 0),
        (StoredLists(CORRUPT, PERSONAL), Tier.PERSONAL, ["m2"], 1),
        (StoredLists(OUT_OF_RANGE, PERSONAL), Tier.PERSONAL, ["m2"], 1),
        (StoredLists(CORRUPT, OUT_OF_RANGE), Tier.POPULAR, ["m0", "m1", "m2"], 2),
        (StoredLists(None, None), Tier.POPULAR, ["m0", "m1", "m2"], 0),
        (None, Tier.POPULAR, ["m0", "m1", "m2"], 0),
    ],
)
def test_the_best_readable_list_is_chosen(
    make_bundle: Callable[..., Bundle], stored: StoredLists | None, tier: Tier, items: list[str], corrupt: int
) -> None:
    """Live before personal before popular; what is missing, empty or corrupt is passed over."""
    choice = choose(Catalogue.of(1, make_bundle()), stored, 3)
    shown = [item["item_id"] for item in orjson.loads(b"[%b]" % choice.items)]
    assert (choice.tier, shown, choice.corrupt) == (tier, items, corrupt)


def test_a_list_whose_items_are_all_hidden_is_passed_over(make_bundle: Callable[..., Bundle]) -> None:
    """An empty answer is worth less than the next tier's."""
    catalogue = Catalogue.of(1, make_bundle(), frozenset({"m1", "m3"}))
    assert choose(catalogue, StoredLists(LIVE, PERSONAL), 3).tier is Tier.PERSONAL


def test_before_the_first_version_there_is_the_static_list() -> None:
    """Nothing was published: the answer is empty and says so."""
    assert choose(empty_catalogue(), None, 3) == (Tier.STATIC, b"", 0)
