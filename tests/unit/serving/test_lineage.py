"""Recommendation ids carry what was served and cannot be made by others."""

from datetime import UTC, datetime, timedelta

import pytest

from serving.fallback import Tier
from serving.lineage import ForgedRecommendationId, RecommendationIds


@pytest.mark.parametrize("tier", Tier)
def test_an_id_says_what_it_was_signed_with(tier: Tier) -> None:
    """Version, time and tier come back; the id is 36 characters that a URL takes as they are."""
    ids = RecommendationIds("secret")
    signed = ids.sign(2**32 - 1, tier)
    lineage = ids.resolve(signed)
    assert (lineage.version, lineage.tier) == (2**32 - 1, tier)
    assert abs(datetime.now(UTC) - lineage.at) < timedelta(seconds=5)
    assert len(signed) == 36
    assert set(signed) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_two_ids_are_never_the_same() -> None:
    """The same list served twice in a millisecond has two ids."""
    ids = RecommendationIds("secret")
    assert len({ids.sign(1, Tier.LIVE) for _ in range(1000)}) == 1000


def test_every_altered_character_is_noticed() -> None:
    """No character of an id can be changed."""
    ids = RecommendationIds("secret")
    signed = ids.sign(7, Tier.PERSONAL)
    for place, character in enumerate(signed):
        other = "A" if character != "A" else "B"
        with pytest.raises(ForgedRecommendationId):
            ids.resolve(signed[:place] + other + signed[place + 1 :])


@pytest.mark.parametrize("nonsense", ["", "x", "é" * 36, "A" * 36, "A" * 40, "A" * 35, "====", " " * 36])
def test_nonsense_is_no_id(nonsense: str) -> None:
    """Whatever is not of the form is refused in the same way."""
    with pytest.raises(ForgedRecommendationId):
        RecommendationIds("secret").resolve(nonsense)


def test_another_secret_makes_other_ids() -> None:
    """An id of another platform is refused."""
    with pytest.raises(ForgedRecommendationId):
        RecommendationIds("other").resolve(RecommendationIds("secret").sign(1, Tier.LIVE))
