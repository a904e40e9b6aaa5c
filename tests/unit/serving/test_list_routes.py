"""Lists with reasons, of sessions, and of what is like an item."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from scipy import sparse

from infra.online_store import OnlineStore
from serving.catalogue import Catalogue
from serving.fallback import Tier
from serving.model_work import MOST_AT_ONCE
from training.bundle import (
    EXPIRING,
    HIDDEN,
    Bundle,
    Indices,
    Interaction,
    ItemTable,
    Scores,
    encode_history,
    encode_list,
    history_key,
    list_key,
    live_key,
)

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


@pytest.fixture
def films(serving: Any, store: OnlineStore, cinema: Bundle, publish: Publish) -> Any:
    """The app with 60 items of 6 categories, and Ann, who watched two war films and a horror film."""
    publish(store, 1, cinema)
    serving.watch.poll()
    watched = {"f34": Interaction(1, 1.0), "f35": Interaction(2, 1.5), "f44": Interaction(3, 1.0)}
    store.set(history_key("ann"), encode_history(watched))
    store.set(live_key(1, "ann"), encode_list(np.array([37, 38, 46, 0, 1])))
    return serving


# --- lists with reasons ----------------------------------------------------------------------------------------------


def test_each_item_has_its_reason(films: Any) -> None:
    """What the history says for it, largest share first; what filled up the list is popular."""
    answer = films.get("/v1/users/ann/recommendations?explain=true")
    because = {item["item_id"]: item["because"] for item in answer.json()["items"]}
    assert {one["item_id"] for one in because["f37"]["items"]} == {"f34", "f35"}
    assert because["f46"]["items"] == [{"item_id": "f44", "title": "Film 44", "share": 1.0}]
    assert because["f00"] == {"reason": "popular", "items": []}
    assert answer.json()["tier"] == answer.headers["marquee-tier"] == "live"
    assert films.ids.resolve(answer.headers["marquee-recommendation-id"]).tier is Tier.LIVE


@pytest.mark.parametrize("query", ["k=3", "k=20", "k=5&category=War", "k=4&max_age_rating=12&exclude=f00"])
@pytest.mark.parametrize("user", ["ann", "stranger"])
def test_reasons_change_nothing_else(films: Any, user: str, query: str) -> None:
    """The same items in the same order from the same tier as without, and counted like any other answer."""
    path = f"/v1/users/{user}/recommendations?{query}"
    plain, explained, not_explained = (films.get(path + more) for more in ("", "&explain=true", "&explain=false"))
    assert _item_ids(explained) == _item_ids(not_explained) == _item_ids(plain)
    assert explained.json()["tier"] == not_explained.json()["tier"] == plain.json()["tier"]
    assert all("because" in item for item in explained.json()["items"])
    assert not_explained.json()["items"] == plain.json()["items"]
    assert films.metrics.answers(films.ids.resolve(plain.json()["recommendation_id"]).tier) == 3


def test_a_reason_is_not_made_up_when_the_store_is_down(serve: Callable[[str, float], Any]) -> None:
    """The popular list of memory, here an empty one, is no error."""
    serving = serve("unix:///nowhere/redis.sock", 0.1)
    serving.watch.poll()
    answer = serving.get("/v1/users/ann/recommendations?explain=true")
    assert (answer.status_code, answer.json()["tier"], answer.json()["items"]) == (200, "static", [])


@pytest.mark.parametrize("query", ["explain=perhaps", "explain=true&k=0", "explain=true&color=red", "explain=true&k=x"])
def test_a_request_for_reasons_has_bounds(films: Any, query: str) -> None:
    """As the hot path has them."""
    assert films.get(f"/v1/users/ann/recommendations?{query}").json()["code"] == "invalid_request"
    assert films.get("/v1/users/ann/recommendations?explain=true", headers={}).status_code == 401


def test_a_broken_list_or_history_is_counted(films: Any, store: OnlineStore) -> None:
    """And the next best one is in its place: nothing is said of a history that is not there."""
    store.set(live_key(1, "ann"), b"abc")
    store.set(list_key(1, "ann"), encode_list(np.array([40, 41])))
    store.set(history_key("ann"), b"{")
    answer = films.get("/v1/users/ann/recommendations?explain=true&k=2").json()
    assert (answer["tier"], [item["item_id"] for item in answer["items"]]) == ("personal", ["f40", "f41"])
    assert answer["items"][0]["because"] == {"reason": "history", "items": []}
    assert films.metrics.corrupt == 2


def test_overload_is_said_rather_than_waited_for(films: Any) -> None:
    """Each of the routes that ask the model answers 503 with Retry-After, and counts it; all the others go on."""
    turns = [films.services.models.turn() for _ in range(MOST_AT_ONCE)]
    for turn in turns:
        turn.__enter__()
    paths = ["/v1/users/ann/recommendations?explain=true", "/v1/users/ann/home", "/v1/items/f00/similar"]
    refused = [*films.all(paths), _post(films, json={"history": []})]
    assert {(one.status_code, one.json()["code"], one.headers["retry-after"]) for one in refused} == {
        (503, "overloaded", "1")
    }
    assert films.metrics.refused[503] == 4
    signed = films.get("/v1/users/ann/recommendations").json()["recommendation_id"]
    others = (f"/v1/recommendations/{signed}", "/healthz", "/readyz", "/metrics")
    assert [films.get(path).status_code for path in others] == [200] * 4
    for turn in turns:
        turn.__exit__(None, None, None)
    assert [one.status_code for one in films.all(paths)] == [200] * 3


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


@pytest.mark.parametrize(
    "more", [{}, {"explain": True}, {"filters": {"category": "War"}, "exclude": ["f01"]}, {"filters": {"color": "red"}}]
)
def test_a_session_leaves_no_trace(
    films: Any,
    store: OnlineStore,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    more: dict[str, Any],
) -> None:
    """Every key of the store is as it was, Redis was sent no command, and nothing at all was logged or printed."""
    before = {key: store.dump(key) for key in store.scan_iter()}
    store.config_resetstat()
    capfd.readouterr()
    with caplog.at_level(logging.DEBUG):
        acts = [{"item_id": "secret-item"}, {"item_id": "f34", "type": "complete"}]
        assert _post(films, json={"history": acts, **more}).status_code == (422 if "color" in str(more) else 200)
    commands: Any = store.info("commandstats")
    assert set(commands) <= {"cmdstat_config|resetstat", "cmdstat_info"}
    assert {key: store.dump(key) for key in store.scan_iter()} == before
    assert [record.getMessage() for record in caplog.records if record.name not in {"httpx", "asyncio"}] == []
    assert "secret-item" not in caplog.text + films.get("/metrics", headers={}).text
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"json": {"history": [{"item_id": "m0", "type": "sneeze"}]}}, 422, "unknown_type"),
        ({"json": {"history": [{"item_id": "m0", "user_id": "ann"}]}}, 422, "invalid_request"),
        ({"json": {"history": [{"item_id": "x" * 129}]}}, 422, "invalid_request"),
        ({"json": {"history": [{"item_id": "m0"}] * 1001}}, 422, "invalid_request"),
        ({"json": {"history": [], "k": 101}}, 422, "invalid_request"),
        ({"json": {"history": [], "filters": {"color": "red"}}}, 422, "invalid_request"),
        ({"json": {"history": [], "filters": {"max_age_rating": "x"}}}, 422, "invalid_request"),
        ({"json": {"history": [], "filters": {"category": ["War"]}}}, 422, "invalid_request"),
        ({"json": {"history": [], "filters": {"max_age_rating": "12"}}}, 422, "invalid_request"),
        ({"json": {"history": [], "filters": {"min_year": False}}}, 422, "invalid_request"),
        ({"json": {"history": [], "k": "20"}}, 422, "invalid_request"),
        ({"json": {"history": [], "k": True}}, 422, "invalid_request"),
        ({"json": {"history": [], "explain": 0}}, 422, "invalid_request"),
        ({"json": {"history": [{"item_id": "m0", "occurred_at": 0}]}}, 422, "invalid_request"),
        ({"json": {"history": [], "exclude": ["m0"] * 101}}, 422, "invalid_request"),
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


def test_a_session_may_have_filters_and_items_it_does_not_want(films: Any) -> None:
    """As a person's list may: all that is listed passes, and the list is as long as was asked for."""
    session = {"history": [{"item_id": "f34"}], "k": 8, "filters": {"max_age_rating": 12}, "exclude": ["f36", "f00"]}
    answer = _post(films, json=session)
    assert {item["age_rating"] for item in answer.json()["items"]} == {6}
    assert len(_item_ids(answer)) == 8
    assert not {"f36", "f00", "f34"} & set(_item_ids(answer))
    assert answer.json()["items"][0]["genres"] == ["War"]
    horror = _post(films, json={"history": [], "k": 5, "filters": {"category": "Horror"}})
    assert _item_ids(horror) == ["f44", "f45", "f46", "f47", "f48"]


