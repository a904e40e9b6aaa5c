"""Each tier as a viewer meets it, and each drill in miniature, on real processes."""

import signal
from collections.abc import Iterator

import pytest

from bench.editions import put, user
from bench.fault_drills import Size, drill, platform_of, play
from bench.injections import FAULTS
from bench.load_drills import OverloadSize, PublishSize, overload_drill, publish_drill
from bench.observing import Report
from bench.own_platform import OwnPlatform, wait_until
from bench.service_levels import FAULT, OVERLOAD, PUBLISH, broken

pytestmark = [pytest.mark.e2e]

SMALL = Size(users=60, rate=50, before=0.3, during=1.5)
TIMING = {"fault_p99_ms", "publish_p99_ms", "rollback_seconds", "goodput_ratio"}
"""Levels that a busy machine may break: `make drill` holds them."""

MEANWHILE = {key: {"popular"} for key in ("redis-down", "redis-paused", "redis-hangs", "redis-slow")}
MEANWHILE |= {key: {"personal", "popular"} for key in ("lists-missing", "lists-corrupt")}
"""Tiers that viewers have to meet while a fault lasts; with the others they keep their own lists."""


@pytest.fixture(scope="module")
def platform() -> Iterator[OwnPlatform]:
    """One platform for the tests of this module: whatever a drill broke is whole again after it."""
    with platform_of(SMALL) as running:
        yield running


def ask(platform: OwnPlatform, name: str, query: str = "k=5") -> dict[str, object]:
    """Somebody's list."""
    status, answer = platform.call("serve", "GET", f"/v1/users/{name}/recommendations?{query}")
    assert status == 200
    assert answer["items"]
    return dict(answer)


# --- the tiers -------------------------------------------------------------------------------------------------------


def test_live_after_an_event(platform: OwnPlatform) -> None:
    assert play(platform, "m0003") == 202
    wait_until(lambda: ask(platform, user(0))["tier"] == "live", "the list is live")


def test_personal_as_it_was_published(platform: OwnPlatform) -> None:
    assert ask(platform, user(1))["tier"] == "personal"


def test_popular_for_a_stranger(platform: OwnPlatform) -> None:
    assert ask(platform, "a-stranger")["tier"] == "popular"


def test_popular_of_a_category_where_one_is_asked_for(platform: OwnPlatform) -> None:
    answer = ask(platform, "a-stranger", "k=5&category=Drama")
    assert answer["tier"] == "popular"
    assert all("Drama" in item["genres"] for item in answer["items"])  # type: ignore[attr-defined]


def test_static_from_a_process_that_starts_while_redis_is_down() -> None:
    """It is ready, lists what was popular, and is itself again when Redis is back."""
    with OwnPlatform(("serve",)) as platform:
        put(platform.store, 1, [user(1)])
        wait_until(lambda: ask_version(platform) == 1, "version 1 is served")
        wait_until((platform.folder / "serving/static.json").exists, "the static list is kept")
        platform.stop("serve")
        platform.stop("redis", signal.SIGKILL)
        platform.start("serve")
        platform.wait_until_up("serve")
        assert ask(platform, user(1))["tier"] == "static"
        platform.start_redis()
        wait_until(lambda: ask(platform, user(1))["tier"] == "personal", "the list is personal again")


def ask_version(platform: OwnPlatform) -> int:
    """The version that serving is ready with."""
    return int(platform.call("serve", "GET", "/readyz")[1]["version"])


# --- the drills ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_costs_viewers_their_own_lists_at_most(platform: OwnPlatform, name: str) -> None:
    report = drill(name, platform, SMALL)
    assert set(broken(FAULT, report.figures)) <= TIMING, report
    assert seen(report, "during") >= MEANWHILE.get(name, {"personal"})
    assert seen(report, "after") >= {"personal"}


def test_a_publish_mixes_nothing_and_fails_nobody() -> None:
    report = publish_drill(PublishSize(users=3000, rate=100))
    assert set(broken(PUBLISH, report.figures)) <= TIMING, report
    assert {phase.name for phase in report.phases if phase.answers} >= {"before", "version 2", "rolled back"}


@pytest.mark.usefixtures("wrk")
def test_a_crowd_is_turned_away_in_words() -> None:
    report = overload_drill(OverloadSize(users=200, usual=16, waiting=30, seconds=2, rounds=1))
    assert set(broken(OVERLOAD, report.figures)) <= TIMING, report
    (refused,) = report.figures["refused_per_second"]
    assert refused > 0
    # The crowd is refused before the few viewers among it are: they may or may not be.
    assert report.phases[0].figures["statuses"].keys() <= {"200", "503"}


def seen(report: Report, phase: str) -> set[str]:
    """Tiers of the answers in a phase."""
    found = next(each for each in report.phases if each.name == phase)
    assert found.answers
    assert set(found.figures["statuses"]) == {"200"}
    return set(found.figures["tiers"])
