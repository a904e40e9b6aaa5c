"""How fast an event changes the answer: from the 202 of the ingest API to the first answer without the watched film.

    .venv/bin/python -m bench.freshness

Real processes on loopback: ingest, nearline, serving, and one Redis that is log and store. While events come in at a
constant rate, viewers play what stands first in their list, one after the other, and ask for the list again until it is
gone. The model (iALS, 64 factors, 20,000 films) is folded in with every event, as in production. Beside it: how long a
replay of everything takes before a version is served, and a rollback until it is seen.
"""

import json
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPConnection
from itertools import count
from typing import Any

import numpy as np
from rich.console import Console

from bench.constant_rate import ConstantRate
from bench.own_platform import KEY, OwnPlatform, wait_until
from ingest.events import now
from training import flip
from training.algorithms.ials import IALS
from training.bundle import CURRENT, KEPT, Bundle, ItemTable, Manifest, Snapshot, bundle_key

ITEMS, FACTORS, VIEWERS, PAST = 20_000, 64, 1000, 20
RATE, EVENTS_A_REQUEST, SECONDS = 500, 5, 30.0
POLL_SECONDS = 0.003
PATIENCE_SECONDS = 10.0
HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


def measure(seconds: float = SECONDS) -> dict[str, Any]:
    """What came out, in milliseconds and events a second.

    Args:
        seconds: how long events come in.
    """
    with OwnPlatform(proxied=False) as platform:
        publish(platform, 1)
        wait_until(lambda: platform.metrics().get("marquee_version") == 1, "the version is served")
        send_the_past(platform)
        wait_until(lambda: lag(platform) == 0, "nearline has read the past")
        figures = measure_freshness(platform, seconds)
        wait_until(lambda: lag(platform) == 0, "nearline has read everything")
        return figures | measure_replay(platform) | measure_rollback(platform)


def publish(platform: OwnPlatform, version: int) -> None:
    """Write a version; serve it where none is."""
    platform.store.set(bundle_key(version), bundle().dump())
    platform.store.sadd(KEPT, version)
    platform.store.set(CURRENT, version, nx=True)


def bundle() -> Bundle:
    """Vectors drawn at random: folding in costs what it costs with learnt ones."""
    draws = np.random.default_rng(1)
    factors = (draws.standard_normal((ITEMS, FACTORS)) / FACTORS).astype(np.float32)
    popularity = draws.permutation(ITEMS).astype(np.float32)
    arrays = {"item_factors": factors, "usual": np.array(float(PAST))}
    model = IALS.from_arrays({"factors": FACTORS}, arrays)
    manifest = Manifest(
        algorithm=model.name,
        parameters=model.parameters,
        domain="bench",
        history_length=1000,
        snapshot=Snapshot(version=0, digest="", watermark={}, events=0, users=0),
        code="unknown",
        run_id="bench",
        trained_at=datetime.now(UTC),
        metrics={},
    )
    items = ItemTable(tuple(map(item, range(ITEMS))), ({"title": "A film"},) * ITEMS, popularity)
    return Bundle(manifest, items, model, model.arrays())


