"""Drills in which nothing is broken and there is much to do: a publish for everybody, and more requests than can be."""

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from uuid import uuid4

from bench.constant_rate import Answer
from bench.editions import grant_everybody, put, user
from bench.observing import Phase, Report, between, failed, p99_ms, recovered, viewers
from bench.own_platform import ROOT, SECRET, OwnPlatform, wait_until
from bench.serving_servers import Throughput, wrk
from infra.event_log import open_event_log
from infra.process import allow_open_files
from ingest.events import AcceptedEvent, ConsentProjection, encode, now
from training.publish import Publisher

LONGEST_SECONDS = 600.0
SETTLED_SECONDS = 2.0
EVENTS_A_SECOND = 20
VIEWERS_A_SECOND = 20
LENGTH = 100
LIFETIME_SECONDS = 86_400


class PublishSize(NamedTuple):
    """How large the publish is: people with a list, and requests for lists a second meanwhile."""

    users: int = 100_000
    rate: float = 1000


class OverloadSize(NamedTuple):
    """How much there is to do.

    Attributes:
        users: people with a list.
        usual: callers who ask again as soon as they are answered, enough to keep a worker busy.
        waiting: so many may wait; the crowd is five times as many, and fits into the backlog that Linux gives a socket.
        seconds: of one measurement.
        rounds: how often both are measured, by turns.
    """

    users: int = 5000
    usual: int = 64
    waiting: int = 256
    seconds: int = 5
    rounds: int = 5

    @property
    def crowd(self) -> int:
        """Callers under overload."""
        return 5 * self.waiting


# --- a publish -------------------------------------------------------------------------------------------------------


def publish_drill(size: PublishSize = PublishSize()) -> Report:  # noqa: B008
    """Publish version 2 for everybody while viewers ask, then go back to version 1."""
    report = Report("publish", f"a publish of {size.users:,} lists at {size.rate:g} requests/s, then a rollback")
    with OwnPlatform(("nearline", "serve"), proxied=False) as platform:
        names = [user(number) for number in range(size.users)]
        grant_everybody(platform.store, names, SECRET)
        put(platform.store, 1, names)
        wait_for_version(platform, 1)
        with viewers(platform, size.users, size.rate, LONGEST_SECONDS) as load, _acting(platform, size.users):
            begin = time.monotonic()
            time.sleep(SETTLED_SECONDS)
            started = time.monotonic()
            published = publish_for_everybody(platform, 2, size.users)
            wait_for_version(platform, 2)
            ended = time.monotonic()
            time.sleep(SETTLED_SECONDS)
            back = time.monotonic()
            roll_back(platform, 1)
            time.sleep(SETTLED_SECONDS)
    times = {"before": (begin, started), "publish": (started, ended), "version 2": (ended, back)}
    times["rolled back"] = (back, time.monotonic())
    report.phases = [Phase(name, between(load.answers, *span)) for name, span in times.items()]
    of_two = [
        answer.at + answer.seconds
        for answer in load.answers
        if answer.at >= back and answer.seen and answer.seen.version == 2
    ]
    report.figures = {
        "failed": failed(load.answers),
        "mixed": sum(1 for answer in load.answers if answer.seen and answer.seen.mixed),
        "publish_p99_ms": p99_ms(between(load.answers, started, ended)),
        "rollback_seconds": round(max(of_two, default=back) - back, 3),
        **published,
    }
    versions = sorted({answer.seen.version for answer in load.answers if answer.seen})
    report.said = [f"{published['lists']:,} lists published in {published['seconds']} s", f"versions seen: {versions}"]
    return report


