"""The platform's processes on a Redis Cluster: a master that is killed costs some people their lists for a while."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from bench import editions
from bench.editions import grant_everybody, put
from bench.own_platform import SECRET, OwnPlatform, wait_until
from infra.online_store import OnlineStore, connect
from ingest.events import CONSENT_HEAD, ConsentProjection
from tests.redis_cluster import NODE_TIMEOUT_MS, RedisCluster, running_cluster
from training.bundle import CURRENT, KEPT, history_key, list_key
from training.publish import Publisher

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

USERS = [editions.user(number) for number in range(120)]
ASKERS = 4


class Answer(NamedTuple):
    """What somebody was answered, and when they asked."""

    at: float
    user: str
    status: int
    tier: str | None


@contextmanager
def asking(platform: OwnPlatform) -> Iterator[list[Answer]]:
    """Everybody asks for their list again and again while the block runs."""
    answers: list[Answer] = []
    over = threading.Event()

    def ask(users: list[str]) -> None:
        while not over.is_set():
            for user in users:
                at = time.monotonic()
                status, body = platform.call("serve", "GET", f"/v1/users/{user}/recommendations?k=3")
                answers.append(Answer(at, user, status, body and body.get("tier")))

    threads = [threading.Thread(target=ask, args=(USERS[number::ASKERS],)) for number in range(ASKERS)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join(30)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    """Three masters with a replica each."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def store(cluster: RedisCluster) -> Iterator[OnlineStore]:
    """A client of the cluster."""
    client = connect(cluster.url, 10)
    yield client
    client.close()


@pytest.fixture(scope="module")
def platform(cluster: RedisCluster, store: OnlineStore) -> Iterator[OwnPlatform]:
    """Serving and nearline; everybody has a list of version 1. The event log is a Redis of its own."""
    put(store, 1, USERS)
    with OwnPlatform(("nearline", "serve"), settings={"REDIS": cluster.url}) as platform:
        yield platform


def tiers(platform: OwnPlatform) -> set[str]:
    """Where everybody's list comes from now."""
    path = "/v1/users/{}/recommendations?k=3"
    return {platform.call("serve", "GET", path.format(user))[1]["tier"] for user in USERS}


def version(platform: OwnPlatform) -> int:
    body = platform.call("serve", "GET", f"/v1/users/{USERS[0]}/recommendations?k=3")[1]
    return int(body["version"])


def test_a_master_is_killed_under_load_and_nobody_is_refused(
    platform: OwnPlatform, cluster: RedisCluster, store: OnlineStore
) -> None:
    wait_until(lambda: tiers(platform) == {"personal"}, "everybody has their own list")
    lost = cluster.master_of(list_key(1, USERS[0]))
    theirs = {user for user in USERS if cluster.master_of(list_key(1, user)) == lost}
    with asking(platform) as answers:
        time.sleep(1)
        cluster.signal(lost)
        killed = time.monotonic()
        wait_until(lambda: cluster.master_of(list_key(1, USERS[0])) != lost, "the replica is in its place")
        wait_until(lambda: tiers(platform) == {"personal"}, "everybody has their own list again")
    assert {answer.status for answer in answers} == {200}
    meanwhile = [answer for answer in answers if killed + 0.1 < answer.at < killed + NODE_TIMEOUT_MS / 1000]
    assert {answer.tier for answer in meanwhile if answer.user in theirs} == {"popular"}
    assert "personal" in {answer.tier for answer in meanwhile if answer.user not in theirs}
    cluster.mend()


def test_a_version_is_published_and_rolled_back_under_load(
    platform: OwnPlatform, cluster: RedisCluster, store: OnlineStore
) -> None:
    grant_everybody(store, USERS, SECRET)
    with asking(platform) as answers:
        lists, _ = editions.publish(cluster.url, 2, len(USERS), SECRET)
        wait_until(lambda: version(platform) == 2, "version 2 is served")
        publisher = Publisher(store, ConsentProjection(store, SECRET), editions.LENGTH, 3600)
        assert publisher.serve_again(1)
        wait_until(lambda: version(platform) == 1, "version 1 is served")
    assert lists == len(USERS)
    assert {answer.status for answer in answers} == {200}
    assert {answer.tier for answer in answers} <= {"personal", "popular"}  # On a busy machine a read may be late.
    assert store.smembers(KEPT) == {b"1", b"2"}
    assert store.get(CURRENT) == b"1"


def test_what_somebody_does_changes_the_list_and_while_the_consents_are_lost_nothing_is_taken(
    platform: OwnPlatform, cluster: RedisCluster, store: OnlineStore
) -> None:
    cluster.mend()
    store.unlink(*store.scan_iter("{consent}:*"))  # The test before gave them without a ledger.
    platform.start("ingest")
    platform.wait_until_up("ingest")
    statement = {"purposes": ["personalization"], "source": "test"}
    assert platform.call("ingest", "PUT", "/v1/users/ann/consent", statement)[0] == 200
    sent = 0

    def send() -> int:
        nonlocal sent
        sent += 1
        event = {"event_id": f"e{sent}", "type": "complete", "user_id": "ann", "item_id": f"m{sent:04}"}
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return platform.call("ingest", "POST", "/v1/events", {"events": [{**event, "occurred_at": moment}]})[0]

    def list_of_ann() -> Any:
        return platform.call("serve", "GET", "/v1/users/ann/recommendations?k=3")[1]["tier"]

    assert send() == 202
    wait_until(lambda: list_of_ann() == "live", "the event is in the list")
    lost = cluster.master_of(CONSENT_HEAD)
    with asking(platform) as answers:
        cluster.signal(lost)
        events = [send()]
        wait_until(until_taken(send, events), "events are taken again")
    assert set(events) == {202, 503}
    assert events == sorted(events, reverse=True), "once it takes events, it goes on"
    assert {answer.status for answer in answers} == {200}
    assert platform.call("ingest", "DELETE", "/v1/users/ann/consent")[0] == 503, "no replica would know of it"
    cluster.mend()
    wait_until(lambda: platform.call("ingest", "DELETE", "/v1/users/ann/consent")[0] == 200, "it is taken back")
    assert not ConsentProjection(store, SECRET).read(["ann"])["ann"].granted
    wait_until(lambda: list_of_ann() == "popular", "the live list is gone")
    wait_until(lambda: not store.exists(history_key("ann")), "so is the history")


def until_taken(send: Callable[[], int], events: list[int]) -> Callable[[], bool]:
    """Sends an event each time it is asked, notes the status, and says whether it was taken."""

    def taken() -> bool:
        events.append(send())
        return events[-1] == 202

    return taken
