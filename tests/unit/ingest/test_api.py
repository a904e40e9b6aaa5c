"""The HTTP edge of ingest, behind a real server: what it takes, what it refuses and how, and that it fails closed."""

import gzip
import re
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest

from infra.database import LedgerUnavailable, Step
from infra.http import PROBLEM_JSON
from ingest.events import CONSENT_HEAD, AcceptedEvent, Consent
from ingest.gate import FRESH_SECONDS

MakeEvent = Callable[..., dict[str, Any]]
USER = "/v1/users/u1"


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM_JSON), answer.text
    document: dict[str, Any] = answer.json()
    assert (document["status"], document["code"]) == (status, code)
    assert document["detail"]
    assert (status == 503) == ("retry-after" in answer.headers)
    return document


def events_logged(ingest: Any) -> list[str]:
    return [record.event_id for record in ingest.logged() if isinstance(record, AcceptedEvent)]


# --- events ----------------------------------------------------------------------------------------------------------


def test_accepted_events_are_answered_with_202_and_stand_in_the_log(
    client: httpx.Client, ingest: Any, event: MakeEvent
) -> None:
    ingest.allow("u1")
    sent = [event(), event(user_id="stranger"), event()]
    answer = client.post("/v1/events", json={"events": sent})
    assert answer.status_code == 202
    verdicts = answer.json()["verdicts"]
    assert (answer.json()["accepted"], answer.json()["refused"]) == (2, 1)
    assert [verdict["code"] for verdict in verdicts] == ["accepted", "consent_missing", "accepted"]
    assert [verdict["event_id"] for verdict in verdicts] == [raw["event_id"] for raw in sent]
    assert events_logged(ingest) == [sent[0]["event_id"], sent[2]["event_id"]]


def test_a_batch_of_which_nothing_is_taken_is_a_problem_with_the_verdicts(
    client: httpx.Client, ingest: Any, event: MakeEvent
) -> None:
    answer = client.post("/v1/events", json={"events": [event(), event(type="sneeze")]})
    problem = assert_problem(answer, 422, "no_event_accepted")
    assert [verdict["code"] for verdict in problem["verdicts"]] == ["consent_missing", "unknown_type"]
    assert events_logged(ingest) == []


@pytest.mark.parametrize("path", ["/v1/events", "/v1/items"])
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"events": [', 400, "malformed_json"),
        (b"", 400, "malformed_json"),
        (b"\xff\xfe", 400, "malformed_json"),
        (b"[]", 422, "invalid_request"),
        (b"{}", 422, "invalid_request"),
        (b'{"events": [], "items": []}', 422, "invalid_request"),
        (b'{"events": []}', 422, "invalid_request"),
        (b'{"items": {}}', 422, "invalid_request"),
        (b'{"others": [1]}', 422, "invalid_request"),
    ],
)
def test_a_body_that_is_no_batch_is_refused(
    client: httpx.Client, path: str, body: bytes, status: int, code: str
) -> None:
    method = "POST" if path.endswith("events") else "PUT"
    assert_problem(client.request(method, path, content=body), status, code)


def test_a_batch_may_have_500_events_and_no_more(client: httpx.Client, ingest: Any, event: MakeEvent) -> None:
    ingest.allow("u1")
    assert client.post("/v1/events", json={"events": [event() for _ in range(500)]}).json()["accepted"] == 500
    assert_problem(client.post("/v1/events", json={"events": [event() for _ in range(501)]}), 413, "too_large")
    assert len(events_logged(ingest)) == 500


MEGABYTE = 1 << 20


def test_a_body_over_2_mib_is_too_large(client: httpx.Client) -> None:
    assert_problem(client.post("/v1/events", content=b" " * (2 * MEGABYTE)), 400, "malformed_json")
    assert_problem(client.post("/v1/events", content=b" " * (2 * MEGABYTE + 1)), 413, "too_large")