def send_the_past(platform: OwnPlatform) -> None:
    """Everybody opts in and has seen some films."""

    def opt_in(number: int) -> None:
        said = platform.call("ingest", "PUT", f"/v1/users/u{number}/consent", {"purposes": ["personalization"]})
        assert said[0] == 200, said

    with ThreadPoolExecutor(8) as callers:
        list(callers.map(opt_in, range(VIEWERS)))
    for start in range(0, VIEWERS, 500 // PAST):
        people = range(start, min(start + 500 // PAST, VIEWERS))
        events = [play(person, random.randrange(ITEMS)) for person in people for _ in range(PAST)]  # noqa: S311
        assert platform.call("ingest", "POST", "/v1/events", {"events": events})[0] == 202


def measure_freshness(platform: OwnPlatform, seconds: float) -> dict[str, Any]:
    """Play and ask again, while the others play too."""
    load = ConstantRate(platform.ports["INGEST"], events_of_others, RATE / EVENTS_A_REQUEST, seconds, look=accepted)
    waits: list[float | None] = []
    began = time.monotonic()
    with load, connection(platform, "INGEST") as ingest, connection(platform, "SERVING") as serving:
        for person in count():
            if time.monotonic() - began > seconds - 1:
                break
            waits.append(one_sample(ingest, serving, person % (VIEWERS // 2)))
        seen = [answer for answer in load.answers if answer.status == 202]
        reached = sum(answer.seen for answer in seen) / max(1e-9, time.monotonic() - began)
    samples = [PATIENCE_SECONDS if waited is None else waited for waited in waits]
    cuts = statistics.quantiles(samples, n=100, method="inclusive")
    return {
        "freshness_p50_ms": round(cuts[49] * 1000, 1),
        "freshness_p99_ms": round(cuts[98] * 1000, 1),
        "freshness_samples": len(samples),
        "freshness_never_seen": waits.count(None),
        "freshness_events_per_second": round(reached, 1),
    }


def one_sample(ingest: HTTPConnection, serving: HTTPConnection, person: int) -> float | None:
    """Seconds from the 202 to the first answer without the film that was played; None where there was none in time."""
    film = first_of(serving, person)[0]
    assert ask(ingest, "POST", "/v1/events", {"events": [play(person, int(film[1:]))]})[0] == 202
    accepted_at = time.monotonic()
    while time.monotonic() - accepted_at < PATIENCE_SECONDS:
        if film not in first_of(serving, person):
            return time.monotonic() - accepted_at
        time.sleep(POLL_SECONDS)
    return None


def measure_replay(platform: OwnPlatform) -> dict[str, Any]:
    """Announce a version that has seen nothing, so that nearline folds in everything once more, and serve it."""
    before = platform.metrics("nearline").get('marquee_nearline_events_total{outcome="replayed"}', 0.0)
    publish(platform, 2)
    began = time.monotonic()
    flip.let_nearline_catch_up(platform.store, 2)
    seconds = time.monotonic() - began
    flip.flip(platform.store, 2)
    replayed = platform.metrics("nearline").get('marquee_nearline_events_total{outcome="replayed"}', 0.0) - before
    return {"replayed_events": int(replayed), "replay_seconds": round(seconds, 2)}


def measure_rollback(platform: OwnPlatform) -> dict[str, Any]:
    """From the word to the first answer that names the other version."""
    with connection(platform, "SERVING") as serving:
        wait_until(lambda: version(serving) == 2, "the version is served")
        began = time.monotonic()
        flip.flip(platform.store, 1)
        wait_until(lambda: version(serving) == 1, "the one before is served")
        return {"rollback_ms": round((time.monotonic() - began) * 1000)}


# --- requests --------------------------------------------------------------------------------------------------------

_numbers = count()


def item(number: int) -> str:
    """Id of an item."""
    return f"m{number}"


def play(person: int, film: int) -> dict[str, str]:
    """An event that happens now."""
    at = now().isoformat()
    return {
        "event_id": f"e{next(_numbers)}",
        "type": "play",
        "user_id": f"u{person}",
        "item_id": item(film),
        "occurred_at": at,
    }


def events_of_others() -> bytes:
    """A request with some events of people who are not asked about."""
    people = random.choices(range(VIEWERS // 2, VIEWERS), k=EVENTS_A_REQUEST)  # noqa: S311
    events = [play(person, random.randrange(ITEMS)) for person in people]  # noqa: S311
    body = json.dumps({"events": events}).encode()
    head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    return b"POST /v1/events HTTP/1.1\r\nHost: bench\r\n%sContent-Length: %d\r\n\r\n%s" % (
        head.encode(),
        len(body),
        body,
    )


def accepted(status: int, head: bytes, body: bytes) -> int:
    """How many events an answer says were accepted."""
    del head, body
    return EVENTS_A_REQUEST if status == 202 else 0


@contextmanager
def connection(platform: OwnPlatform, port: str) -> Iterator[HTTPConnection]:
    """One that is kept alive."""
    opened = HTTPConnection("127.0.0.1", platform.ports[port], timeout=PATIENCE_SECONDS)
    try:
        yield opened
    finally:
        opened.close()


def ask(on: HTTPConnection, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    on.request(method, path, None if body is None else json.dumps(body), HEADERS)
    answer = on.getresponse()
    return answer.status, json.loads(answer.read())


def first_of(serving: HTTPConnection, person: int) -> Sequence[str]:
    """Items of the list of a person."""
    status, answer = ask(serving, "GET", f"/v1/users/u{person}/recommendations?k=20")
    assert status == 200, answer
    return [each["item_id"] for each in answer["items"]]


def version(serving: HTTPConnection) -> int:
    """Of the list of somebody."""
    return int(ask(serving, "GET", "/v1/users/u0/recommendations?k=1")[1]["version"])


def lag(platform: OwnPlatform) -> float:
    """Records that nearline has not read; 1 until it says so."""
    found = [value for name, value in platform.metrics("nearline").items() if name.startswith("marquee_log_lag")]
    return sum(found) if found else 1.0


def main() -> None:
    """Measure and print."""
    Console().print_json(data=measure())


if __name__ == "__main__":
    main()
