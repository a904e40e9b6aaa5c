"""Drills in which something that serving leans on is down, slow, full or wrong, while viewers keep asking."""

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import uuid4

from bench.constant_rate import ConstantRate
from bench.editions import put, user
from bench.injections import FAULTS, LONGEST_SECONDS, FaultDrill
from bench.observing import Phase, Report, between, failed, p99_ms, recovered, viewers
from bench.own_platform import OwnPlatform, wait_until

PROBE_SECONDS = 0.2


class Size(NamedTuple):
    """How large a drill is.

    Attributes:
        users: people with a list.
        rate: requests for lists a second.
        before: seconds before the fault.
        during: seconds that it lasts.
    """

    users: int = 500
    rate: float = 200
    before: float = 2
    during: float = 8


@contextmanager
def platform_of(size: Size) -> Iterator[OwnPlatform]:
    """A platform that serves version 1 to people who allow it."""
    with OwnPlatform() as platform:
        put(platform.store, 1, [user(number) for number in range(size.users)])
        platform.call("ingest", "PUT", f"/v1/users/{user(0)}/consent", {"purposes": ["personalization"]})
        wait_until(lambda: platform.call("serve", "GET", "/readyz")[1]["version"] == 1, "version 1 is served")
        play(platform, "m0001")
        _until_fresh(platform, time.monotonic())
        yield platform


def drill(name: str, platform: OwnPlatform, size: Size) -> Report:
    """Let viewers ask before, during and after a fault, and note all that they saw."""
    fault, report = FAULTS[name], Report(name, FAULTS[name].injected)
    printed, counted = len(platform.printed(fault.stage)), platform.metrics(fault.stage)
    with viewers(platform, size.users, size.rate, LONGEST_SECONDS) as load:
        begin = time.monotonic()
        time.sleep(size.before)
        with _Events(platform) as events:
            injected = time.monotonic()
            with fault.inject(platform):
                unready = _probe(platform, injected + size.during)
                ended = time.monotonic()
        seconds = max(recovered(load, ended), _until_fresh(platform, ended))
    _note(report, load, (begin, injected, ended))
    report.figures |= {
        "unready": unready,
        "events_lost": sum(count for status, count in events.statuses.items() if status not in (202, 503)),
        "recovery_seconds": seconds,
    }
    words = ", ".join(f"{count} of {status or 'no answer'}" for status, count in sorted(events.statuses.items()))
    report.said.append(f"events meanwhile: {words or 'none'}")
    _hear(report, fault, counted, platform, printed)
    return report


def _note(report: Report, load: ConstantRate, times: tuple[float, float, float]) -> None:
    begin, injected, ended = times
    during = between(load.answers, injected, ended)
    report.phases = [
        Phase("before", between(load.answers, begin, injected)),
        Phase("during", during),
        Phase("after", between(load.answers, ended, float("inf"))),
    ]
    report.figures |= {"failed": failed(load.answers), "fault_p99_ms": p99_ms(during)}


def _probe(platform: OwnPlatform, until: float) -> int:
    """Ask for readiness until then; how many probes were not answered with 200."""
    unready = 0
    while time.monotonic() < until:
        unready += platform.status("serve", "/readyz", timeout=1.0) != 200
        time.sleep(PROBE_SECONDS)
    return unready


def _hear(report: Report, fault: FaultDrill, before: dict[str, float], platform: OwnPlatform, printed: int) -> None:
    """Note what metric and log say of it."""
    now = platform.metrics(fault.stage)
    rose = {name: now[name] - before.get(name, 0) for name in now if re.match(fault.metric or "$^", name)}
    rose = {name: value for name, value in rose.items() if value > 0}
    lines = [
        line for line in platform.printed(fault.stage)[printed:].splitlines() if re.search(fault.log or "$^", line)
    ]
    report.said += [f"metric {name} rose by {value:g}" for name, value in rose.items()]
    report.said += [f"log: {lines[0].strip()}"] if lines else []
    report.figures["untold"] = int(bool(fault.metric) and not rose) + int(bool(fault.log) and not lines)


class _Events:
    """Somebody who sends an event now and then, and counts what is answered."""

    def __init__(self, platform: OwnPlatform) -> None:
        self.statuses: Counter[int] = Counter()
        self._platform = platform
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> "_Events":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _send(self) -> None:
        while not self._over.wait(0.3):
            self.statuses[play(self._platform, "m0500")] += 1


def play(platform: OwnPlatform, item_id: str) -> int:
    """The first viewer plays something; the status that is answered."""
    event = {"event_id": uuid4().hex, "type": "play", "user_id": user(0), "item_id": item_id}
    event["occurred_at"] = datetime.now(UTC).isoformat()
    return platform.call("ingest", "POST", "/v1/events", {"events": [event]})[0]


def _until_fresh(platform: OwnPlatform, since: float) -> float:
    """Seconds from `since` until an event is taken and has changed the list."""
    path, played = f"/v1/users/{user(0)}/recommendations?k=20", ""

    def changed() -> bool:
        nonlocal played
        status, answer = platform.call("serve", "GET", path)
        if status != 200:
            return False
        if not played:
            first = answer["items"][0]["item_id"]
            played = first if play(platform, first) == 202 else ""
            return False
        return answer["tier"] == "live" and all(item["item_id"] != played for item in answer["items"])

    try:
        wait_until(changed, "the list knows of the event", LONGEST_SECONDS / 4)
    except TimeoutError:
        return LONGEST_SECONDS / 4
    return round(time.monotonic() - since, 2)
