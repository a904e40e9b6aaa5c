"""The ladder of tiers: whatever is missing, broken or down, there is a next best list."""

from enum import IntEnum
from typing import NamedTuple

from serving.catalogue import Catalogue, CorruptList
from serving.filters import Wanted


class Tier(IntEnum):
    """Where a list came from, best first. The numbers stand in recommendation ids and never change."""

    LIVE = 1
    PERSONAL = 2
    POPULAR = 3
    STATIC = 4

    @property
    def label(self) -> str:
        """Its name in answers and metrics."""
        return self.name.lower()


class StoredLists(NamedTuple):
    """A person's lists as they stand in the online store; None where there is none."""

    live: bytes | None
    personal: bytes | None


class Choice(NamedTuple):
    """The list that is served.

    Attributes:
        tier: where it came from.
        items: its items' JSON, joined by commas.
        corrupt: how many stored lists had to be passed over because they cannot be read.
    """

    tier: Tier
    items: bytes
    corrupt: int


class Ranked(NamedTuple):
    """The same as indices, for who needs to know the items.

    Attributes:
        tier: where it came from.
        indices: item indices, best first.
        corrupt: how many stored lists had to be passed over because they cannot be read.
    """

    tier: Tier
    indices: list[int]
    corrupt: int


def choose(catalogue: Catalogue, stored: StoredLists | None, wanted: Wanted) -> Choice:
    """The best list there is, rendered.

    Args:
        catalogue: the version that the lists belong to.
        stored: the person's lists; None when the online store does not answer.
        wanted: what is asked for.
    """
    if wanted.filters or wanted.exclude:
        tier, indices, corrupt = ranked(catalogue, stored, wanted)
        return Choice(tier, catalogue.join(indices), corrupt)
    corrupt = 0
    for tier, packed in _lists(stored):
        try:
            items = catalogue.render(packed, wanted.k)
        except CorruptList:
            corrupt += 1
            continue
        if items:
            return Choice(tier, items, corrupt)
    return Choice(_last_tier(catalogue), catalogue.popular(wanted.k), corrupt)


def ranked(catalogue: Catalogue, stored: StoredLists | None, wanted: Wanted) -> Ranked:
    """The best list there is; where filters leave too few of a person's items, popular ones that pass them follow.

    Args:
        catalogue: the version that the lists belong to.
        stored: the person's lists; None when the online store does not answer.
        wanted: what is asked for.
    """
    corrupt = 0
    for tier, packed in _lists(stored):
        try:
            indices = catalogue.unpack(packed, wanted)
        except CorruptList:
            corrupt += 1
            continue
        if indices:
            return Ranked(tier, _filled(catalogue, indices, wanted), corrupt)
    return Ranked(_last_tier(catalogue), catalogue.popular_for(wanted), corrupt)


def _lists(stored: StoredLists | None) -> list[tuple[Tier, bytes]]:
    if stored is None:
        return []
    return [(tier, packed) for tier, packed in ((Tier.LIVE, stored.live), (Tier.PERSONAL, stored.personal)) if packed]


def _filled(catalogue: Catalogue, indices: list[int], wanted: Wanted) -> list[int]:
    if not wanted.filters or len(indices) == wanted.k:
        return indices
    return list(dict.fromkeys(indices + catalogue.popular_for(wanted)))[: wanted.k]


def _last_tier(catalogue: Catalogue) -> Tier:
    return Tier.STATIC if catalogue.bundle is None else Tier.POPULAR
