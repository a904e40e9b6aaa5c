"""The rest of the serving API: sessions, likeness, lineage, probes, documentation."""

import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from infra.online_store import OnlineStore
from serving.fallback import Tier
from serving.lineage import RecommendationIds
from training.bundle import HIDDEN, Bundle

Publish = Callable[[OnlineStore, int, Bundle], None]
MakeBundle = Callable[..., Bundle]


def _item_ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["item_id"] for item in answer.json()["items"]]


def _post(serving: Any, **options: Any) -> httpx.Response:
    answer: httpx.Response = serving.all(["/v1/recommendations"], method="POST", **options)[0]
    return answer


@pytest.fixture
def published(serving: Any, store: OnlineStore, make_bundle: MakeBundle, publish: Publish) -> Any:
    """The app with version 1."""
    publish(store, 1, make_bundle())
    serving.watch.poll()
    return serving


# --- sessions --------------------------------------------------------------------------------------------------------


def test_a_session_is_answered_by_the_model(published: Any) -> None:
    """Who watched an even item is shown the even ones, none of which is in the session."""
    acts = [{"item_id": "m0", "type": "complete", "occurred_at": "2026-01-01T00:00:00Z"}, {"item_id": "m2"}]
    answer = _post(published, json={"history": acts, "k": 2})
    assert sorted(_item_ids(answer)) == ["m4", "m6"]
    assert answer.json()["tier"] == answer.headers["marquee-tier"] == "live"
    assert published.ids.resolve(answer.json()["recommendation_id"]).tier is Tier.LIVE


@pytest.mark.parametrize(
    "acts", [[], [{"item_id": "unknown"}], [{"item_id": "m0", "type": "impression"}], [{"item_id": "m0"}] * 0]
)
def test_a_session_that_says_nothing_gets_the_popular_list(published: Any, acts: list[Any]) -> None:
    """No history, none that the model knows, or showings only."""
    answer = _post(published, json={"history": acts, "k": 2})
    assert (_item_ids(answer), answer.json()["tier"]) == (["m0", "m1"], "popular")


def test_what_a_session_disliked_is_not_shown(published: Any) -> None:
    """An act of weight 0 speaks for nothing, yet its item is known."""
    answer = _post(published, json={"history": [{"item_id": "m0", "type": "thumbs_down"}], "k": 2})
    assert (_item_ids(answer), answer.json()["tier"]) == (["m1", "m2"], "popular")


def test_a_session_leaves_no_trace(published: Any, store: OnlineStore, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is written to the store, and nothing of the session is logged."""
    before = {key: store.dump(key) for key in store.scan_iter()}
    with caplog.at_level(logging.DEBUG):
        assert _post(published, json={"history": [{"item_id": "secret-item"}, {"item_id": "m0"}]}).status_code == 200
    assert {key: store.dump(key) for key in store.scan_iter()} == before
    assert "secret-item" not in caplog.text


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"json": {"history": [{"item_id": "m0", "type": "sneeze"}]}}, 422, "unknown_type"),
        ({"json": {"history": [{"item_id": "m0", "user_id": "ann"}]}}, 422, "invalid_request"),
        ({"json": {"history": [{"item_id": "x" * 129}]}}, 422, "invalid_request"),
        ({"json": {"history": [{"item_id": "m0"}] * 1001}}, 422, "invalid_request"),
        ({"json": {"history": [], "k": 101}}, 422, "invalid_request"),
        ({"json": {}}, 422, "invalid_request"),
        ({"content": b"{"}, 400, "malformed_json"),
        ({"content": b" " * (1024 * 1024 + 1)}, 413, "too_large"),
        ({"json": {"history": []}, "headers": {}}, 401, "unauthorized"),
    ],
)
def test_a_session_of_another_form_is_refused(published: Any, options: dict[str, Any], status: int, code: str) -> None:
    """Each with its status and code."""
    answer = _post(published, **options)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


# --- likeness --------------------------------------------------------------------------------------------------------


def test_items_like_an_item_are_of_its_kind(published: Any, store: OnlineStore) -> None:
    """The even items are like the even one, and a hidden one is not shown."""
    assert sorted(_item_ids(published.get("/v1/items/m0/similar?k=3"))) == ["m2", "m4", "m6"]
    store.sadd(HIDDEN, "m2")
    published.watch.poll()
    assert sorted(_item_ids(published.get("/v1/items/m0/similar?k=2"))) == ["m4", "m6"]


def test_an_item_id_may_hold_a_slash(serving: Any, store: OnlineStore, make_bundle: MakeBundle, publish: Any) -> None:
    """Ids are opaque: what the client encodes is decoded."""
    publish(store, 1, make_bundle(["a/0", *[f"m{index}" for index in range(1, 8)]]))
    serving.watch.poll()
    assert sorted(_item_ids(serving.get("/v1/items/a%2F0/similar"))) == ["m2", "m4", "m6"]


def test_nothing_is_like_an_unknown_item(published: Any, serving: Any) -> None:
    """404 with a code of its own."""
    assert published.get("/v1/items/unknown/similar").json()["code"] == "unknown_item"
    assert published.get("/v1/items/m0/similar?k=0").status_code == 422


# --- lineage ---------------------------------------------------------------------------------------------------------


def test_an_id_resolves_to_the_model_behind_the_list(published: Any) -> None:
    """Version, tier and time from the id; run, snapshot, watermark and code from the manifest in memory."""
    signed = published.get("/v1/users/ann/recommendations").json()["recommendation_id"]
    answer = published.get(f"/v1/recommendations/{signed}")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["version"], body["tier"], body["model"]["run_id"]) == (1, "popular", "run-1")
    assert (body["model"]["snapshot_digest"], body["model"]["code"]) == ("d" * 64, "c0ffee")


def test_a_replaced_version_is_still_explained(
    published: Any, store: OnlineStore, make_bundle: MakeBundle, publish: Publish
) -> None:
    """The manifests of versions that this process served stay; of others only the id itself speaks."""
    publish(store, 2, make_bundle(run_id="run-2"))
    published.watch.poll()
    for version, run_id in ((1, "run-1"), (2, "run-2")):
        body = published.get(f"/v1/recommendations/{published.ids.sign(version, Tier.LIVE)}").json()
        assert body["model"]["run_id"] == run_id
    assert published.get(f"/v1/recommendations/{published.ids.sign(9, Tier.LIVE)}").json()["model"] is None


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
        "/v1/recommendations",
        "/v1/recommendations/{recommendation_id}",
        "/v1/items/{item_id}/similar",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    hot = described["paths"]["/v1/users/{user_id}/recommendations"]["get"]
    assert {"200", "401", "422"} <= set(hot["responses"])
    assert "Session" in described["components"]["schemas"]
