"""The hot path: every tier, one shared read, an answer whatever the store does."""

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from bench.faults import Fault, Proxy
from infra.online_store import OnlineStore, connect
from serving.fallback import Tier
from serving.stored_lists import TIMEOUT_SECONDS
from training.bundle import CURRENT, Bundle, encode_list, list_key, live_key

Publish = Callable[[OnlineStore, int, Bundle], None]
MakeBundle = Callable[..., Bundle]
KEY = "test-key"


def _url(user_id: str, query: str = "") -> str:
    return f"/v1/users/{user_id}/recommendations{query}"


def _item_ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["item_id"] for item in answer.json()["items"]]


@pytest.fixture
def published(serving: Any, store: OnlineStore, make_bundle: MakeBundle, publish: Publish) -> Any:
    """The app with version 1, where `ann` has a published and a live list and `bob` a published one."""
    publish(store, 1, make_bundle())
    store.set(list_key(1, "ann"), encode_list(np.array([5, 6])))
    store.set(live_key(1, "ann"), encode_list(np.array([6, 7])))
    store.set(list_key(1, "bob"), encode_list(np.array([4, 2, 3])))
    serving.watch.poll()
    return serving


@pytest.mark.parametrize(
    ("user_id", "tier", "items"),
    [
        ("ann", "live", ["m6", "m7"]),
        ("bob", "personal", ["m4", "m2", "m3"]),
        ("stranger", "popular", ["m0", "m1", "m2", "m3", "m4", "m5", "m6", "m7"]),
    ],
)
def test_each_person_gets_their_best_list(published: Any, user_id: str, tier: str, items: list[str]) -> None:
    """Live, else personal, else popular; body and headers say the same; the id resolves to version and tier."""
    answer = published.get(_url(user_id))
    body = answer.json()
    assert _item_ids(answer) == items
    assert (body["version"], body["tier"]) == (1, tier)
    assert answer.headers["marquee-version"] == "1"
    assert answer.headers["marquee-tier"] == tier
    assert answer.headers["marquee-recommendation-id"] == body["recommendation_id"]
    lineage = published.ids.resolve(body["recommendation_id"])
    assert (lineage.version, lineage.tier.label) == (1, tier)
    assert published.metrics.answers(Tier[tier.upper()]) == 1


def test_before_the_first_version_the_answer_is_empty_and_says_so(serving: Any) -> None:
    """A fresh platform answers 200 with nothing in it."""
    serving.watch.poll()
    answer = serving.get(_url("ann"))
    assert (_item_ids(answer), answer.json()["tier"], answer.json()["version"]) == ([], "static", 0)


@pytest.mark.one_redis
def test_requests_at_once_share_one_read(published: Any, store: OnlineStore) -> None:
    """Fifty people asked for at once are one MGET, and each gets their own list."""
    published.get(_url("warm-up"))
    store.config_resetstat()
    answers = published.all([_url(name) for name in ["ann", "bob", *[f"u{n}" for n in range(48)]]])
    assert store.info("commandstats")["cmdstat_mget"]["calls"] == 1
    assert [_item_ids(answer) for answer in answers[:2]] == [["m6", "m7"], ["m4", "m2", "m3"]]
    assert {answer.json()["tier"] for answer in answers[2:]} == {"popular"}


def test_an_encoded_user_id_is_decoded(published: Any, store: OnlineStore) -> None:
    """What is percent-encoded in the path is what was written under."""
    store.set(list_key(1, "a/ü b"), encode_list(np.array([5])))
    assert _item_ids(published.get(_url("a%2F%C3%BC%20b"))) == ["m5"]


@pytest.mark.parametrize(
    ("query", "length"), [("", 8), ("?k=1", 1), ("?k=3&exclude=m9", 3), ("?k=100", 8), ("?exclude=", 8)]
)
def test_k_is_the_length(published: Any, query: str, length: int) -> None:
    """k is 20 where it is left out, and at most all there are."""
    assert len(_item_ids(published.get(_url("stranger", query)))) == length


@pytest.mark.parametrize("query", ["?k=0", "?k=101", "?k=-1", "?k=", "?k=ten", "?k=1&k=2", "?k=1.5", "?k=%C2%B2"])
def test_another_k_is_refused(published: Any, query: str) -> None:
    """Out of bounds or no number: 422, as a problem document."""
    _problem(published.get(_url("ann", query)), 422, "invalid_request")


