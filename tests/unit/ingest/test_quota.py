"""Who sends too much waits, who pushes one item is seen and held, and who does neither notices nothing."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import structlog

from infra.key_file import KeyScope, Quota
from infra.keys import Caller
from infra.online_store import OnlineStore
from ingest.events import ConsentUnavailable
from ingest.quota import COUNTED_ITEMS, TAKE, Floods, QuotaExceeded, Quotas

EVENTS = frozenset({KeyScope.EVENTS})


def caller(rate: float, burst: float, key_id: str = "web", user_id: str | None = None) -> Caller:
    return Caller(key_id, EVENTS, Quota(rate=rate, burst=burst), user_id)


# --- quotas ----------------------------------------------------------------------------------------------------------


def test_a_bucket_is_emptied_and_says_when_there_is_room(store: OnlineStore) -> None:
    """The wait is that until there are enough tokens for this very batch, in whole seconds, and at least one."""
    quotas, slow = Quotas(store, "s"), caller(rate=0.1, burst=100)
    quotas.take(slow, 60)
    quotas.take(slow, 40)
    for events, seconds in ((1, 10), (10, 100), (60, 600)):
        with pytest.raises(QuotaExceeded) as refused:
            quotas.take(slow, events)
        assert seconds - 5 < refused.value.seconds <= seconds


def test_a_bucket_fills_and_holds_no_more_than_its_burst(store: OnlineStore) -> None:
    """As time passes; what was not used does not add up."""
    quotas, web = Quotas(store, "s"), caller(rate=0.1, burst=100)
    quotas.take(web, 100)
    store.hincrbyfloat("quota:web", "at", -400)
    with pytest.raises(QuotaExceeded):
        quotas.take(web, 45)
    quotas.take(web, 40)
    store.hincrbyfloat("quota:web", "at", -100_000)
    quotas.take(web, 100)
    with pytest.raises(QuotaExceeded):
        quotas.take(web, 5)


def test_what_is_larger_than_the_bucket_passes_when_full_and_is_paid_later(store: OnlineStore) -> None:
    """Else a batch of 500 could never be sent by who may send 10 a second."""
    quotas, web = Quotas(store, "s"), caller(rate=10, burst=100)
    quotas.take(web, 500)
    with pytest.raises(QuotaExceeded) as refused:
        quotas.take(web, 1)
    assert 30 < refused.value.seconds <= 41


def test_a_refusal_costs_nothing(store: OnlineStore) -> None:
    quotas, web = Quotas(store, "s"), caller(rate=0.001, burst=10)
    quotas.take(web, 9)
    for _ in range(5):
        with pytest.raises(QuotaExceeded):
            quotas.take(web, 10)
    quotas.take(web, 1)


def test_every_key_and_every_person_has_a_bucket_of_its_own_that_names_nobody_and_ends(store: OnlineStore) -> None:
    quotas = Quotas(store, "s")
    for each in (caller(1, 10), caller(1, 10, "app"), caller(1, 10, "person", "canary"), caller(1, 10, "person", "u2")):
        quotas.take(each, 10)
    buckets = store.keys("*")
    assert isinstance(buckets, list)
    assert len(buckets) == 4
    assert b"canary" not in b" ".join(buckets)
    assert all(0 < store.pttl(bucket) <= 10_000 for bucket in buckets)  # type: ignore[operator]


def test_without_a_quota_nobody_is_asked() -> None:
    Quotas(_Unreachable(), "s").take(Caller("web", EVENTS), 500)  # type: ignore[arg-type]


def test_without_redis_the_gate_is_shut_anyway(serve_nothing: OnlineStore) -> None:
    with pytest.raises(ConsentUnavailable):
        Quotas(serve_nothing, "s").take(caller(1, 10), 1)


def test_many_who_take_at_once_get_no_more_than_there_is(store: OnlineStore, redis_url: str) -> None:
    """Two processes, as it were: the bucket is one."""
    from concurrent.futures import ThreadPoolExecutor

    from infra.online_store import connect

    other = connect(redis_url)
    both = [Quotas(store, "s"), Quotas(other, "s")]

    def take(number: int) -> bool:
        try:
            both[number % 2].take(caller(rate=0.001, burst=100), 7)
        except QuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(60))) == 14
    other.close()


@pytest.mark.parametrize(
    ("was", "broken", "test"),
    [
        ("missing > 0", "missing > 1e9", test_a_bucket_is_emptied_and_says_when_there_is_room),
        ("math.min(cost, most)", "cost", test_what_is_larger_than_the_bucket_passes_when_full_and_is_paid_later),
        ("math.min(most, (held[1] or most) + since * rate)", "(held[1] or most) + since * rate",
         test_a_bucket_fills_and_holds_no_more_than_its_burst),
        ("then return", "then redis.call('HINCRBYFLOAT', KEYS[1], 'tokens', -cost) return",
         test_a_refusal_costs_nothing),
    ],
)  # fmt: skip
def test_the_tests_find_a_bucket_that_leaks(
    store: OnlineStore, monkeypatch: pytest.MonkeyPatch, was: str, broken: str, test: Callable[[OnlineStore], None]
) -> None:
    """Never empty; too small for a batch; without a rim; emptied by those whom it refuses."""
    assert was in TAKE
    monkeypatch.setattr("ingest.quota.TAKE", TAKE.replace(was, broken))
    with pytest.raises((AssertionError, pytest.fail.Exception, QuotaExceeded)):
        test(store)


class _Unreachable:
    """A store that nobody may ask."""

    def register_script(self, _: str) -> Any:
        return lambda **_: pytest.fail("asked")


@pytest.fixture
def serve_nothing() -> Any:
    """A store that is not there."""
    from infra.online_store import connect

    client = connect("unix:///nowhere.sock")
    yield client
    client.close()


# --- floods ----------------------------------------------------------------------------------------------------------


def about(**items: int) -> list[dict[str, str]]:
    return [{"item_id": item} for item, count in items.items() for _ in range(count)]


@pytest.fixture
def floods() -> Floods:
    """Two thousand about one item a minute, and time stands still."""
    return Floods(2000, lambda: 0.0)


def test_one_key_that_sends_thousands_about_one_item_is_held_from_the_limit_on(floods: Floods) -> None:
    """The batch that crosses it is the first; another key and other items are not touched."""
    held = [floods.flooded("bot", about(m1=400)) for _ in range(8)]
    assert held == [frozenset()] * 5 + [frozenset({"m1"})] * 3
    assert floods.flooded("bot", about(m2=10)) == frozenset()
    assert floods.flooded("web", about(m1=400)) == frozenset()


def test_a_minute_later_it_starts_anew() -> None:
    time = [0.0]
    floods = Floods(2000, lambda: time[0])
    assert floods.flooded("bot", about(m1=2001))
    time[0] = 61.0
    assert not floods.flooded("bot", about(m1=2000))
    assert floods.flooded("bot", about(m1=1))


def test_a_premiere_passes(floods: Floods) -> None:
    """A product's events of a great evening: 45 % of 40,000 are about one item, the rest has a long tail."""
    chance = random.Random(7)
    for _ in range(80):
        batch = about(premiere=225) + [{"item_id": f"m{int(chance.paretovariate(0.7))}"} for _ in range(275)]
        assert floods.flooded("web", batch) == frozenset()


