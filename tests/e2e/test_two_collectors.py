"""Two `marquee ingest` processes, one ledger, one Redis, one log: people withdraw at either while both take events."""

import os
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from bench.own_platform import free_ports
from infra.event_log import open_event_log
from infra.lake import EVENTS, Lake
from infra.online_store import OnlineStore, connect
from ingest.events import AcceptedEvent, ConsentMark, decode, is_mark, now
from training.bundle import KEPT, list_key

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

ROOT = Path(__file__).parents[2]
KEY = "a key of the tests"
PEOPLE = [f"viewer-{number:02}" for number in range(24)]
BROKEN = """
from ingest.projection import ProjectionWriter
fold = ProjectionWriter._fold_in
ProjectionWriter._fold_in = lambda self, new, to: fold(self, [each for each in new if each.action == "grant"], to)
from ingest.main import serve_ingest
serve_ingest()
"""
"""A collector that answers a withdrawal before the gate knows of it."""


class Sent(NamedTuple):
    """An event, when its request began, and whether it was accepted."""

    person: str
    began: float
    accepted: bool


class Collectors:
    """Two ingest processes, and what else of the platform is asked for."""

    def __init__(self, folder: Path, store_url: str, log_url: str, code: str | None, stack: ExitStack) -> None:
        self.store_url, self.log_url, self.topic = store_url, log_url, f"two-{uuid.uuid4()}"
        self.lake = Lake(str(folder / "lake"))
        self._clean = {name: value for name, value in os.environ.items() if not name.startswith("MARQUEE_")}
        self._own = {
            "MARQUEE_DATA": str(folder),
            "MARQUEE_REDIS": store_url,
            "MARQUEE_EVENT_LOG": log_url,
            "MARQUEE_TOPIC": self.topic,
            "MARQUEE_API_KEY": KEY,
            "MARQUEE_SECRET": "a secret of the tests",
            "MARQUEE_TRAIN_EVERY_SECONDS": "1000000000",
            "MARQUEE_ITEM_FLOOD_PER_MINUTE": "0",  # All are about one item: a quick machine would reach the limit.
        }
        self._stack, self._folder = stack, folder
        ports = free_ports(2)
        words = ["-c", code] if code else ["-m", "marquee", "ingest"]
        for port in ports:
            self.start(words, {"MARQUEE_INGEST_PORT": str(port)})
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        for url in self.urls:
            wait_until(lambda url=url: answers(f"{url}/readyz"), 90)  # type: ignore[misc]

    def start(self, words: list[str], settings: dict[str, str]) -> None:
        """Start a process; it ends with the test."""
        output = self._stack.enter_context((self._folder / f"{uuid.uuid4()}.out").open("wb"))
        environment = {**self._clean, **self._own, **settings}
        process = subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        self._stack.callback(process.wait, 30)
        self._stack.callback(process.terminate)

    def client(self, number: int) -> httpx.Client:
        """Of one of the two."""
        headers = {"Authorization": f"Bearer {KEY}"}
        return httpx.Client(base_url=self.urls[number], headers=headers, timeout=30, trust_env=False)


@contextmanager
def collectors(folder: Path, store_url: str, log_url: str, code: str | None = None) -> Iterator[Collectors]:
    """Two of them, while the block runs."""
    with ExitStack() as stack:
        yield Collectors(folder, store_url, log_url, code, stack)


def race(two: Collectors) -> tuple[list[Sent], dict[str, float]]:
    """Everybody withdraws at one of the two while both are sent everybody's events; and when each was answered."""
    with two.client(0) as client:
        for person in PEOPLE:
            consent(client, "PUT", person, {"purposes": ["personalization"]})
    over, withdrawn = threading.Event(), dict[str, float]()

    def stream(number: int) -> list[Sent]:
        sent: list[Sent] = []
        with two.client(number) as client:
            while not over.is_set():
                batch = [an_event(person) for person in PEOPLE]
                began = time.monotonic()
                answer = client.post("/v1/events", json={"events": batch})
                if "verdicts" in answer.json():
                    codes = [verdict["code"] for verdict in answer.json()["verdicts"]]
                    sent += [Sent(p, began, c == "accepted") for p, c in zip(PEOPLE, codes, strict=True)]
        return sent

    with ThreadPoolExecutor(4) as pool, two.client(0) as one, two.client(1) as other:
        streams = [pool.submit(stream, number % 2) for number in range(4)]
        try:
            time.sleep(1.0)
            for turn, person in enumerate(PEOPLE):
                consent((one, other)[turn % 2], "DELETE", person)
                withdrawn[person] = time.monotonic()
            time.sleep(1.0)
        finally:
            over.set()
        return [sent for each in streams for sent in each.result()], withdrawn


