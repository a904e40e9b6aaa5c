"""The online store on a Redis Cluster: what holds on one Redis holds there, and a master that is lost takes no consent.

What the tests of publish, nearline and ingest ask of one Redis they ask of a cluster here, in a process of their own.
"""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from infra.database import Entry, Ledger
from infra.online_store import KeyReader, OnlineStore, OnlineStoreError, connect, slot_of
from ingest import projection
from ingest.chain import seal_with
from ingest.events import CONSENT_HEAD, PERSONALIZATION, ConsentProjection, ConsentUnavailable, now, subject
from ingest.projection import ProjectionWriter
from serving.cluster_lists import ClusterListReader
from serving.fallback import StoredLists
from serving.metrics import RecommendationMetrics
from tests.conftest import SEEN
from tests.redis_cluster import RedisCluster, running_cluster, wait_until
from training.bundle import history_key, list_key, live_key

ROOT = Path(__file__).parents[2]
SECRET = "of the tests"
PEOPLE = [f"u{number}" for number in range(60)]
ASKED_OF_ONE = (
    "tests/unit/ingest/test_gate.py",
    "tests/unit/ingest/test_projection.py",
    "tests/unit/serving/test_nearline.py",
    "tests/unit/serving/test_recommendations.py",
    "tests/unit/serving/test_votes.py",
    "tests/unit/training/test_lock.py",
    "tests/unit/training/test_operations.py",
    "tests/unit/training/test_progress.py",
    "tests/unit/training/test_publish.py",
    "tests/unit/training/test_rollback.py::test_back_to_the_version_before_and_forward_again",
)
pytestmark = [
    pytest.mark.timeout(500),
    # redis-py leaves nodes that are gone to the garbage collector.
    pytest.mark.filterwarnings("ignore:Unclosed ClusterNode:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed Connection:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:loop is closed:ResourceWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    """Three masters with a replica each."""
    with running_cluster() as cluster:
        SEEN["Redis Cluster"] = "three masters with a replica each"
        yield cluster


@pytest.fixture
def store(cluster: RedisCluster) -> Iterator[OnlineStore]:
    """A client of the cluster, which is whole and empty."""
    cluster.mend()
    client = connect(cluster.url)
    wait_until(lambda: client.flushall() is not None)
    yield client
    client.close()
    gc.collect()  # What is left goes here, where its warning is let pass.


def test_what_is_asked_of_one_redis_holds_on_a_cluster() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not one_redis", *ASKED_OF_ONE],
        cwd=ROOT,
        env={**os.environ, "MARQUEE_TEST_REDIS": "cluster", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=480,
    )
    assert done.returncode == 0, done.stdout[-6000:]


# --- keys that change together ---------------------------------------------------------------------------------------


def test_a_persons_lists_are_in_one_slot_and_what_changes_together_is_too() -> None:
    for person in ("ann", "a:b", "{x}", "é}", "{"):
        assert len({slot_of(kind(7, person).encode()) for kind in (list_key, live_key)}) == 1
    assert len({slot_of(list_key(7, person).encode()) for person in PEOPLE}) > 30
    assert len({slot_of(history_key(person).encode()) for person in PEOPLE}) == 1


# --- consent ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    ledger.create_tables()
    yield ledger
    ledger.close()


def state(ledger: Ledger, action: str) -> Any:
    purposes = (PERSONALIZATION,) if action == "grant" else ()
    entry = Entry(subject("ann", SECRET), action, purposes, "1", "test", now())
    return ledger.append_receipts([entry], seal_with(SECRET))


def allowed(cluster: RedisCluster) -> bool:
    """What another process finds that Ann allows, once the store answers."""
    deadline = time.monotonic() + 20
    while True:
        with suppress(ConsentUnavailable):
            return ConsentProjection(connect(cluster.url), SECRET).read(["ann"])["ann"].allows(PERSONALIZATION)
        assert time.monotonic() < deadline


def withdraw_while_the_replica_is_away(cluster: RedisCluster, store: OnlineStore, ledger: Ledger) -> bool:
    """Ann withdraws while the replica of the consents stands still; then their master is lost, and the replica is it.

    Returns:
        Whether the withdrawal was called done.
    """
    writer = ProjectionWriter(ledger, store)
    writer.apply(state(ledger, "grant"))
    writer.catch_up()
    master = cluster.master_of(CONSENT_HEAD)
    replica = cluster.replica_of(master)
    wait_until(lambda: cluster.node(master).wait(1, 1000))
    assert allowed(cluster)
    cluster.signal(replica, signal.SIGSTOP)
    cluster.node(master).execute_command("CLIENT", "KILL", "TYPE", "replica")  # Else it would find it in its socket.
    try:
        writer.apply(state(ledger, "withdraw"))
        done = True
    except ConsentUnavailable:
        done = False
    cluster.signal(master)
    cluster.signal(replica, signal.SIGCONT)
    wait_until(lambda: cluster.master_of(CONSENT_HEAD) == replica)
    return done


def test_a_withdrawal_that_only_a_lost_master_knew_was_not_called_done(
    cluster: RedisCluster, store: OnlineStore, ledger: Ledger
) -> None:
    assert not withdraw_while_the_replica_is_away(cluster, store, ledger)
    cluster.mend()
    ProjectionWriter(ledger, connect(cluster.url)).catch_up()
    assert not allowed(cluster)


def test_a_withdrawal_that_does_not_wait_for_a_replica_would_be_lost(
    cluster: RedisCluster, store: OnlineStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_once(store: OnlineStore, _: str, write: Callable[[OnlineStore], None]) -> None:
        write(store)

    monkeypatch.setattr(projection, "on_a_replica", at_once)
    assert withdraw_while_the_replica_is_away(cluster, store, ledger)
    assert allowed(cluster)


def test_what_was_called_done_stands_on_the_replica_that_takes_over(
    cluster: RedisCluster, store: OnlineStore, ledger: Ledger
) -> None:
    writer = ProjectionWriter(ledger, store)
    writer.apply(state(ledger, "grant"))
    writer.catch_up()
    writer.apply(state(ledger, "withdraw"))
    cluster.signal(cluster.master_of(CONSENT_HEAD))
    assert not allowed(cluster)


# --- the hot path ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def reading(cluster: RedisCluster) -> AsyncIterator[ClusterListReader]:
    """What serving reads lists with."""
    reader = ClusterListReader(cluster.url, RecommendationMetrics(CollectorRegistry()), timeout=0.5)
    try:
        yield reader
    finally:
        await reader.close()


async def lists_of(reader: ClusterListReader, people: list[str]) -> list[StoredLists | None]:
    """What is read of people who ask at once; None where their master does not answer."""
    asked = [reader.ask(1, person.encode()) for person in people]
    return [None if each is None else await each for each in asked]


def put_lists(store: OnlineStore, people: list[str]) -> None:
    for person in people:
        store.set(list_key(1, person), person)
        store.set(live_key(1, person), f"live {person}")


def is_theirs(found: StoredLists | None, person: str) -> bool:
    return found == StoredLists(f"live {person}".encode(), person.encode())


def test_who_ask_at_once_share_a_read_of_each_master(
    cluster: RedisCluster, store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_lists(store, PEOPLE)
    asked: list[bytes] = []
    ask = KeyReader._ask

    def count(self: KeyReader, command: bytes, replies: int) -> Awaitable[list[Any]]:
        asked.append(command)
        return ask(self, command, replies)

    monkeypatch.setattr(KeyReader, "_ask", count)

    async def read() -> tuple[list[StoredLists | None], list[StoredLists | None]]:
        async with reading(cluster) as reader:
            await lists_of(reader, PEOPLE[:1])
            asked.clear()
            return await lists_of(reader, PEOPLE), await lists_of(reader, ["stranger", "}", "ann"])

    found, strangers = asyncio.run(read())
    assert all(map(is_theirs, found, PEOPLE))
    assert 3 < len(asked) <= 6
    assert strangers == [StoredLists(None, None)] * 3


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_master_costs_its_people_their_lists_until_its_replica_is_in_its_place(
    cluster: RedisCluster, store: OnlineStore, fault: signal.Signals
) -> None:
    put_lists(store, PEOPLE)
    lost = cluster.master_of(list_key(1, PEOPLE[0]))
    theirs = [person for person in PEOPLE if cluster.master_of(list_key(1, person)) == lost]
    others = sorted(set(PEOPLE) - set(theirs))

    async def read() -> None:
        async with reading(cluster) as reader:
            assert all(map(is_theirs, await lists_of(reader, PEOPLE), PEOPLE))
            cluster.signal(lost, fault)
            await lists_of(reader, theirs)
            assert await lists_of(reader, theirs) == [None] * len(theirs)
            assert all(map(is_theirs, await lists_of(reader, others), others))
            deadline = time.monotonic() + 20
            while not all(map(is_theirs, await lists_of(reader, theirs), theirs)):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            assert all(map(is_theirs, await lists_of(reader, others), others))

    asyncio.run(read())


def test_slots_that_move_are_followed(cluster: RedisCluster, store: OnlineStore) -> None:
    """A failover by hand: the old master answers, and says that it is none any more."""
    put_lists(store, PEOPLE)

    async def read() -> None:
        async with reading(cluster) as reader:
            assert all(map(is_theirs, await lists_of(reader, PEOPLE), PEOPLE))
            before = cluster.master_of(list_key(1, PEOPLE[0]))
            cluster.node(cluster.replica_of(before)).execute_command("CLUSTER FAILOVER")
            await asyncio.to_thread(wait_until, lambda: cluster.master_of(list_key(1, PEOPLE[0])) != before)
            deadline = time.monotonic() + 20
            while not all(map(is_theirs, await lists_of(reader, PEOPLE), PEOPLE)):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)

    asyncio.run(read())


def test_other_values_are_read_from_whatever_masters_and_none_while_one_is_down(
    cluster: RedisCluster, store: OnlineStore
) -> None:
    keys = [history_key("ann"), *(list_key(1, person) for person in PEOPLE)]
    for key in keys:
        store.set(key, key)

    async def read() -> None:
        async with reading(cluster) as reader:
            assert await reader.values([*keys, "nothing"]) == [*(key.encode() for key in keys), None]
            cluster.signal(cluster.master_of(history_key("ann")))
            assert await reader.values(keys) is None
            deadline = time.monotonic() + 20
            while await reader.values(keys) is None:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)

    asyncio.run(read())


def test_without_a_cluster_every_answer_is_none_soon() -> None:
    async def read() -> list[Any]:
        reader = ClusterListReader("redis+cluster://127.0.0.1:1", RecommendationMetrics(CollectorRegistry()))
        found = [*(await lists_of(reader, ["ann"])), await reader.values(["a"])]
        await reader.close()
        return found

    assert asyncio.run(read()) == [None, None]


def test_a_client_is_made_without_a_cluster_and_fails_as_a_store_that_is_down() -> None:
    store = connect("redis+cluster://127.0.0.1:1")
    with pytest.raises(OnlineStoreError):
        store.get("a")
    store.close()
    assert cast("Any", store).clustered