def test_a_session_may_ask_for_reasons(films: Any) -> None:
    """From the history that it brought."""
    items = _post(films, json={"history": [{"item_id": "f44"}], "k": 20, "explain": True}).json()["items"]
    assert items[0]["because"]["items"] == [{"item_id": "f44", "title": "Film 44", "share": 1.0}]
    assert items[-1]["because"] == {"reason": "popular", "items": []}


def test_a_session_is_shown_nothing_hidden_or_expired(films: Any, store: OnlineStore) -> None:
    """The list stays as long as was asked for."""
    store.sadd(HIDDEN, *[f"f{item}" for item in range(35, 40)])
    store.hset(EXPIRING, mapping={"f40": 1000})
    films.watch.poll()
    for acts in ([], [{"item_id": "f34"}]):
        found = _item_ids(_post(films, json={"history": acts, "k": 30}))
        assert len(found) == 30
        assert not {f"f{item}" for item in range(35, 41)} & set(found)


def test_before_the_first_version_a_session_gets_an_empty_list(serving: Any) -> None:
    """No error."""
    answer = _post(serving, json={"history": [{"item_id": "m0"}]})
    assert (answer.status_code, answer.json()["tier"], answer.json()["items"]) == (200, "static", [])


# --- likeness --------------------------------------------------------------------------------------------------------