def test_little_about_one_item_alone_passes(floods: Floods) -> None:
    """A small product, or one person's device, may well send about one item only."""
    assert floods.flooded("web", about(m1=500) * 4) == frozenset()


def test_other_events_hide_a_flood_only_if_they_are_as_many(floods: Floods) -> None:
    """Whether they are real or not: then it costs twice as much, and the quota counts all of them."""
    for number in range(20):
        other = [{"item_id": f"x{number}-{n}"} for n in range(200)]
        found = floods.flooded("bot", about(m1=300) + other)
        assert found == (frozenset({"m1"}) if 300 * (number + 1) > 2000 else frozenset())


def test_a_flood_is_found_among_more_items_than_are_counted(floods: Floods) -> None:
    """And what is kept of them stays small; the counts are never too high, and too low by a thousandth at most."""
    chance, sent = random.Random(7), Counter[str]()
    for _ in range(60):
        batch = about(m1=260) + [{"item_id": f"x{chance.randrange(10**6)}"} for _ in range(240)]
        sent.update(event["item_id"] for event in batch)
        found = floods.flooded("bot", batch)
    minute = floods._of_key["bot"]
    assert found == {"m1"}
    assert len(minute.items) <= 2 * COUNTED_ITEMS
    assert all(0 <= sent[item] - count <= sent.total() / COUNTED_ITEMS for item, count in minute.items.items())


def test_the_limit_can_be_turned_off() -> None:
    assert Floods(0).flooded("bot", about(m1=10_000)) == frozenset()


@pytest.mark.parametrize("odd", [None, 7, [], {}, {"item_id": None}, {"item_id": ["m1"]}, {"item_id": "x" * 1000}])
def test_what_is_no_event_is_not_counted(floods: Floods, odd: Any) -> None:
    assert floods.flooded("bot", [odd] * 3000) == frozenset()
    assert not floods._of_key["bot"].items