def consent(client: httpx.Client, method: str, person: str, body: dict[str, list[str]] | None = None) -> None:
    """Ask until it is answered with 200, as clients must: a log that takes longer than it may is a 503."""
    for _ in range(30):
        answer = client.request(method, f"/v1/users/{person}/consent", json=body)
        if answer.status_code != 503:
            break
        time.sleep(0.2)
    assert answer.status_code == 200, answer.text


def accepted_after(sent: list[Sent], withdrawn: dict[str, float]) -> list[Sent]:
    return [each for each in sent if each.accepted and each.began > withdrawn[each.person]]


@pytest.mark.parametrize("log", ["redis", pytest.param("kafka", marks=pytest.mark.kafka)])
def test_after_a_withdrawal_is_answered_neither_of_two_processes_takes_anything(
    log: str, own_redis: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    log_url = str(request.getfixturevalue("kafka_url")) if log == "kafka" else ""
    store = connect(own_redis.url)
    store.sadd(KEPT, 1)
    store.mset({list_key(1, person): b"1" for person in PEOPLE})
    with collectors(tmp_path, own_redis.url, log_url) as two:
        two.start(["-m", "marquee", "train", "--schedule"], {"MARQUEE_TRAINER_METRICS_PORT": str(free_ports(1)[0])})
        sent, withdrawn = race(two)
        assert {each.person for each in sent if each.accepted} == set(PEOPLE), "the race was over before it began"
        assert accepted_after(sent, withdrawn) == []
        wait_until(lambda: not list(store.scan_iter(list_key(1, "*"))), 60)
        behind = behind_their_marks(two)
        if log == "redis":
            assert behind == 0
        nothing_lands(two, store)
    store.close()


def test_a_process_that_answers_before_the_gate_knows_is_found(own_redis: Any, tmp_path: Path) -> None:
    with collectors(tmp_path, own_redis.url, "", BROKEN) as two:
        assert accepted_after(*race(two)) != []


def behind_their_marks(two: Collectors) -> int:
    """Events that stand in the log behind the mark of their person's withdrawal."""
    log = open_event_log(two.log_url or two.store_url, two.topic, 4)
    consumer = log.consumer(f"reader-{uuid.uuid4()}", start_at=lambda _: 0)
    ended: set[str] = set()
    read, count, end = 0, 0, sum(log.end_offsets().values())
    while read < end:
        records = consumer.poll(1.0)
        read += len(records)
        for said in (decode(record.value) for record in records):
            if isinstance(said, ConsentMark) and is_mark(said):
                ended.add(said.user_id)
            elif isinstance(said, AcceptedEvent):
                count += said.user_id in ended
    consumer.close()
    log.close()
    return count


def nothing_lands(two: Collectors, store: OnlineStore) -> None:
    """A lander, in a process of its own, leaves no row of anybody."""
    two.start(["-m", "marquee", "land"], {"MARQUEE_LANDER_METRICS_PORT": str(free_ports(1)[0])})
    log = open_event_log(two.log_url or two.store_url, two.topic, 4)
    wait_until(lambda: sum(two.lake.landed(EVENTS).values()) >= sum(log.end_offsets().values()), 90)
    log.close()
    assert two.lake.snapshot(EVENTS).rows.height == 0


def an_event(person: str) -> dict[str, str]:
    act = {"event_id": uuid.uuid4().hex, "type": "play", "user_id": person, "item_id": "m1"}
    return {**act, "occurred_at": now().isoformat()}


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
