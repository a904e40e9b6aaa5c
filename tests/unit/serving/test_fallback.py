"""The ladder of tiers: the best list that can be read is served."""

from collections.abc import Callable

import numpy as np
import orjson
import pytest

from ingest.events import Domain, ItemRules
from serving.catalogue import Catalogue, empty_catalogue
from serving.fallback import StoredLists, Tier, choose, ranked
from serving.filters import Wanted
from training.bundle import Bundle, encode_list

LIVE = encode_list(np.array([3, 1]))
PERSONAL = encode_list(np.array([2]))
CORRUPT = b"\x01\x02\x03"
OUT_OF_RANGE = encode_list(np.array([99]))
NOTHING = b""
RULES = ItemRules(attributes={})


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
    choice = choose(Catalogue.of(1, make_bundle(), RULES), stored, Wanted(3))
    shown = [item["item_id"] for item in orjson.loads(b"[%b]" % choice.items)]
    assert (choice.tier, shown, choice.corrupt) == (tier, items, corrupt)


def test_a_list_whose_items_are_all_hidden_is_passed_over(make_bundle: Callable[..., Bundle]) -> None:
    """An empty answer is worth less than the next tier's."""
    catalogue = Catalogue.of(1, make_bundle(), RULES, frozenset({"m1", "m3"}))
    assert choose(catalogue, StoredLists(LIVE, PERSONAL), Wanted(3)).tier is Tier.PERSONAL


def test_before_the_first_version_there_is_the_static_list() -> None:
    """Nothing was published: the answer is empty and says so."""
    assert choose(empty_catalogue(), None, Wanted(3)) == (Tier.STATIC, b"", 0)


COMEDY = (("category", "Comedy"),)


def _ranked(catalogue: Catalogue, stored: StoredLists | None, wanted: Wanted) -> tuple[Tier, list[str]]:
    tier, indices, _ = ranked(catalogue, stored, wanted)
    return tier, [catalogue.items.ids[index] for index in indices]


def test_a_persons_own_items_come_first_and_popular_ones_that_pass_follow(cinema: Bundle, domain: Domain) -> None:
    """f20 to f33 are the comedies, popular in this order."""
    catalogue = Catalogue.of(1, cinema, domain.items)
    own = StoredLists(None, encode_list(np.array([5, 33, 40, 21])))
    assert _ranked(catalogue, own, Wanted(4, COMEDY)) == (Tier.PERSONAL, ["f33", "f21", "f20", "f22"])


def test_a_list_of_which_no_item_passes_gives_way_to_the_popular_ones_of_the_category(
    cinema: Bundle, domain: Domain
) -> None:
    """The answer says popular, for that is what it is; of an unknown category it is empty."""
    catalogue = Catalogue.of(1, cinema, domain.items)
    own = StoredLists(encode_list(np.array([5])), None)
    assert _ranked(catalogue, own, Wanted(2, COMEDY)) == (Tier.POPULAR, ["f20", "f21"])
    assert _ranked(catalogue, own, Wanted(2, (("category", "unknown"),))) == (Tier.POPULAR, [])


def test_excluded_items_are_left_out_everywhere(cinema: Bundle, domain: Domain) -> None:
    """Of a person's list the next ones take their place, and of the popular list."""
    catalogue = Catalogue.of(1, cinema, domain.items)
    own = StoredLists(None, encode_list(np.array([5, 33, 40, 21])))
    assert _ranked(catalogue, own, Wanted(2, (), frozenset({"f05", "unknown"}))) == (Tier.PERSONAL, ["f33", "f40"])
    without = Wanted(3, COMEDY, frozenset({"f33", "f20"}))
    assert _ranked(catalogue, own, without) == (Tier.PERSONAL, ["f21", "f22", "f23"])
    assert _ranked(catalogue, None, without) == (Tier.POPULAR, ["f21", "f22", "f23"])


@pytest.mark.parametrize("hidden", [frozenset[str](), frozenset({"f05", "f00"})])
@pytest.mark.parametrize("wanted", [Wanted(3), Wanted(3, COMEDY), Wanted(3, (), frozenset({"f33"})), Wanted(100)])
@pytest.mark.parametrize(
    "stored", [None, StoredLists(CORRUPT, encode_list(np.array([5, 33, 40, 21]))), StoredLists(OUT_OF_RANGE, None)]
)
def test_what_is_rendered_is_what_is_ranked(
    cinema: Bundle, domain: Domain, hidden: frozenset[str], wanted: Wanted, stored: StoredLists | None
) -> None:
    """The quick way and the one that others explain give the same list, tier and count."""
    catalogue = Catalogue.of(1, cinema, domain.items, hidden)
    tier, indices, corrupt = ranked(catalogue, stored, wanted)
    assert choose(catalogue, stored, wanted) == (tier, catalogue.join(indices), corrupt)