def test_a_flood_is_reported_once_a_minute(floods: Floods) -> None:
    with structlog.testing.capture_logs() as logs:
        for _ in range(5):
            floods.flooded("bot", about(m1=1500))
    assert [(line["log_level"], line["key"], line["item"]) for line in logs] == [("warning", "bot", "m1")]


class _ByCountAlone(Floods):
    """A broken one: it does not ask for the share."""

    def flooded(self, key_id: str, batch: Any) -> frozenset[str]:
        super().flooded(key_id, batch)
        return frozenset(item for item, count in self._of_key[key_id].items.items() if count > 2000)


class _ByShareAlone(Floods):
    """A broken one: it does not ask how many there are."""

    def flooded(self, key_id: str, batch: Any) -> frozenset[str]:
        super().flooded(key_id, batch)
        minute = self._of_key[key_id]
        return frozenset(item for item, count in minute.items.items() if count > minute.events / 2)


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (_ByCountAlone, test_a_premiere_passes),
        (_ByShareAlone, test_little_about_one_item_alone_passes),
    ],
)
def test_the_tests_find_a_limit_that_holds_the_innocent(broken: Any, test: Callable[[Floods], None]) -> None:
    with pytest.raises(AssertionError):
        test(broken(2000, lambda: 0.0))


# --- at the edge -----------------------------------------------------------------------------------------------------


def test_over_quota_is_429_with_retry_after_and_nothing_is_taken(client: httpx.Client, ingest: Any, event: Any) -> None:
    ingest.allow("u1")
    headers = {"Authorization": f"Bearer {ingest.key(KeyScope.EVENTS, quota=Quota(rate=0.1, burst=3))}"}
    assert client.post("/v1/events", json={"events": [event()] * 3}, headers=headers).status_code == 202
    answer = client.post("/v1/events", json={"events": [event(), event()]}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
    assert 10 < int(answer.headers["retry-after"]) <= 20
    assert client.post("/v1/events", json={"events": [event()]}).status_code == 202
    assert len(ingest.logged()) == 1 + 3 + 1
    key_id = headers["Authorization"].split("_")[1]
    assert ingest.count("marquee_batches_over_quota_total", key=key_id) == 1


def test_a_person_has_a_quota_of_her_own(client: httpx.Client, ingest: Any, event: Any) -> None:
    """MARQUEE_JWT_EVENTS_PER_SECOND, ten seconds of it at once; another person is not touched by it."""
    answers = []
    for person, events in (("u1", 100), ("u1", 90), ("u2", 100)):
        headers = {"Authorization": f"Bearer {ingest.token(person)}"}
        batch = [event(user_id=person) for _ in range(events)]
        answers.append(client.post("/v1/events", json={"events": batch}, headers=headers).json()["code"])
    assert answers == ["no_event_accepted", "quota_exceeded", "no_event_accepted"]


def test_a_person_who_calls_without_end_is_told_to_wait_and_one_who_sent_too_much_can_still_withdraw(
    client: httpx.Client, ingest: Any, event: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call leaves a receipt for good. A back end's key calls for many people and is not counted."""
    monkeypatch.setattr("infra.tokens.Caller", lambda *args: Caller(*args)._replace(quota=Quota(rate=0.1, burst=3)))
    mine = {"Authorization": f"Bearer {ingest.token('u1')}"}
    assert client.post("/v1/events", json={"events": [event()] * 3}, headers=mine).status_code == 422
    assert client.post("/v1/events", json={"events": [event()] * 3}, headers=mine).status_code == 429
    answers = [client.delete("/v1/users/u1/consent", headers=mine) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert int(answers[-1].headers["retry-after"]) <= 10
    assert client.get("/v1/users/u1/data", headers=mine).status_code == 429
    assert client.delete("/v1/users/u1/consent").status_code == 200
    assert ingest.ledger.head().number == 4


def test_a_flooded_item_has_a_verdict_and_a_count_and_the_rest_of_the_batch_is_taken(
    client: httpx.Client, ingest: Any, event: Any
) -> None:
    ingest.allow("u1")
    ingest.floods._most = 5
    batch = [event(item_id="m1") for _ in range(6)] + [event(item_id="m2"), event(item_id="m1", type="none")]
    verdicts = client.post("/v1/events", json={"events": batch}).json()["verdicts"]
    assert [verdict["code"] for verdict in verdicts] == ["item_flooded"] * 6 + ["accepted", "unknown_type"]
    assert ingest.count("marquee_events_total", verdict="item_flooded") == 6
    schema = ingest.app.openapi()["components"]["schemas"]["EventVerdict"]
    assert "item_flooded" in schema["properties"]["code"]["enum"]
