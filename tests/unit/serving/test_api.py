"""The rest of the serving API: lineage, probes, documentation."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra.online_store import OnlineStore
from serving.fallback import Tier
from serving.lineage import RecommendationIds
from training.bundle import Bundle, manifest_key

Publish = Callable[[OnlineStore, int, Bundle], None]
MakeBundle = Callable[..., Bundle]


def _model_of(serving: Any, version: int) -> Any:
    answer = serving.get(f"/v1/recommendations/{serving.ids.sign(version, Tier.LIVE)}")
    assert answer.status_code == 200, answer.text
    return answer.json()["model"]


@pytest.fixture
def published(serving: Any, store: OnlineStore, make_bundle: MakeBundle, publish: Publish) -> Any:
    """The app with version 1."""
    publish(store, 1, make_bundle(watermark={0: 5}))
    serving.watch.poll()
    return serving


# --- lineage ---------------------------------------------------------------------------------------------------------


def test_an_id_resolves_to_the_model_behind_the_list(published: Any) -> None:
    """Version, tier, time and position from the id; run, snapshot, watermark and code from the manifest in memory."""
    signed = published.get("/v1/users/ann/recommendations").json()["recommendation_id"]
    answer = published.get(f"/v1/recommendations/{signed}")
    assert answer.status_code == 200
    body = answer.json()
    assert datetime.now(UTC) - datetime.fromisoformat(body.pop("at")) < timedelta(seconds=10)
    assert body == {
        "recommendation_id": signed,
        "version": 1,
        "tier": "popular",
        "row": "list",
        "position": 0,
        "model": {
            "algorithm": "item_item",
            "run_id": "run-1",
            "snapshot_version": 3,
            "snapshot_digest": "d" * 64,
            "watermark": {"0": 5},
            "code": "c0ffee",
            "trained_at": "2026-01-02T00:00:00Z",
        },
    }


def test_a_replaced_version_is_still_explained(
    published: Any, store: OnlineStore, make_bundle: MakeBundle, publish: Publish
) -> None:
    """The manifests of versions that this process served stay: the store is not asked."""
    publish(store, 2, make_bundle(run_id="run-2"))
    published.watch.poll()
    store.config_resetstat()
    for version, run_id in ((1, "run-1"), (2, "run-2")):
        assert _model_of(published, version)["run_id"] == run_id
    commands: Any = store.info("commandstats")
    assert "cmdstat_mget" not in commands


def test_a_version_that_was_never_served_here_is_read_from_the_store(
    published: Any, store: OnlineStore, make_bundle: MakeBundle
) -> None:
    """Its manifest stays there when its lists and its bundle are gone; what was read once is kept."""
    store.set(manifest_key(9), make_bundle(run_id="run-9").manifest.model_dump_json())
    assert _model_of(published, 9)["run_id"] == "run-9"
    store.delete(manifest_key(9))
    assert _model_of(published, 9)["run_id"] == "run-9"


@pytest.mark.parametrize("value", [None, b"", b"\xff", b"{}", b"[]"])
def test_of_a_version_that_nobody_knows_the_id_itself_speaks(
    published: Any, store: OnlineStore, value: bytes | None
) -> None:
    """Whether there is no manifest or one that cannot be read: no error."""
    if value is not None:
        store.set(manifest_key(9), value)
    assert _model_of(published, 9) is None


def test_with_the_store_down_lineage_says_what_the_id_says(serve: Callable[[str, float], Any]) -> None:
    """No 5xx: `model` is missing."""
    serving = serve("unix:///nowhere/redis.sock", 0.1)
    serving.watch.poll()
    for version in (0, 9):
        answer = serving.get(f"/v1/recommendations/{serving.ids.sign(version, Tier.STATIC)}")
        assert (answer.status_code, answer.json()["tier"], answer.json()["model"]) == (200, "static", None)


def test_a_forged_id_is_refused(published: Any) -> None:
    """Of another secret, or no id at all: 404."""
    for forged in (RecommendationIds("other").sign(1, Tier.LIVE), "nonsense"):
        answer = published.get(f"/v1/recommendations/{forged}")
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_recommendation")


# --- operation -------------------------------------------------------------------------------------------------------


def test_readiness_does_not_depend_on_the_store(serve: Callable[[str, float], Any]) -> None:
    """Not ready before it looked; ready afterwards, though nothing answered."""
    serving = serve("unix:///nowhere/redis.sock", 0.1)
    assert serving.get("/readyz", headers={}).status_code == 503
    serving.watch.poll()
    answer = serving.get("/readyz", headers={})
    assert (answer.status_code, answer.json()["online_store"]) == (200, "silent")
    assert serving.get("/healthz", headers={}).status_code == 200


def test_metrics_count_answers_by_tier_and_time(published: Any) -> None:
    """The hot path's own numbers are in Prometheus' form."""
    published.all(["/v1/users/ann/recommendations"] * 3)
    published.get("/v1/users/ann/recommendations?k=0")
    text = published.get("/metrics", headers={}).text
    assert 'marquee_recommendations_total{tier="popular"} 3.0' in text
    assert "marquee_recommendation_seconds_count 3.0" in text
    assert 'marquee_recommendations_refused_total{status="422"} 1.0' in text
    assert "marquee_version 1.0" in text


def test_every_other_route_needs_the_key(published: Any) -> None:
    """Whatever is below /v1 is closed without the key."""
    for path in ("/v1/users/ann/recommendations", "/v1/items/m0/similar", "/v1/recommendations/x"):
        assert published.get(path, headers={}).status_code == 401


def test_the_documentation_has_every_route(published: Any) -> None:
    """The hot path is documented like the rest, each with its problems."""
    described = published.get("/openapi.json", headers={}).json()
    assert set(described["paths"]) == {
        "/v1/users/{user_id}/recommendations",
        "/v1/users/{user_id}/home",
        "/v1/domain",
        "/v1/recommendations",
        "/v1/recommendations/{recommendation_id}",
        "/v1/items/{item_id}/similar",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    assert {"Session", "HomePage", "HomeRow", "Because", "ProblemDocument"} <= set(described["components"]["schemas"])


def test_every_parameter_and_problem_is_documented(published: Any) -> None:
    """The domain's own filters too, on every route that takes them; and what answers instead of a list."""
    paths = published.get("/openapi.json", headers={}).json()["paths"]
    filters = {"category", "max_age_rating", "min_year", "exclude"}
    expected: dict[str, tuple[set[str], set[str]]] = {
        "/v1/users/{user_id}/recommendations": (
            {"user_id", "k", "explain", *filters},
            {"200", "401", "403", "422", "503"},
        ),
        "/v1/users/{user_id}/home": ({"user_id", "k", "rows", *filters}, {"200", "401", "403", "422", "503"}),
        "/v1/items/{item_id}/similar": ({"item_id", "k", *filters}, {"200", "401", "403", "404", "422", "503"}),
        "/v1/recommendations/{recommendation_id}": ({"recommendation_id"}, {"200", "401", "403", "404", "422"}),
    }
    for path, (parameters, answers) in expected.items():
        route = paths[path]["get"]
        named = [parameter["name"] for parameter in route["parameters"]]
        assert sorted(named) == sorted(parameters), path
        assert set(route["responses"]) == answers, path
        undescribed = [one["name"] for one in route["parameters"] if not one.get("description")]
        assert undescribed == [], path
    session = paths["/v1/recommendations"]["post"]
    assert set(session["responses"]) == {"200", "400", "401", "403", "408", "413", "415", "422", "503"}
    assert paths == published.get("/openapi.json", headers={}).json()["paths"]


def test_whatever_is_documented_as_a_field_says_what_it_is(published: Any) -> None:
    """Every field of a list, a row, a reason and a lineage that is not plain from its name has a description."""
    schemas = published.get("/openapi.json", headers={}).json()["components"]["schemas"]
    for name in ("HomeRow", "Because", "RecommendationLineage", "Recommendations", "Session"):
        bare = {field for field, of in schemas[name]["properties"].items() if "description" not in of}
        assert bare <= {"recommendation_id", "version", "tier", "items", "history"}, name


def test_a_page_learns_how_to_speak_of_the_domain(published: Any) -> None:
    """Names and acts as `domain.toml` has them, so that pages fit any fork."""
    said = published.get("/v1/domain").json()
    assert said["name"] == "films"
    assert said["items"] == {"name": "title", "category": "genres"}
    assert said["event_types"]["play"] == {"history": True, "weight": 1.0, "begins": True}
    assert said["event_types"]["impression"]["history"] is False
