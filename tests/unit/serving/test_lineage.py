"""Recommendation ids carry what was served and cannot be made by others."""

from datetime import UTC, datetime, timedelta

import pytest

from serving.fallback import Tier
from serving.lineage import ForgedRecommendationId, Kind, Lineage, RecommendationIds


@pytest.mark.parametrize("tier", Tier)
@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(("version", "position"), [(0, 0), (7, 3), (2**24 - 1, 255), (1, 0), (0, 1)])
def test_an_id_says_what_it_was_signed_with(tier: Tier, kind: Kind, version: int, position: int) -> None:
    """Version, time, tier, kind and position come back; the id is 36 characters that a URL takes as they are."""
    ids = RecommendationIds("secret")
    signed = ids.sign(version, tier, kind, position)
    lineage = ids.resolve(signed)
    assert (lineage.version, lineage.tier, lineage.kind, lineage.position) == (version, tier, kind, position)
    assert timedelta(0) <= datetime.now(UTC) - lineage.at < timedelta(seconds=5)
    assert len(signed) == 36
    assert set(signed) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_a_list_of_its_own_is_what_an_id_says_by_default() -> None:
    """The hot path signs lists that stand alone, in ASCII."""
    ids = RecommendationIds("secret")
    lineage = ids.resolve(ids.sign_bytes(7, Tier.LIVE).decode())
    assert (lineage.kind, lineage.position) == (Kind.LIST, 0)


def test_an_id_from_before_there_were_pages_is_still_read() -> None:
    """Ids stand in the lake for as long as events do: the numbers of one that was made first say the same for ever."""
    lineage = RecommendationIds("secret").resolve("AAAABwGbffb4AAEAAAAB4VjxqQGo9voMduUo")
    assert lineage == Lineage(7, datetime(2026, 1, 2, 9, 8, 16, tzinfo=UTC), Tier.LIVE, Kind.LIST, 0)


@pytest.mark.parametrize(("version", "position"), [(2**24, 0), (1, 256)])
def test_a_number_without_room_is_refused_rather_than_cut(version: int, position: int) -> None:
    """An id never names another version than the one that made the list."""
    with pytest.raises(ValueError, match="room"):
        RecommendationIds("secret").sign(version, Tier.LIVE, Kind.CATEGORY, position)


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