@pytest.mark.parametrize("user_id", ["x" * 129, "%FF", "a%00b", "%0A"])
def test_what_is_no_user_id_is_refused(published: Any, user_id: str) -> None:
    """Too long, no UTF-8, unprintable: 422."""
    _problem(published.get(_url(user_id)), 422, "invalid_request")


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"X-API-Key": ""}])
def test_without_the_key_nothing_is_said(published: Any, headers: dict[str, str]) -> None:
    """No key and a wrong key get the same 401."""
    _problem(published.get(_url("ann"), headers=headers), 401, "unauthorized")


def test_the_key_is_taken_in_either_header(published: Any) -> None:
    """X-API-Key does as well as Authorization."""
    assert _item_ids(published.get(_url("ann"), headers={"X-API-Key": KEY})) == ["m6", "m7"]


def test_another_method_is_refused(published: Any) -> None:
    """405, and what is allowed instead."""
    answer = published.all([_url("ann")], method="POST")[0]
    _problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize("path", ["/v1/users//recommendations", "/v1/users/recommendations", "/v1/users/a/b/c"])
def test_another_path_is_not_found(published: Any, path: str) -> None:
    """What is not quite the path is left to the framework, which answers 404."""
    _problem(published.get(path), 404, "not_found")


def test_a_corrupt_list_is_passed_over_and_counted(published: Any, store: OnlineStore) -> None:
    """The next tier answers, and the metric says what happened."""
    store.set(live_key(1, "ann"), b"\x00\x01\x02")
    assert _item_ids(published.get(_url("ann"))) == ["m5", "m6"]
    assert published.metrics.corrupt == 1


