"""Who may call which route of serving: every route, every scope, every other person."""

from collections.abc import Callable
from itertools import product
from typing import Any
from unicodedata import normalize
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from infra.access import Reach, decisions, not_yours
from infra.key_file import KeyScope
from infra.online_store import OnlineStore
from training.bundle import Bundle, encode_list, list_key

SCOPES = {
    ("GET", "/v1/users/{user_id}/recommendations"): "recommendations",
    ("GET", "/v1/users/{user_id}/home"): "recommendations",
    ("POST", "/v1/recommendations"): "recommendations",
    ("GET", "/v1/items/{item_id}/similar"): "recommendations",
    ("GET", "/v1/recommendations/{recommendation_id}"): "operate",
    ("GET", "/v1/domain"): "recommendations",
}
"""Every route below /v1: a new one needs a decision here too."""


def test_every_route_needs_the_scope_that_was_decided(serving: Any) -> None:
    assert {route: needs.scope for route, needs in decisions(serving.app).items()} == SCOPES


@pytest.mark.parametrize("scope", KeyScope)
def test_a_key_opens_what_it_is_for_and_nothing_else(serving: Any, scope: KeyScope) -> None:
    """Whoever is not let in learns what is missing; the hot path and the way round it answer alike."""
    serving.watch.poll()
    headers = {"X-API-Key": serving.key(scope)}
    for (method, path), needed in SCOPES.items():
        for query in ("", "?explain=true", "?k=0"):
            url = path.format(user_id="ann", item_id="m1", recommendation_id="x") + query
            [answer] = serving.all([url], method, headers=headers)
            if scope == needed:
                assert answer.status_code not in (401, 403), url
            else:
                refusal = answer.json()
                assert (answer.status_code, refusal["code"], refusal["scope"]) == (403, "scope_missing", needed), url


# --- a person's own token --------------------------------------------------------------------------------------------

ME = "ann/é"
FOREIGN = [
    "bob",
    "Ann/é",
    "ANN/É",
    "ann/e\u0301",
    "\uff41nn/é",
    "ann/é ",
    " ann/é",
    "ann",
    "ann/",
    "ann/é/",
    "é",
    "ann\\é",
]
"""Other people: some are there, some are not; some look like me."""

ODD = [
    "ann%2Fé%00",
    "ann%2Fé%1F",
    "..",
    ".",
    "ann%252Fé",
    "ann%2Fé%2F..%2F..%2Fbob",
    "ann/é/../../bob",
    "ann/é;bob",
    "%61nn",
]
"""What is put into a path as it is, in the hope that two who read it read it differently."""

UNREACHED = [b'"code":"not_found"', b'"code":"method_not_allowed"', b'"code":"invalid_request"']
"""Answers of requests that came to no person at all."""

MINE = [quote(ME, safe=""), "ann%2fé", "%61nn%2Fé", "%61%6E%6E%2F%C3%A9"]
"""My own id, written in other ways."""

QUERIES = ("", "?explain=true", "?k=2")
"""The hot path, the way round it, and an ordinary parameter."""


@pytest.fixture
def lists(
    serving: Any,
    store: OnlineStore,
    make_bundle: Callable[..., Bundle],
    publish: Callable[[OnlineStore, int, Bundle], None],
) -> Any:
    """The app with version 1, and a list for me and for some others."""
    publish(store, 1, make_bundle())
    for person in (ME, "bob", "Ann/é", "ann"):
        store.set(list_key(1, person), encode_list(np.array([5, 6])))
    serving.watch.poll()
    return serving


def _ask(serving: Any, method: str, path: str, spelled: str, query: str, who: str = ME) -> httpx.Response:
    url = path.replace("{user_id}", spelled).replace("{item_id}", "m1").replace("{recommendation_id}", "x") + query
    body = {"json": {"history": [], "k": 2}} if method == "POST" else {}
    [answer] = serving.all([url], method, headers={"Authorization": f"Bearer {serving.token(who)}"}, **body)
    return answer  # type: ignore[no-any-return]


def test_every_route_lets_a_person_do_what_was_decided(serving: Any) -> None:
    reaches = {route: needs.reach for route, needs in decisions(serving.app).items()}
    assert reaches == {
        ("GET", "/v1/users/{user_id}/recommendations"): Reach.OWN,
        ("GET", "/v1/users/{user_id}/home"): Reach.OWN,
        ("POST", "/v1/recommendations"): Reach.SHARED,
        ("GET", "/v1/items/{item_id}/similar"): Reach.SHARED,
        ("GET", "/v1/recommendations/{recommendation_id}"): Reach.SHARED,
        ("GET", "/v1/domain"): Reach.SHARED,
    }


def test_nobody_reaches_another_person_by_any_route_or_spelling(lists: Any) -> None:
    """And whether there is such a person is not told: every refusal is the same."""
    refusals = set()
    for method, path in (route for route, needs in decisions(lists.app).items() if needs.reach is Reach.OWN):
        for spelled, query in product([quote(person, safe="") for person in FOREIGN] + ODD, QUERIES):
            answer = _ask(lists, method, path, spelled, query)
            if spelled in ODD and answer.status_code != 403:
                assert any(code in answer.content for code in UNREACHED), spelled
            else:
                refusals.add((answer.status_code, answer.content))
    assert {(status, b'"code":"not_yours"' in content) for status, content in refusals} == {(403, True)}
    assert len(refusals) == 1


@pytest.mark.parametrize("spelled", MINE)
def test_a_person_gets_her_own_list_and_page(lists: Any, spelled: str) -> None:
    """However her id is spelled in the path."""
    for query in QUERIES:
        answer = _ask(lists, "GET", "/v1/users/{user_id}/recommendations", spelled, query)
        assert (answer.status_code, answer.json()["tier"]) == (200, "personal"), query
    assert _ask(lists, "GET", "/v1/users/{user_id}/home", spelled, "").status_code == 200


def test_a_person_gets_what_is_about_nobody(lists: Any) -> None:
    """Lineage too: an id speaks of a model, and whoever holds it was given the list."""
    assert _ask(lists, "GET", "/v1/items/{item_id}/similar", "", "").status_code == 200
    assert _ask(lists, "POST", "/v1/recommendations", "", "").status_code == 200
    assert _ask(lists, "GET", "/v1/domain", "", "").status_code == 200
    answer = _ask(lists, "GET", "/v1/recommendations/{recommendation_id}", "", "")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_recommendation")


@pytest.mark.parametrize("where", ["infra.access.require_own", "serving.recommendations.require_own"])
@pytest.mark.parametrize(
    "broken",
    [
        lambda caller, user_id: None,
        lambda caller, user_id: caller.user_id.lower() == user_id.lower() or _refuse(),
        lambda caller, user_id: user_id.startswith(caller.user_id) or _refuse(),
        lambda caller, user_id: normalize("NFC", caller.user_id) == normalize("NFC", user_id) or _refuse(),
        lambda caller, user_id: caller.user_id == user_id.strip() or _refuse(),
    ],
    ids=["lets everybody through", "folds case", "compares the beginning", "normalizes", "strips"],
)
def test_the_test_of_routes_and_spellings_finds_a_check_that(
    lists: Any, monkeypatch: pytest.MonkeyPatch, where: str, broken: Any
) -> None:
    """Each of these has been somebody's bug; the hot path has its own call of the check."""
    monkeypatch.setattr(where, broken)
    with pytest.raises(AssertionError):
        test_nobody_reaches_another_person_by_any_route_or_spelling(lists)


def _refuse() -> None:
    raise not_yours()
