"""The short cut of the hot path in a real server: what a client sees is what the ASGI app answers."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse
from typing import IO, Any

import numpy as np
import pytest
import uvicorn

from infra.online_store import OnlineStore
from serving.direct_http import DirectHttp
from serving.fallback import Tier
from training.bundle import HIDDEN, Bundle, encode_list, list_key, live_key

KEY = {"Authorization": "Bearer test-key"}


def _path(user_id: str, query: str = "") -> str:
    return f"/v1/users/{user_id}/recommendations{query}"


@pytest.fixture
def hot(
    serving: Any,
    store: OnlineStore,
    make_bundle: Callable[..., Bundle],
    publish: Callable[[OnlineStore, int, Bundle], None],
) -> Any:
    """The app with version 1, where `ann` has a live list and `bob` a published one."""
    publish(store, 1, make_bundle())
    store.set(live_key(1, "ann"), encode_list(np.array([6, 7])))
    store.set(list_key(1, "bob"), encode_list(np.array([4, 2, 3])))
    serving.watch.poll()
    return serving


@pytest.fixture
def port(hot: Any) -> Iterator[int]:
    """The app on uvicorn with the short cut."""
    config = uvicorn.Config(
        hot.app, port=0, http=DirectHttp, loop="uvloop", log_config=None, access_log=False, proxy_headers=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    end = time.monotonic() + 20
    while not server.started and time.monotonic() < end:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(20)


def _ask(connection: HTTPConnection, path: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, Any]:
    connection.request(method, path, headers=headers or KEY)
    answer = connection.getresponse()
    body = answer.read()
    return answer, json.loads(body) if body else None


def test_an_answer_is_that_of_the_asgi_app(port: int, hot: Any) -> None:
    """One connection, several requests: status, headers and items; each answer has an id of its own."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    ids = set()
    for user_id, tier, first in (("ann", Tier.LIVE, "m6"), ("bob", Tier.PERSONAL, "m4"), ("x", Tier.POPULAR, "m0")):
        answer, body = _ask(connection, _path(user_id, "?k=2"))
        assert (answer.status, body["tier"], body["items"][0]["item_id"]) == (200, tier.label, first)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["marquee-recommendation-id"] == body["recommendation_id"]
        assert (answer.headers["marquee-tier"], answer.headers["marquee-version"]) == (tier.label, "1")
        assert answer.headers["date"]
        assert hot.metrics.answers(tier) == 1
        ids.add(body["recommendation_id"])
    connection.close()
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("path", "method", "headers", "status"),
    [
        (_path("ann"), "POST", {}, 405),
        (_path("ann"), "GET", {"X-API-Key": "wrong"}, 401),
        (_path("ann", "?k=0"), "GET", {}, 422),
        (_path("ann", "?explain=true"), "GET", {}, 200),
        ("/healthz", "GET", {}, 200),
        ("/nowhere", "GET", {}, 404),
    ],
)
def test_what_is_no_plain_answer_goes_the_usual_way(
    port: int, path: str, method: str, headers: dict[str, str], status: int
) -> None:
    """And the connection goes on serving the hot path."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    assert _ask(connection, path, method, **headers)[0].status == status
    assert _ask(connection, _path("ann"))[0].status == 200
    connection.close()


def test_head_is_refused_without_a_body(port: int) -> None:
    """As the ASGI app does."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    answer, body = _ask(connection, _path("ann"), "HEAD")
    assert (answer.status, body) == (405, None)
    connection.close()


@pytest.mark.parametrize("goes_silent", [False, True])
def test_requests_sent_at_once_on_one_connection_are_answered_in_order(port: int, hot: Any, goes_silent: bool) -> None:
    """A pipeline, longer than Python's stack would bear if answers called each other: so they would without reads."""
    if goes_silent:
        read_once = [hot.lists.ask]
        hot.lists.ask = lambda *asked: read_once.pop()(*asked) if read_once else None
    people = ["ann", "bob", "stranger"] * 500
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        asking = threading.Thread(target=client.sendall, args=(b"".join(map(_request, people)),))
        asking.start()
        with client.makefile("rb") as received:
            tiers = [_read_answer(received)["tier"] for _ in people]
        asking.join()
    assert tiers == (["live", *["popular"] * 1499] if goes_silent else ["live", "personal", "popular"] * 500)


def test_a_client_that_wants_no_further_answer_is_told_so(port: int) -> None:
    """`Connection: close` is heeded."""
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        client.sendall(_request("ann", "Connection: close\r\n"))
        received = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    assert json.loads(body)["tier"] == "live"


def test_who_is_turned_away_stays_connected(port: int, hot: Any) -> None:
    """503 with Retry-After and a code; asked again when there is time, it answers."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    hot.app.recommendations._most_waiting = 0
    answer, body = _ask(connection, _path("ann"))
    assert (answer.status, answer.headers["retry-after"], body["code"]) == (503, "1", "overloaded")
    hot.app.recommendations._most_waiting = 10
    assert _ask(connection, _path("ann"))[0].status == 200
    assert hot.metrics.refused[503] == 1
    connection.close()


def test_a_client_that_leaves_costs_nothing(port: int, hot: Any, store: OnlineStore) -> None:
    """Nothing is made for it; who asked in the same moment is answered."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    _ask(connection, _path("bob"))
    hot.lists._timeout = 5.0
    store.client_pause(300)
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        client.sendall(_request("ann"))
        time.sleep(0.05)
    assert _ask(connection, _path("bob"))[1]["tier"] == "personal"
    connection.close()
    assert (hot.metrics.answers(Tier.LIVE), hot.metrics.answers(Tier.PERSONAL)) == (0, 2)


def test_a_client_that_does_not_read_holds_up_nobody(port: int) -> None:
    """Its answers wait in its own connection, which is no longer read from; the others go on."""
    with socket.create_connection(("127.0.0.1", port), 20) as hanging:
        hanging.setblocking(False)
        try:
            for _ in range(20_000):
                hanging.send(_request("stranger"))
        except BlockingIOError:
            pass
        connection = HTTPConnection("127.0.0.1", port, timeout=20)
        assert _ask(connection, _path("ann"))[1]["tier"] == "live"
        connection.close()


def test_hidden_items_leave_within_the_watchs_own_pace(port: int, store: OnlineStore) -> None:
    """With the watch in the background, nobody has to tell it to look."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    store.sadd(HIDDEN, "m4")
    end = time.monotonic() + 10
    while (items := _ask(connection, _path("bob"))[1]["items"])[0]["item_id"] == "m4" and time.monotonic() < end:
        time.sleep(0.02)
    assert [item["item_id"] for item in items] == ["m2", "m3"]
    connection.close()


def _request(user_id: str, headers: str = "") -> bytes:
    return f"GET {_path(user_id)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer test-key\r\n{headers}\r\n".encode()


def _read_answer(answers: IO[bytes]) -> Any:
    length = 0
    while (line := answers.readline()) not in (b"\r\n", b""):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return json.loads(answers.read(length))