def test_items_like_an_item_are_of_its_kind(published: Any, store: OnlineStore) -> None:
    """The even items are like the even one, and a hidden one is not shown."""
    assert sorted(_item_ids(published.get("/v1/items/m0/similar?k=3"))) == ["m2", "m4", "m6"]
    store.sadd(HIDDEN, "m2")
    published.watch.poll()
    assert sorted(_item_ids(published.get("/v1/items/m0/similar?k=2"))) == ["m4", "m6"]


def test_items_like_an_item_pass_the_filters(films: Any, store: OnlineStore) -> None:
    """The domain's filters and `exclude` hold here too; what has expired is left out; a shorter list is one."""
    assert set(_item_ids(films.get("/v1/items/f34/similar"))) == {f"f{item}" for item in range(35, 44)}
    store.hset(EXPIRING, mapping={"f36": 1000})
    films.watch.poll()
    found = _item_ids(films.get("/v1/items/f34/similar?max_age_rating=12&exclude=f40&k=2"))
    assert set(found) == {"f38", "f42"}
    assert films.get("/v1/items/f34/similar?category=Noir").json() == {"version": 1, "items": []}


class InOrder:
    """A model to which an item's followers are like it, as many as there are."""

    def similar_items(self, item_index: int, k: int) -> tuple[Indices, Scores]:
        """The next k."""
        return np.arange(item_index + 1, min(item_index + 1 + k, 700), dtype=np.int32), np.ones(k, np.float32)

    def recommend(self, user_items: sparse.csr_matrix, k: int) -> tuple[Indices, Scores]:
        """Not asked here."""
        raise NotImplementedError

    def contributions(self, user_items: sparse.csr_matrix, item_index: int) -> Scores:
        """Not asked here."""
        raise NotImplementedError


def test_likeness_reaches_beyond_what_is_hidden(serving: Any, cinema: Bundle) -> None:
    """Though hundreds of the items most like it are hidden, the list is as long as was asked for."""
    ids = tuple(f"i{item:03}" for item in range(700))
    bundle = replace(cinema, items=ItemTable(ids, ({},) * 700, np.ones(700, np.float32)), model=InOrder())
    serving.watch.current = Catalogue.of(1, bundle, serving.watch.rules, frozenset(ids[1:500]))
    assert _item_ids(serving.get("/v1/items/i000/similar?k=100")) == list(ids[500:600])


def test_an_item_id_may_hold_a_slash(serving: Any, store: OnlineStore, make_bundle: MakeBundle, publish: Any) -> None:
    """Ids are opaque: what the client encodes is decoded."""
    publish(store, 1, make_bundle(["a/0", *[f"m{index}" for index in range(1, 8)]]))
    serving.watch.poll()
    assert sorted(_item_ids(serving.get("/v1/items/a%2F0/similar"))) == ["m2", "m4", "m6"]
    assert sorted(_item_ids(serving.get("/v1/items/a%2f0/similar"))) == ["m2", "m4", "m6"]
    assert serving.get("/v1/items/a/0/similar").status_code == 404


def test_nothing_is_like_an_unknown_item(published: Any) -> None:
    """404 with a code of its own."""
    assert published.get("/v1/items/unknown/similar").json()["code"] == "unknown_item"


@pytest.mark.parametrize("query", ["k=0", "k=101", "k=x", "color=red", "explain=true", "max_age_rating=x"])
def test_a_request_for_likeness_has_bounds(published: Any, query: str) -> None:
    """Whatever is outside of them, or unknown, is refused."""
    assert published.get(f"/v1/items/m0/similar?{query}").json()["code"] == "invalid_request"


def test_likeness_follows_the_version(
    serving: Any, store: OnlineStore, make_bundle: MakeBundle, publish: Publish
) -> None:
    """What is kept of one version is not shown as another's: the same index is another item there."""
    publish(store, 1, make_bundle())
    serving.watch.poll()
    assert sorted(_item_ids(serving.get("/v1/items/m0/similar"))) == ["m2", "m4", "m6"]
    publish(store, 2, make_bundle([f"m{index}" for index in reversed(range(8))]))
    serving.watch.poll()
    assert sorted(_item_ids(serving.get("/v1/items/m0/similar"))) == ["m2", "m4", "m6"]
    assert sorted(_item_ids(serving.get("/v1/items/m7/similar"))) == ["m1", "m3", "m5"]
