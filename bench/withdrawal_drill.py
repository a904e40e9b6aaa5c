"""The drill in which people withdraw while all play and ask: when their lists are gone, and whether they stay so."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import uuid4

from bench.editions import LENGTH, LIFETIME_SECONDS, edition, interactions, put, user
from bench.observing import Phase, Report, between, failed, viewers
from bench.own_platform import SECRET, OwnPlatform, wait_until
from infra.online_store import OnlineStore
from ingest.events import ConsentProjection
from training.bundle import history_key, list_key, live_key
from training.publish import Publisher

LONGEST_SECONDS = 120.0
LOOK_SECONDS = 0.002
VERSION, NEXT_VERSION = 1, 2


class Size(NamedTuple):
    """How large the drill is.

    Attributes:
        users: people with a list, a history and a live list.
        withdraw: so many of them withdraw, one after the other.
        rate: requests for lists a second meanwhile; events come ten times less often.
    """

    users: int = 300
    withdraw: int = 100
    rate: float = 200


def withdrawal_drill(size: Size = Size()) -> Report:  # noqa: B008
    """Let people withdraw, and publish a version for everybody afterwards."""
    report = Report("withdrawal", f"{size.withdraw} of {size.users} people withdraw, then a version is published")
    with OwnPlatform(proxied=False, settings={"TRAIN_EVERY_SECONDS": "1000000000"}) as platform:
        names = [user(number) for number in range(size.users)]
        _begin(platform, names)
        with viewers(platform, size.users, size.rate, LONGEST_SECONDS) as load, _playing(platform, names, size.rate):
            begin = time.monotonic()
            gone = [_withdraw(platform, name) for name in names[: size.withdraw]]
            ended = time.monotonic()
            _publish(platform, size.users)
            found = sum(bool(_left(platform.store, name)) for name in names[: size.withdraw])
    report.phases = [Phase("withdrawals", between(load.answers, begin, ended))]
    gone.sort()
    report.figures = {
        "failed": failed(load.answers),
        "gone_p50_ms": round(gone[len(gone) // 2] * 1000, 1),
        "gone_worst_ms": round(gone[-1] * 1000, 1),
        "brought_back": found,
    }
    return report


def _begin(platform: OwnPlatform, names: Sequence[str]) -> None:
    """Everybody allows it, and has a list, a history and a live list."""
    platform.start("train", "--schedule")
    with ThreadPoolExecutor(8) as callers:
        said = list(callers.map(lambda name: platform.call("ingest", "PUT", _consent(name), _ALLOWED)[0], names))
    if set(said) != {200}:
        raise RuntimeError(f"opting in was answered {sorted(set(said))}")
    put(platform.store, VERSION, names)
    wait_until(lambda: platform.call("serve", "GET", "/readyz")[1]["version"] == VERSION, "version 1 is served")
    _play(platform, names)
    wait_until(lambda: all(len(_left(platform.store, name)) == 3 for name in names), "everybody has a live list")


_ALLOWED = {"purposes": ["personalization"]}


def _consent(name: str) -> str:
    return f"/v1/users/{name}/consent"


def _withdraw(platform: OwnPlatform, name: str) -> float:
    """Seconds from the answer until nothing of the person is served any more."""
    status, _ = platform.call("ingest", "DELETE", _consent(name))
    answered = time.monotonic()
    if status != 200:
        raise RuntimeError(f"withdrawing was answered {status}")
    while _left(platform.store, name) and time.monotonic() < answered + LONGEST_SECONDS:
        time.sleep(LOOK_SECONDS)
    return time.monotonic() - answered


def _left(store: OnlineStore, name: str) -> list[str]:
    """Keys of the person's list, live list, of either version, and history that are there."""
    versions = (VERSION, NEXT_VERSION)
    keys = [history_key(name), *(key(version, name) for version in versions for key in (list_key, live_key))]
    return [key for key, value in zip(keys, store.mget(keys), strict=True) if value is not None]


def _play(platform: OwnPlatform, names: Sequence[str]) -> None:
    acts = [
        {"event_id": uuid4().hex, "type": "play", "user_id": name, "item_id": "m0001", "occurred_at": _now()}
        for name in names
    ]
    for start in range(0, len(acts), 500):
        platform.call("ingest", "POST", "/v1/events", {"events": acts[start : start + 500]})


def _now() -> str:
    return datetime.now(UTC).isoformat()


@contextmanager
def _playing(platform: OwnPlatform, names: Sequence[str], rate: float) -> Iterator[None]:
    """Everybody goes on playing, those who withdraw too, so that what is refused or late could bring a list back."""
    over = threading.Event()

    def play() -> None:
        number = 0
        while not over.wait(10 / rate):
            number += 1
            _play(platform, [names[number * 7919 % len(names)]])

    thread = threading.Thread(target=play)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _publish(platform: OwnPlatform, users: int) -> None:
    """The next version for everybody, those who withdrew among them: a snapshot of before would hold them."""
    held = interactions(NEXT_VERSION, [user(number) for number in range(users)])
    publisher = Publisher(platform.store, ConsentProjection(platform.store, SECRET), LENGTH, LIFETIME_SECONDS)
    publisher.publish(NEXT_VERSION, edition(NEXT_VERSION), held)
