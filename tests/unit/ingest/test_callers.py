"""Who may call which route of ingest: every route, every scope, every other person."""

from typing import Any
from unicodedata import normalize
from urllib.parse import quote

import httpx
import pytest

from infra.access import Reach, decisions, not_yours
from infra.key_file import KeyScope

SCOPES = {
    ("POST", "/v1/events"): "events",
    ("PUT", "/v1/items"): "items",
    ("PUT", "/v1/users/{user_id}/consent"): "people",
    ("GET", "/v1/users/{user_id}/consent"): "people",
    ("DELETE", "/v1/users/{user_id}/consent"): "people",
    ("GET", "/v1/users/{user_id}/data"): "people",
    ("DELETE", "/v1/users/{user_id}"): "people",
    ("GET", "/v1/erasures/{erasure_id}"): "people",
    ("GET", "/v1/counts"): "operate",
}
"""Every route below /v1: a new one needs a decision here too."""


def test_every_route_needs_the_scope_that_was_decided(ingest: Any) -> None:
    assert {route: needs.scope for route, needs in decisions(ingest.app).items()} == SCOPES


@pytest.mark.parametrize("scope", KeyScope)
def test_a_key_opens_what_it_is_for_and_nothing_else(client: httpx.Client, ingest: Any, scope: KeyScope) -> None:
    """Whoever is not let in learns what is missing, before the request is looked at."""
    client.headers = {"X-API-Key": ingest.key(scope)}  # type: ignore[assignment]
    for (method, path), needed in SCOPES.items():
        answer = client.request(method, path.format(user_id="u1", erasure_id="e1"))
        if scope == needed:
            assert answer.status_code not in (401, 403), path
        else:
            refusal = answer.json()
            assert (answer.status_code, refusal["code"], refusal["scope"]) == (403, "scope_missing", needed), path


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


@pytest.fixture
def mine(client: httpx.Client, ingest: Any) -> httpx.Client:
    """The API with me in it, and some others, and a client that holds my token."""
    for person in (ME, "bob", "Ann/é", "ann"):
        ingest.allow(person)
    client.headers = {"Authorization": f"Bearer {ingest.token(ME)}"}  # type: ignore[assignment]
    return client


def _of_path(ingest: Any, reach: Reach) -> list[tuple[str, str]]:
    return [route for route, needs in decisions(ingest.app).items() if needs.reach is reach]


def test_every_route_lets_a_person_do_what_was_decided(ingest: Any) -> None:
    assert {(method, path) for method, path in SCOPES if "{user_id}" in path} == set(_of_path(ingest, Reach.OWN))
    assert _of_path(ingest, Reach.CHECKED) == [("POST", "/v1/events"), ("GET", "/v1/erasures/{erasure_id}")]
    assert _of_path(ingest, Reach.CLOSED) == [("PUT", "/v1/items"), ("GET", "/v1/counts")]
    assert _of_path(ingest, Reach.SHARED) == []


def test_nobody_reaches_another_person_by_any_route_or_spelling(mine: httpx.Client, ingest: Any) -> None:
    """Nothing is changed, and whether there is such a person is not told: every refusal is the same."""
    before, refusals, others = ingest.ledger.head(), set(), [quote(person, safe="") for person in FOREIGN]
    for method, path in _of_path(ingest, Reach.OWN):
        for spelled in others + ODD:
            answer = mine.request(method, path.replace("{user_id}", spelled), json={"purposes": ["personalization"]})
            if spelled in ODD and answer.status_code != 403:
                assert any(code in answer.content for code in UNREACHED), spelled
            else:
                refusals.add((answer.status_code, answer.content))
    assert {(status, b'"code":"not_yours"' in content) for status, content in refusals} == {(403, True)}
    assert len(refusals) == 1
    assert ingest.ledger.head() == before


@pytest.mark.parametrize("spelled", MINE)
def test_a_person_reaches_all_of_herself(mine: httpx.Client, ingest: Any, spelled: str) -> None:
    """However her id is spelled in the path."""
    for method, path in sorted(_of_path(ingest, Reach.OWN), reverse=True):
        answer = mine.request(method, path.replace("{user_id}", spelled), json={"purposes": ["personalization"]})
        assert answer.status_code in (200, 202), (method, path)


@pytest.mark.parametrize("other", [{"user_id": person} for person in FOREIGN] + [{"user_id": None}, {"user_id": [ME]}])
def test_nobody_sends_the_events_of_another_person(
    mine: httpx.Client, ingest: Any, event: Any, other: dict[str, Any]
) -> None:
    """One that is not the caller's own, and none of the batch is taken."""
    answer = mine.post("/v1/events", json={"events": [event(user_id=ME), {**event(), **other}]})
    assert (answer.status_code, answer.json()["code"]) == (403, "not_yours")
    assert [record for record in ingest.logged() if record.kind == "event"] == []


def test_a_person_sends_her_own_events_and_nothing_of_the_platforms(
    mine: httpx.Client, ingest: Any, event: Any
) -> None:
    assert mine.post("/v1/events", json={"events": [event(user_id=ME)]}).json()["accepted"] == 1
    answer = mine.put("/v1/items", json={"items": [{"item_id": "m1"}]})
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


def test_a_person_follows_her_own_erasure_and_no_other(mine: httpx.Client, ingest: Any) -> None:
    """Another's and one that never was are answered alike."""
    others = ingest.consents.erase("bob", "1", "test")
    own = mine.delete(f"/v1/users/{MINE[0]}").json()["erasure_id"]
    assert mine.get(f"/v1/erasures/{own}").json()["status"] == "open"
    refused = [mine.get(f"/v1/erasures/{erasure_id}") for erasure_id in (others, "never-was")]
    assert {answer.status_code for answer in refused} == {403}
    assert refused[0].content == refused[1].content


# --- broken versions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        lambda caller, user_id: None,
        lambda caller, user_id: caller.user_id is None or caller.user_id.lower() == user_id.lower() or _refuse(),
        lambda caller, user_id: caller.user_id is None or str(user_id).startswith(caller.user_id) or _refuse(),
        lambda caller, user_id: (
            caller.user_id is None or normalize("NFC", caller.user_id) == normalize("NFC", user_id) or _refuse()
        ),
        lambda caller, user_id: caller.user_id is None or caller.user_id == user_id.strip() or _refuse(),
    ],
    ids=["lets everybody through", "folds case", "compares the beginning", "normalizes", "strips"],
)
def test_the_test_of_routes_and_spellings_finds_a_check_that(
    mine: httpx.Client, ingest: Any, monkeypatch: pytest.MonkeyPatch, broken: Any
) -> None:
    """Each of these has been somebody's bug."""
    monkeypatch.setattr("infra.access.require_own", broken)
    with pytest.raises(AssertionError):
        test_nobody_reaches_another_person_by_any_route_or_spelling(mine, ingest)


def _refuse() -> None:
    raise not_yours()
