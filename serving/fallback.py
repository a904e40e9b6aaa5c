"""The ladder of tiers: whatever is missing, broken or down, there is a next best list."""

from enum import IntEnum
from typing import NamedTuple

from serving.catalogue import Catalogue, CorruptList


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


def choose(catalogue: Catalogue, stored: StoredLists | None, k: int) -> Choice:
    """The best list there is.

    Args:
        catalogue: the version that the lists belong to.
        stored: the person's lists; None when the online store does not answer.
        k: longest list wanted.
    """
    corrupt = 0
    for tier, packed in ((Tier.LIVE, stored.live), (Tier.PERSONAL, stored.personal)) if stored else ():
        if packed:
            try:
                items = catalogue.render(packed, k)
            except CorruptList:
                corrupt += 1
                continue
            if items:
                return Choice(tier, items, corrupt)
    if popular := catalogue.popular(k):
        return Choice(Tier.POPULAR, popular, corrupt)
    return Choice(Tier.STATIC, b"", corrupt)
