"""What an operator sees of the running platform in one answer, so that a browser needs to reach this process alone.

What does not answer is told as such; the rest is told all the same. Nothing here grows with the data: rows are counted
by the lake's own log, and what people cost in Redis is the mean of a sample, taken every few seconds.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPException
from itertools import islice
from typing import cast
from urllib.request import ProxyHandler, build_opener

import structlog
from prometheus_client.parser import text_string_to_metric_families

from infra.kept import Kept
from infra.lake import EVENTS, Lake, LakeError
from infra.online_store import OnlineStore, OnlineStoreError, masters
from ingest.events import now
from training.bundle import WRITTEN, history_key, list_key, live_key
from training.messages import BytesAPerson, Lag, Operations, Process, RedisFigures, Sample
from training.publish import current

SCRAPE_SECONDS = 1.0
MOST_BYTES = 4 << 20
"""Of what a process shows; more of it is not read."""
TOLD = ("marquee_", "process_resident_memory_bytes")
LAG = "marquee_log_lag"
KEPT_SECONDS = 10.0
"""How long a count of the lake's rows and a sample of Redis are good for."""
PEOPLE_SAMPLED = 200
MOST_SCANS = 20
SCAN_COUNT = 1000


class Watch:
    """Looks at the platform. Safe to share between threads.

    Args:
        processes: where each shows its /metrics, by name.
        store: the online store, with a short time-out.
        lake: whose rows are counted.
    """

    def __init__(self, processes: Mapping[str, str], store: OnlineStore, lake: Lake) -> None:
        self._processes = processes
        self._store = store
        self._rows = Kept(lambda: lake.count(EVENTS), KEPT_SECONDS)
        self._bytes = Kept(lambda: bytes_a_person(store), KEPT_SECONDS)
        self._scrapers = ThreadPoolExecutor(len(processes), "scrape")

    def look(self) -> Operations:
        """As it is now."""
        scraped = self._scrapers.map(scrape, self._processes.keys(), self._processes.values())
        shown = dict(zip(self._processes, scraped, strict=True))
        samples = [sample for found in shown.values() for sample in found or ()]
        return Operations(
            at=now(),
            processes=[Process(name=name, answers=found is not None) for name, found in shown.items()],
            samples=samples,
            landed_rows=self._landed_rows(),
            lag=_lag(samples),
            redis=self._redis(),
        )

    def close(self) -> None:
        """Look no more."""
        self._scrapers.shutdown()

    def _landed_rows(self) -> int | None:
        try:
            return self._rows()
        except LakeError as error:
            structlog.get_logger(__name__).warning("rows not counted", why=str(error))
            return None

    def _redis(self) -> RedisFigures | None:
        try:
            used = sum(cast("dict[str, int]", part.info("memory"))["used_memory"] for part in masters(self._store))
            people = self._store.zcard(WRITTEN)
            return RedisFigures(used_bytes=used, people=people, bytes_a_person=self._bytes())
        except OnlineStoreError as error:
            structlog.get_logger(__name__).warning("the online store tells nothing", error=type(error).__name__)
            return None


def scrape(name: str, url: str) -> list[Sample] | None:
    """What a process shows; None where it does not answer in time, or with anything else than metrics."""
    try:
        # Straight to it: no proxy of the environment is asked about our own processes.
        with build_opener(ProxyHandler({})).open(f"{url}/metrics", timeout=SCRAPE_SECONDS) as answer:
            text = answer.read(MOST_BYTES).decode()
        return [
            Sample(process=name, name=sample.name, labels=sample.labels, value=sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if _is_told(sample.name, sample.value)
        ]
    except (OSError, HTTPException, ValueError):
        return None


def _is_told(name: str, value: float) -> bool:
    """Whether an operator looks at it; and JSON has neither NaN nor infinity."""
    return name.startswith(TOLD) and not name.endswith("_created") and abs(value) < float("inf")


def bytes_a_person(store: OnlineStore) -> BytesAPerson | None:
    """How much room a person takes, on average over a sample of those who have a list or a history; None: nobody has.

    Raises:
        infra.online_store.OnlineStoreError: the store does not answer.
    """
    version = current(store) or 0
    people = _some_people(store, version)
    if not people:
        return None
    asks = store.pipeline(transaction=False)
    for user_id in people:
        for key in (list_key(version, user_id), live_key(version, user_id), history_key(user_id)):
            asks.memory_usage(key)
    sizes = [size or 0 for size in asks.execute()]
    means = [sum(sizes[kind::3]) / len(people) for kind in range(3)]
    return BytesAPerson(list=means[0], live=means[1], history=means[2], total=sum(means))


def _some_people(store: OnlineStore, version: int) -> list[str]:
    """Redis goes through its keys in the order of their hashes: the first ones that it meets are a fair sample."""
    around = [
        kind("*").encode().split(b"*") for kind in (partial(list_key, version), partial(live_key, version), history_key)
    ]
    people: dict[str, None] = {}
    for key in islice(store.scan_iter(count=SCAN_COUNT), MOST_SCANS * SCAN_COUNT):
        for before, after in around:
            if key.startswith(before) and key.endswith(after):
                people[key.removeprefix(before).removesuffix(after).decode()] = None
        if len(people) >= PEOPLE_SAMPLED:
            break
    return list(people)


def _lag(samples: Iterable[Sample]) -> Lag:
    """Records that each group has not read, over all partitions; None of a group whose process does not answer."""
    behind: dict[str, int] = {}
    for sample in samples:
        if sample.name == LAG:
            group = sample.labels["group"]
            behind[group] = behind.get(group, 0) + int(sample.value)
    return Lag.model_validate(behind)