def test_a_request_keeps_the_version_it_began_with(
    published: Any, store: OnlineStore, make_bundle: MakeBundle, publish: Publish
) -> None:
    """While a read is under way the version changes: the answer is whole, of the old version."""

    async def flip_while_reading() -> tuple[httpx.Response, httpx.Response]:
        transport = httpx.ASGITransport(published.app)
        options: dict[str, Any] = {"base_url": "http://test", "headers": {"X-API-Key": KEY}}
        async with httpx.AsyncClient(transport=transport, **options) as client:
            store.client_pause(100)
            before = asyncio.create_task(client.get(_url("bob")))
            await asyncio.sleep(0.02)
            published.watch.current = second
            return await before, await client.get(_url("bob"))

    publish(store, 2, make_bundle([f"n{index}" for index in range(8)]))
    store.set(list_key(2, "bob"), encode_list(np.array([1])))
    first = published.watch.current
    published.watch.poll()
    second, published.watch.current = published.watch.current, first
    before, after = published._runner.run(flip_while_reading())
    assert (before.json()["version"], _item_ids(before)) == (1, ["m4", "m2", "m3"])
    assert (after.json()["version"], _item_ids(after)) == (2, ["n1"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_store_that_dies_or_hangs_costs_one_time_out(
    own_redis: Any,
    serve: Callable[[str, float], Any],
    make_bundle: MakeBundle,
    publish: Publish,
    number: signal.Signals,
) -> None:
    """Everybody gets the popular list with 200; after the first time-out at once; and theirs again afterwards."""
    store = connect(own_redis.url)
    publish(store, 1, make_bundle())
    store.set(list_key(1, "bob"), encode_list(np.array([4])))
    serving = serve(own_redis.url, TIMEOUT_SECONDS)
    serving.watch.poll()
    assert serving.get(_url("bob")).json()["tier"] == "personal"
    own_redis.kill(number)
    began = time.perf_counter()
    first = serving.all([_url("bob")] * 50)
    later = serving.all([_url("bob")] * 50)
    assert {answer.json()["tier"] for answer in first + later} == {"popular"}
    assert time.perf_counter() - began < 1.0
    assert sum(serving.metrics.store_errors.values()) == 1
    own_redis.start() if number == signal.SIGKILL else own_redis.kill(signal.SIGCONT)
    deadline = time.monotonic() + 10
    while serving.get(_url("bob")).json()["tier"] != "personal" and time.monotonic() < deadline:
        serving.wait(0.05)
    assert serving.get(_url("bob")).json()["tier"] == "personal"
    store.close()


def test_a_client_that_goes_away_does_not_disturb_the_others(published: Any, store: OnlineStore) -> None:
    """A request that is cancelled while it waits leaves the read to those that share it."""

    async def cancel_one() -> httpx.Response:
        transport = httpx.ASGITransport(published.app)
        options: dict[str, Any] = {"base_url": "http://test", "headers": {"X-API-Key": KEY}}
        async with httpx.AsyncClient(transport=transport, **options) as client:
            store.client_pause(100)
            gone = asyncio.create_task(client.get(_url("ann")))
            stays = asyncio.create_task(client.get(_url("bob")))
            await asyncio.sleep(0.02)
            gone.cancel()
            return await stays

    assert _item_ids(published._runner.run(cancel_one())) == ["m4", "m2", "m3"]


def test_the_pointer_gone_changes_nothing(published: Any, store: OnlineStore) -> None:
    """Without a pointer the version in memory goes on being served."""
    store.delete(CURRENT)
    published.watch.poll()
    assert _item_ids(published.get(_url("ann"))) == ["m6", "m7"]


@pytest.mark.one_redis
def test_who_gave_up_before_the_read_is_left_out_of_it(published: Any, store: OnlineStore) -> None:
    """A cancelled request costs neither store nor answer."""

    async def one_of_two() -> Any:
        gone, stays = published.lists.ask(1, b"ann"), published.lists.ask(1, b"bob")
        gone.cancel()
        return await stays

    store.config_resetstat()
    assert published._runner.run(one_of_two()).personal == encode_list(np.array([4, 2, 3]))
    assert store.info("stats")["keyspace_hits"] + store.info("stats")["keyspace_misses"] == 2


def test_who_comes_when_too_many_wait_is_turned_away(published: Any, store: OnlineStore) -> None:
    """503 with Retry-After and a code; those who waited already are answered, and it is counted."""
    published.app.recommendations._most_waiting = 3
    published.get(_url("bob"))
    store.client_pause(100)
    answers = published.all([_url("bob")] * 20)
    turned_away = [answer for answer in answers if answer.status_code != 200]
    assert len(turned_away) == 17
    for answer in turned_away:
        _problem(answer, 503, "overloaded")
        assert answer.headers["retry-after"] == "1"
    assert published.metrics.refused[503] == 17
    assert published.get(_url("bob")).status_code == 200


def test_filters_are_honoured(serving: Any, store: OnlineStore, cinema: Bundle, publish: Publish) -> None:
    """By category, by an attribute of the domain's, without some items; a mistyped filter is refused."""
    publish(store, 1, cinema)
    store.set(list_key(1, "ann"), encode_list(np.array([21, 22, 5, 24])))
    serving.watch.poll()
    assert _item_ids(serving.get(_url("ann", "?category=Comedy&k=2"))) == ["f21", "f22"]
    assert _item_ids(serving.get(_url("ann", "?max_age_rating=12&k=2"))) == ["f22", "f24"]
    assert _item_ids(serving.get(_url("ann", "?exclude=f21,f05"))) == ["f22", "f24"]
    answer = serving.get(_url("stranger", "?category=Noir&k=1"))
    assert (_item_ids(answer), answer.json()["tier"]) == (["f52"], "popular")
    _problem(serving.get(_url("ann", "?max_age_ratin=12")), 422, "invalid_request")


@pytest.mark.parametrize("fault", [Fault.SLOW, Fault.HANG, Fault.CUT])
def test_a_store_that_is_late_does_not_flap(
    own_redis: Any, serve: Callable[[str, float], Any], make_bundle: MakeBundle, publish: Publish, fault: Fault
) -> None:
    """One read fails; the probe asks for as much as the reads do, so nobody waits again until the store is well."""
    store = connect(own_redis.url)
    publish(store, 1, make_bundle())
    store.set(list_key(1, "bob"), encode_list(np.array([4])))
    with Proxy(own_redis.url) as proxy:
        serving = serve(f"redis://127.0.0.1:{proxy.port}", TIMEOUT_SECONDS)
        serving.watch.poll()
        assert serving.get(_url("bob")).json()["tier"] == "personal"
        with proxy.fault(fault, delay=0.1, longest=30):
            for _ in range(10):
                assert serving.get(_url("bob")).json()["tier"] == "popular"
                serving.wait(0.2)
            assert sum(serving.metrics.store_errors.values()) == 1
        deadline = time.monotonic() + 10
        while serving.get(_url("bob")).json()["tier"] != "personal" and time.monotonic() < deadline:
            serving.wait(0.05)
        assert serving.get(_url("bob")).json()["tier"] == "personal"
        assert sum(serving.metrics.store_errors.values()) == 1
    store.close()


def _problem(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code