def test_a_body_that_does_not_say_how_long_it_is_is_counted(client: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * (MEGABYTE // 8)

    try:
        answer = client.post("/v1/events", content=pieces())
    except httpx.WriteError:
        return  # It was answered, and the connection closed, before we had sent all.
    assert_problem(answer, 413, "too_large")


def test_a_body_longer_than_it_says_is_not_taken(client: httpx.Client, ingest: Any, event: MakeEvent) -> None:
    ingest.allow("u1")
    body = orjson.dumps({"events": [event()]})
    head = f"POST /v1/events HTTP/1.1\r\nHost: x\r\nX-API-Key: a key\r\nContent-Length: {len(body) - 5}\r\n\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=5) as connection:
        connection.sendall(head.encode() + body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 400")
    assert events_logged(ingest) == []
    assert client.get("/healthz").status_code == 200


# --- the key ---------------------------------------------------------------------------------------------------------

ROUTES = [
    ("POST", "/v1/events"),
    ("PUT", "/v1/items"),
    ("PUT", f"{USER}/consent"),
    ("GET", f"{USER}/consent"),
    ("DELETE", f"{USER}/consent"),
    ("GET", f"{USER}/data"),
    ("DELETE", USER),
    ("GET", "/v1/erasures/e1"),
    ("GET", "/v1/counts"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("key", ["", "Bearer", "Bearer another key", "Basic YSBrZXk="])
def test_without_the_key_nothing_opens(client: httpx.Client, ingest: Any, method: str, path: str, key: str) -> None:
    answer = client.request(method, path, headers={"Authorization": key}, content=b"{}" if method[0] == "P" else None)
    assert_problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert ingest.ledger.head().number == 0


def test_every_route_of_v1_is_among_those_that_need_the_key(ingest: Any) -> None:
    described = {
        (method.upper(), path)
        for path, methods in ingest.app.openapi()["paths"].items()
        for method in methods
        if path.startswith("/v1")
    }
    known = {(method, path.replace("u1", "{user_id}").replace("e1", "{erasure_id}")) for method, path in ROUTES}
    assert described == known


def test_probes_and_metrics_need_no_key(client: httpx.Client, ingest: Any, event: MakeEvent) -> None:
    ingest.allow("u1")
    client.post("/v1/events", json={"events": [event()]})
    client.headers.pop("Authorization")
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 200
    metrics = client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=")
    assert 'marquee_events_total{verdict="accepted"} 1.0' in metrics.text
    assert "u1" not in metrics.text


def test_the_process_is_ready_once_the_projection_was_whole(client: httpx.Client, ingest: Any) -> None:
    ingest.ready.clear()
    assert_problem(client.get("/readyz"), 503, "not_ready")
    ingest.rebuild()
    assert client.get("/readyz").status_code == 200


# --- consent ---------------------------------------------------------------------------------------------------------


def test_consent_is_given_told_and_withdrawn(client: httpx.Client, ingest: Any, event: MakeEvent) -> None:
    given = client.put(f"{USER}/consent", json={"purposes": ["personalization"], "policy_version": "7", "source": "s"})
    assert given.status_code == 200
    assert {name: given.json()[name] for name in ("number", "action", "purposes", "policy_version", "source")} == {
        "number": 1, "action": "grant", "purposes": ["personalization"], "policy_version": "7", "source": "s"
    }  # fmt: skip
    assert client.post("/v1/events", json={"events": [event()]}).status_code == 202
    withdrawn = client.delete(f"{USER}/consent")
    assert (withdrawn.status_code, withdrawn.json()["action"]) == (200, "withdraw")
    refused = client.post("/v1/events", json={"events": [event()]})
    assert assert_problem(refused, 422, "no_event_accepted")["verdicts"][0]["code"] == "consent_missing"
    told = client.get(f"{USER}/consent").json()
    assert told["purposes"] == []
    assert told["receipts"] == [given.json(), withdrawn.json()]
    assert ingest.verify() == 2


def test_a_stranger_has_allowed_nothing(client: httpx.Client) -> None:
    assert client.get(f"{USER}/consent").json() == {"purposes": [], "receipts": []}


def test_only_the_purposes_need_be_said(client: httpx.Client) -> None:
    answer = client.put(f"{USER}/consent", json={"purposes": ["personalization"]})
    assert (answer.status_code, answer.json()["source"]) == (200, "api")


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        7,
        {"purposes": []},
        {"purposes": ["canary"]},
        {"purposes": "personalization"},
        {"purposes": ["personalization"], "number": 7},
        {"purposes": ["personalization"], "source": "x" * 129},
        {"purposes": ["personalization"], "policy_version": "a\u0000"},
    ],
    ids=str,
)
def test_a_consent_that_is_not_of_the_form_is_refused(client: httpx.Client, ingest: Any, body: Any) -> None:
    answer = client.put(f"{USER}/consent", json=body)
    problem = assert_problem(answer, 422, "invalid_request")
    assert problem["errors"]
    assert "canary" not in answer.text
    assert ingest.ledger.head().number == 0


def test_a_consent_body_is_capped_too(client: httpx.Client) -> None:
    assert_problem(client.put(f"{USER}/consent", content=b" " * 17000), 413, "too_large")
    assert_problem(client.put(f"{USER}/consent", content=b"{"), 400, "malformed_json")


@pytest.mark.parametrize("user_id", ["x" * 129, "%C3%A9" * 65, "a%00", "a%0Ab", "a%1Fb", "a%1F%2Fb", "%FF" * 50])
@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
def test_a_user_id_has_to_be_one(client: httpx.Client, user_id: str, method: str) -> None:
    body = {"json": {"purposes": ["personalization"]}} if method == "PUT" else {}
    answer = client.request(method, f"/v1/users/{user_id}/consent", **body)  # type: ignore[arg-type]
    assert_problem(answer, 422, "invalid_request")


def test_the_id_of_a_path_is_the_id_of_an_event(client: httpx.Client, ingest: Any, event: MakeEvent) -> None:
    """Escaped as it has to be in a path, whatever it consists of."""
    names = ["a b", "100%", "жанна", "a/b", "/", "%2F", "a/consent", "?#&+", "u1/../u2", "é/%2f"]
    for name in names:
        escaped = quote(name, safe="")
        assert client.put(f"/v1/users/{escaped}/consent", json={"purposes": ["personalization"]}).status_code == 200
        assert client.post("/v1/events", json={"events": [event(user_id=name)]}).status_code == 202
        assert client.delete(f"/v1/users/{escaped}").status_code == 202
    assert len(events_logged(ingest)) == len(names)


def test_giving_and_withdrawing_are_one_call_each(client: httpx.Client, ingest: Any) -> None:
    """The withdrawal needs less: no body, no purposes. It is taken from a browser that refuses, too."""
    assert client.put(f"{USER}/consent", json={"purposes": ["personalization"]}).status_code == 200
    assert client.delete(f"{USER}/consent", headers={"Sec-GPC": "1"}).status_code == 200
    assert client.get(f"{USER}/consent", headers={"Sec-GPC": "1"}).json()["purposes"] == []
    assert client.delete(USER, headers={"Sec-GPC": "1"}).status_code == 202


@pytest.mark.parametrize("value", ["1", "0, 1", "1,1"])
def test_what_a_browser_that_refuses_sends_is_not_taken(
    client: httpx.Client, ingest: Any, event: MakeEvent, value: str
) -> None:
    ingest.allow("u1")
    answer = client.post("/v1/events", json={"events": [event(), event()]}, headers={"Sec-GPC": value})
    problem = assert_problem(answer, 422, "no_event_accepted")
    assert [verdict["code"] for verdict in problem["verdicts"]] == ["consent_missing"] * 2
    assert "Sec-GPC" in problem["verdicts"][0]["detail"]
    assert events_logged(ingest) == []
    assert client.post("/v1/events", json={"events": [event()]}).status_code == 202


def test_a_browser_that_refuses_cannot_give_consent(client: httpx.Client, ingest: Any) -> None:
    body = {"purposes": ["personalization"]}
    answer = client.put(f"{USER}/consent", json=body, headers={"Sec-GPC": "1"})
    assert "turns the signal off" in assert_problem(answer, 403, "opted_out")["detail"]
    assert ingest.ledger.head().number == 0


@pytest.mark.parametrize("value", ["0", "", "true", "11", "?1"])
def test_of_the_signal_only_its_one_value_means_something(
    client: httpx.Client, ingest: Any, event: MakeEvent, value: str
) -> None:
    headers = {"Sec-GPC": value}
    answer = client.put(f"{USER}/consent", json={"purposes": ["personalization"]}, headers=headers)
    assert answer.status_code == 200
    assert client.post("/v1/events", json={"events": [event()]}, headers=headers).status_code == 202


# --- erasures --------------------------------------------------------------------------------------------------------


def test_an_erasure_is_answered_with_where_to_follow_it(client: httpx.Client, ingest: Any, event: MakeEvent) -> None:
    ingest.allow("u1")
    answer = client.delete(USER)
    assert answer.status_code == 202
    state = client.get(answer.headers["location"]).json()
    assert state == answer.json()
    assert (state["status"], state["steps"], state["completed_at"]) == ("open", [], None)
    assert client.delete(USER).json()["erasure_id"] == state["erasure_id"]
    refused = client.post("/v1/events", json={"events": [event()]})
    assert_problem(refused, 422, "no_event_accepted")
    assert "u1" not in answer.text


def test_an_erasure_tells_its_steps_and_when_it_is_complete(client: httpx.Client, ingest: Any) -> None:
    erasure_id = client.delete(USER).json()["erasure_id"]
    at = ingest.consents.erasure(erasure_id).opened_at
    for stage in ("dead_letters", "lake", "lists", "nearline"):
        ingest.ledger.sign_step(erasure_id, stage, Step(12, at))
    assert set(remains(client, erasure_id)) == {"log", "models"}
    until = at + timedelta(days=7)
    ingest.ledger.sign_step(erasure_id, "log", Step(None, at, until))
    ingest.ledger.complete_erasure(erasure_id, at)
    state = client.get(f"/v1/erasures/{erasure_id}").json()
    assert state["status"] == "complete"
    assert {step["stage"]: step["removed"] for step in state["steps"]} == {
        **dict.fromkeys(("dead_letters", "lake", "lists", "nearline"), 12),
        "log": None,
    }
    assert all(step["what"] for step in state["steps"])
    left = remains(client, erasure_id)
    assert datetime.fromisoformat(left["log"]["until"]) == until
    assert left["models"]["until"] is None
    assert "retraining" in left["models"]["why"]


def test_where_the_log_has_no_retention_the_receipt_says_so_and_after_the_models_nothing_else_remains(
    client: httpx.Client, ingest: Any
) -> None:
    erasure_id = client.delete(USER).json()["erasure_id"]
    at = ingest.consents.erasure(erasure_id).opened_at
    for stage in ("lake", "lists", "nearline", "models"):
        ingest.ledger.sign_step(erasure_id, stage, Step(0, at))
    ingest.ledger.sign_step(erasure_id, "log", Step(None, at))
    left = remains(client, erasure_id)
    assert set(left) == {"log"}
    assert "has no retention" in left["log"]["why"]


def remains(client: httpx.Client, erasure_id: str) -> dict[str, dict[str, Any]]:
    return {each["stage"]: each for each in client.get(f"/v1/erasures/{erasure_id}").json()["remains"]}


def test_an_unknown_erasure_is_not_found(client: httpx.Client) -> None:
    assert_problem(client.get("/v1/erasures/none"), 404, "unknown_erasure")


# --- items -----------------------------------------------------------------------------------------------------------


def test_items_are_taken_or_refused_one_by_one(client: httpx.Client, ingest: Any) -> None:
    items = [{"item_id": "m1", "attributes": {"title": "Toy Story"}}, {"item_id": "m2", "attributes": {"price": 3}}]
    answer = client.put("/v1/items", json={"items": items})
    assert answer.status_code == 202
    assert [(v["item_id"], v["code"]) for v in answer.json()["verdicts"]] == [
        ("m1", "accepted"),
        ("m2", "invalid_item"),
    ]
    assert [record.item_id for record in ingest.logged()] == ["m1"]
    assert_problem(client.put("/v1/items", json={"items": items[1:]}), 422, "no_item_accepted")


# --- what the framework answers --------------------------------------------------------------------------------------


def test_unknown_paths_and_methods_are_problems(client: httpx.Client) -> None:
    assert_problem(client.get("/v2/events"), 404, "not_found")
    answer = client.get("/v1/events")
    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    assert client.post("/v1/users/u-42/consent").headers["allow"] == "DELETE, GET, PUT"


def test_openapi_resolves_and_every_operation_is_described(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    schemas = described["components"]["schemas"]
    assert set(re.findall(r'"#/components/schemas/(\w+)"', client.get("/openapi.json").text)) <= schemas.keys()
    assert "HTTPValidationError" not in schemas
    for path, methods in described["paths"].items():
        for method, what in methods.items():
            assert what["description"], (method, path)
            assert what["tags"], (method, path)
            if path.startswith("/v1"):
                assert {"401", "422", "503"} <= what["responses"].keys(), (method, path)
    assert schemas["EventBatch"]["examples"]


# --- outages ---------------------------------------------------------------------------------------------------------


def send(client: httpx.Client, event: MakeEvent) -> tuple[httpx.Response, float]:
    began = time.monotonic()
    return client.post("/v1/events", json={"events": [event()]}), time.monotonic() - began


def test_a_lost_projection_is_refused_until_it_is_written_anew(
    client: httpx.Client, ingest: Any, event: MakeEvent
) -> None:
    ingest.allow("u1")
    ingest.store.delete(CONSENT_HEAD)
    assert_problem(send(client, event)[0], 503, "consent_unavailable")
    assert events_logged(ingest) == []
    ingest.rebuild()
    assert send(client, event)[0].status_code == 202


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dead", "silent"])
def test_without_redis_nothing_is_taken(
    new_ingest: Any, serving: Any, own_redis: Any, redis_url: str, tmp_path: Path, event: MakeEvent, how: signal.Signals
) -> None:
    """Whether it refuses or keeps silent, the answer is 503 within 2 s, and the log stays as it was."""
    ingest = new_ingest(tmp_path, own_redis.url, redis_url)
    ingest.rebuild()
    ingest.allow("u1")
    with serving(ingest.app) as client:
        assert send(client, event)[0].status_code == 202
        own_redis.kill(how)
        answer, seconds = send(client, event)
        assert_problem(answer, 503, "consent_unavailable")
        assert seconds < 2
        assert_problem(
            client.put(f"{USER}/consent", json={"purposes": ["personalization"]}), 503, "consent_unavailable"
        )
        assert_problem(client.delete(f"{USER}/consent"), 503, "consent_unavailable")
        assert client.get("/readyz").status_code == 200
        assert len(events_logged(ingest)) == 1
        own_redis.kill(signal.SIGCONT) if how == signal.SIGSTOP else own_redis.start()
        ingest.rebuild()
        refused = assert_problem(send(client, event)[0], 422, "no_event_accepted")
        assert refused["verdicts"][0]["code"] == "consent_missing"  # The withdrawal was on record.
    ingest.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dead", "silent"])
def test_without_the_log_nothing_is_called_accepted(
    new_ingest: Any, serving: Any, own_redis: Any, redis_url: str, store: Any, tmp_path: Path, event: MakeEvent,
    how: signal.Signals,
) -> None:  # fmt: skip
    """503 within 2 s, also to twenty at once; and a withdrawal, though not confirmed, holds already."""
    ingest = new_ingest(tmp_path, redis_url, own_redis.url)
    ingest.rebuild()
    ingest.allow("u1")
    ingest.allow("u2")
    with serving(ingest.app) as client:
        own_redis.kill(how)
        answers: list[tuple[httpx.Response, float]] = []
        threads = [threading.Thread(target=lambda: answers.append(send(client, event))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 20
        for answer, seconds in answers:
            assert_problem(answer, 503, "log_unavailable")
            assert seconds < 2.5
        assert_problem(client.delete(f"{USER}/consent"), 503, "log_unavailable")
        assert_problem(client.delete("/v1/users/u2"), 503, "log_unavailable")
        assert_problem(client.put("/v1/items", json={"items": [{"item_id": "m1"}]}), 503, "log_unavailable")
        own_redis.kill(signal.SIGCONT) if how == signal.SIGSTOP else own_redis.start()
        assert ingest.projection.read(["u1", "u2"]) == {"u1": Consent(0, 3), "u2": Consent(0, 4)}
        assert client.delete(f"{USER}/consent").status_code == 200
        assert client.delete("/v1/users/u2").status_code == 202
    ingest.close()


def test_without_the_ledger_consent_cannot_be_changed_and_soon_no_event_comes_in(
    client: httpx.Client, ingest: Any, event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate asks the projection, which holds all that was confirmed; after a while nobody can tell any more."""
    ingest.allow("u1")

    def fail(*_: Any) -> None:
        raise LedgerUnavailable("down")

    for name in ("append_receipts", "receipts_of", "erasure", "open_erasure_of", "head"):
        monkeypatch.setattr(ingest.ledger, name, fail)
    monkeypatch.setattr(ingest.consents, "_counts", fail)  # It has asked the ledger's method for itself.
    for method, path in ROUTES[3:]:
        assert_problem(client.request(method, path), 503, "ledger_unavailable")
    assert_problem(client.put(f"{USER}/consent", json={"purposes": ["analytics"]}), 503, "ledger_unavailable")
    assert send(client, event)[0].status_code == 202
    ingest.clock += FRESH_SECONDS
    with pytest.raises(LedgerUnavailable):
        ingest.rebuild()
    assert_problem(send(client, event)[0], 503, "consent_unavailable")
    assert len(events_logged(ingest)) == 1


def test_who_waits_too_long_for_a_turn_is_told_to_come_back_and_who_has_one_is_served(
    client: httpx.Client, ingest: Any, event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first batch has the only turn until the second was refused, which is longer than anybody may wait."""
    ingest.allow("u1")
    refused = threading.Event()
    append = ingest.log.append

    def slow(records: Any, guard: Any) -> Any:
        assert refused.wait(20)
        return append(records, guard)

    monkeypatch.setattr(ingest.log, "append", slow)
    monkeypatch.setattr("ingest.collector.TURN_SECONDS", 60)
    batches = ingest.app.state.services.batches
    batches.total_tokens = 1
    with ThreadPoolExecutor() as threads:
        first = threads.submit(lambda: send(client, event)[0])
        while not batches.borrowed_tokens:
            time.sleep(0.01)
        second = send(client, event)[0]
        refused.set()
        assert first.result().status_code == 202
    assert_problem(second, 503, "overloaded")
    assert second.headers["Retry-After"] == "1"


# --- no trace --------------------------------------------------------------------------------------------------------


def test_what_is_refused_and_who_asks_is_in_no_log_line(
    client: httpx.Client, event: MakeEvent, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    canary = f"canary-{uuid.uuid4().hex}"
    client.post("/v1/events", json={"events": [event(user_id=canary), {canary: canary}]})
    client.post("/v1/events", content=f'{{"{canary}'.encode())
    client.get(f"/v1/users/{canary}/consent")
    client.put(f"/v1/users/{canary}/consent", json={canary: canary})
    client.delete(f"/v1/users/{canary}/nothing")
    client.post("/v1/events", json={"events": [event(user_id=canary)]}, headers={"Sec-GPC": "1"})
    client.put(f"/v1/users/{canary}/consent", json={"purposes": ["personalization"]}, headers={"Sec-GPC": "1"})
    assert canary not in "".join(capfd.readouterr()) + caplog.text


# --- limits ----------------------------------------------------------------------------------------------------------


def test_a_packed_batch_is_taken_and_a_bomb_is_not(client: httpx.Client, ingest: Any, event: MakeEvent) -> None:
    ingest.allow("u1")
    headers = {"Content-Encoding": "gzip"}
    batch = gzip.compress(orjson.dumps({"events": [event()]}))
    assert client.post("/v1/events", content=batch, headers=headers).json()["accepted"] == 1
    bomb = gzip.compress(b" " * (2 * MEGABYTE + 1))
    for method, path in (("POST", "/v1/events"), ("PUT", "/v1/items"), ("PUT", f"{USER}/consent")):
        assert_problem(client.request(method, path, content=bomb, headers=headers), 413, "too_large")
        assert_problem(client.request(method, path, content=b"[" * 17 + b"]" * 17), 400, "too_deep")
        assert_problem(
            client.request(method, path, content=batch, headers={"Content-Encoding": "br"}), 415, "unknown_encoding"
        )


@pytest.mark.parametrize("path", ["/v1/events/", "/healthz/", f"{USER}/consent/", f"{USER}/"])
def test_nobody_is_sent_elsewhere_by_the_host_that_a_request_names(
    client: httpx.Client, ingest: Any, path: str
) -> None:
    headers = {"Host": "evil.test", "X-Forwarded-Host": "evil.test", "X-Forwarded-Proto": "https"}
    answer = client.get(path, headers=headers, follow_redirects=False)
    assert_problem(answer, 404, "not_found")
    assert "evil" not in answer.text + str(answer.headers)
    ingest.app.router.redirect_slashes = True
    answer = client.get(path, headers=headers, follow_redirects=False)
    assert "evil.test" in answer.headers["location"], "the framework's own way"