def publish_for_everybody(platform: OwnPlatform, version: int, users: int) -> dict[str, float]:
    """Publish with training's own publisher, in a process of its own."""
    command = [sys.executable, "-m", "bench.editions", platform.redis_url, str(version), str(users)]
    done = subprocess.run(command, input=SECRET, cwd=ROOT, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def roll_back(platform: OwnPlatform, version: int) -> None:
    """Serve a version that is still whole in the store."""
    publisher = Publisher(platform.store, ConsentProjection(platform.store, SECRET), LENGTH, LIFETIME_SECONDS)
    if not publisher.serve_again(version):
        raise RuntimeError(f"version {version} is not whole any more")


def wait_for_version(platform: OwnPlatform, version: int) -> None:
    """Wait until the serving worker has it."""
    wait_until(lambda: platform.ready_version(platform.ports["SERVING"]) == version, f"version {version} is served")


@contextmanager
def _acting(platform: OwnPlatform, users: int) -> Iterator[None]:
    """Now and then somebody plays something, so that nearline has live lists to write."""
    over, log = threading.Event(), open_event_log(platform.redis_url, "marquee.events", 4)

    def act() -> None:
        number = 0
        while not over.wait(1 / EVENTS_A_SECOND):
            number += 1
            who = number * 7919 % users
            event = AcceptedEvent(
                event_id=uuid4().hex,
                type="play",
                user_id=user(who),
                item_id=f"m{number % 2000:04}",
                occurred_at=now(),
                accepted_at=now(),
                receipt=who + 1,
            )
            log.append([(event.user_id.encode(), encode(event))])

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        log.close()


# --- more than can be ------------------------------------------------------------------------------------------------


def overload_drill(size: OverloadSize = OverloadSize()) -> Report:  # noqa: B008
    """Let a crowd ask without a pause, and count what the worker still answers, and what viewers among them see.

    On one machine nobody can offer five times what a server can do: the client would need more cores than the server.
    So the load is five times the callers that may wait, each of whom asks again at once, also when turned away.
    """
    report = Report(
        "overload", f"{size.crowd:,} callers who ask without a pause, {size.usual} are enough for one worker"
    )
    allow_open_files()
    waiting = {"SERVING_MOST_WAITING": str(size.waiting)}
    with OwnPlatform(("serve",), proxied=False, settings=waiting) as platform:
        put(platform.store, 1, [user(number) for number in range(size.users)])
        wait_for_version(platform, 1)
        with viewers(platform, size.users, VIEWERS_A_SECOND, LONGEST_SECONDS) as load:
            runs = [_round(platform, size) for _ in range(size.rounds)]
            ended = time.monotonic()
            report.figures["recovery_seconds"] = recovered(load, ended)
    crowded = [answer for _, _, begin, end in runs for answer in between(load.answers, begin, end)]
    report.phases = [Phase("overload", crowded), Phase("after", between(load.answers, ended, float("inf")))]
    report.figures |= {
        "goodput_ratio": round(statistics.median(crowd.rate / usual.rate for usual, crowd, *_ in runs), 3),
        "wrong": sum(1 for answer in load.answers if _is_wrong(answer)),
        "usual_per_second": [round(usual.rate) for usual, *_ in runs],
        "goodput_per_second": [round(crowd.rate) for _, crowd, *_ in runs],
        "refused_per_second": [round(crowd.refused) for _, crowd, *_ in runs],
    }
    names = ("usual_per_second", "goodput_per_second", "refused_per_second")
    report.said = [f"{name.replace('_', ' ')}: {report.figures[name]}" for name in names]
    return report


def _round(platform: OwnPlatform, size: OverloadSize) -> tuple[Throughput, Throughput, float, float]:
    """The usual load, then the crowd, and when the crowd was there."""
    port, folder = platform.ports["SERVING"], platform.folder
    usual = wrk(port, folder, size.users, connections=size.usual, seconds=size.seconds)
    begin = time.monotonic()
    crowd = wrk(port, folder, size.users, connections=size.crowd, seconds=size.seconds)
    return usual, crowd, begin, time.monotonic()


def _is_wrong(answer: Answer) -> bool:
    """Neither a list nor a 503 that says when to come again."""
    if answer.status == 200:
        return False
    return answer.status != 503 or not answer.seen.retry_after
