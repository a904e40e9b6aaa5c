"""The catalogue: rendered once a version, swapped whole, kept when anything fails."""

from collections.abc import Callable

import numpy as np
import orjson
import pytest

from infra.online_store import OnlineStore
from ingest.events import Domain, ItemRules
from serving.catalogue import MOST_FILTERS, NO_VOTES, Catalogue, CorruptList
from serving.filters import Wanted
from training.bundle import Bundle, encode_list

RULES = ItemRules(attributes={})
MakeBundle = Callable[..., Bundle]
Publish = Callable[[OnlineStore, int, Bundle], None]


def _shown(items: bytes) -> list[str]:
    return [item["item_id"] for item in orjson.loads(b"[%b]" % items)]


def test_items_are_rendered_with_their_attributes(make_bundle: MakeBundle) -> None:
    """A fragment is the item's id and what was said of it."""
    items = Catalogue.of(1, make_bundle(), RULES).render(encode_list(np.array([2])), 1)
    assert orjson.loads(items) == {"item_id": "m2", "title": "Film m2"}


def test_hidden_items_are_left_out_and_the_next_ones_take_their_place(make_bundle: MakeBundle) -> None:
    """A list of k stays a list of k while it has further items; so does the popular list."""
    catalogue = Catalogue.of(1, make_bundle(), RULES).showing(frozenset({"m1", "unknown"}), NO_VOTES)
    assert _shown(catalogue.render(encode_list(np.array([0, 1, 2, 3])), 3)) == ["m0", "m2", "m3"]
    assert _shown(catalogue.popular(2)) == ["m0", "m2"]


@pytest.mark.parametrize("packed", [b"abc", b"abcde", encode_list(np.array([8])), b"\xff" * 4])
def test_what_cannot_be_a_list_is_corrupt(make_bundle: MakeBundle, packed: bytes) -> None:
    """A wrong length and an index outside the version are both noticed."""
    with pytest.raises(CorruptList):
        Catalogue.of(1, make_bundle(), RULES).render(packed, 20)


def test_kept_says_which_items_may_be_shown_and_pass(cinema: Bundle, domain: Domain) -> None:
    """One byte an item; hidden items are not kept."""
    catalogue = Catalogue.of(1, cinema, domain.items, frozenset({"f59", "unknown"}))
    kept = catalogue.kept(Wanted(filters=(("category", "Musical"),)))
    assert [index for index, one in enumerate(kept) if one] == [57, 58]
    assert sum(catalogue.kept(Wanted())) == 59


def test_what_is_kept_ready_has_bounds(cinema: Bundle, domain: Domain) -> None:
    """Values come from callers: however many they send, so many are remembered."""
    catalogue = Catalogue.of(1, cinema, domain.items)
    for number in range(3 * MOST_FILTERS):
        assert catalogue.popular_for(Wanted(2, (("category", f"c{number}"),))) == []
    assert len(catalogue._kept) == len(catalogue._popular_kept) == MOST_FILTERS
    assert catalogue.popular_for(Wanted(2, (("category", "War"),))) == [34, 35]
