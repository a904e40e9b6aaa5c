"""The log is stopped for a while under load: what clients are told meanwhile, what it costs in memory, what follows.

The log's process is stopped with SIGSTOP, so that it takes connections and answers nothing: worse than one that is
gone.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from bench.faults import paused
from tests.chaos.checker import check
from tests.chaos.evidence import collect
from tests.chaos.platform import COLLECTORS, Platform
from tests.chaos.producers import NOT_ASKED, Answer
from tests.chaos.run import Size, Traffic, Unfinished, Watch, wait_until_landed

RATE = 1000.0
PRODUCERS = 24
WARM_SECONDS = 4.0
RECOVERY_SECONDS = 60.0
SLOWEST_503_SECONDS = 2.0
MOST_GROWTH_MB = 128.0
"""What batches that wait, and clients of the log that are given up, may take in all."""
MOST_LATE_GROWTH_MB = 16.0
"""In the second half of the outage: what goes on growing then has no end."""


@dataclass(frozen=True)
class Outage:
    """What clients and collectors saw of it.

    Attributes:
        seconds: that the log was stopped.
        answers: status → answers to what was sent meanwhile; 0: none.
        slowest_503_seconds: of these.
        false_202: events that were called accepted and are not in the log, or were lost later.
        duplicated: rows or acts too many at the end.
        rss_before_mb: of both collectors together, under load.
        rss_most_mb: the most of it while the log was stopped.
        rss_late_growth_mb: by how much it rose in the second half of that time.
        recovery_seconds: from the log going on to the first accepted batch.
        events_acknowledged: in all.
    """

    seconds: float
    answers: dict[int, int]
    slowest_503_seconds: float
    false_202: int
    duplicated: int
    rss_before_mb: float
    rss_most_mb: float
    rss_late_growth_mb: float
    recovery_seconds: float
    events_acknowledged: int

    @property
    def broken(self) -> list[str]:
        """What of the promise does not hold."""
        answered = self.answers.keys() <= {503} and self.answers
        return [
            what
            for what, holds in {
                "something else than 503 was answered, or nothing": answered,
                "a 503 took too long": self.slowest_503_seconds <= SLOWEST_503_SECONDS,
                "something was called accepted and was not there": not self.false_202,
                "something is there twice": not self.duplicated,
                "memory grew": self.rss_most_mb - self.rss_before_mb <= MOST_GROWTH_MB,
                "memory went on growing": self.rss_late_growth_mb <= MOST_LATE_GROWTH_MB,
            }.items()
            if not holds
        ]

    def figures(self) -> dict[str, Any]:
        """For the result file."""
        return {**asdict(self), "broken": self.broken}


def run_outage(platform: Platform, seconds: float, watch: Watch = lambda *_: None, seed: int = 1) -> Outage:
    """Stop the log for so long while events come in.

    Raises:
        Unfinished: the platform does not recover by itself.
    """
    size = Size(int(RATE * (seconds + 2 * WARM_SECONDS)), 1, 240, seed)
    with Traffic(platform, size, 0, PRODUCERS, RATE) as traffic:
        traffic.pace.allow(size.events)
        time.sleep(WARM_SECONDS)
        watch(traffic.pace.acknowledged, 0, "the log is stopped")
        with _rss(platform) as rss, paused(platform.pid(platform.log), longest=seconds + 30):
            stopped = time.monotonic()
            time.sleep(seconds)
            ended = time.monotonic()
        watch(traffic.pace.acknowledged, 1, "the log goes on")
        recovered = _first_accepted(traffic, ended)
        platform.wait_until_all_up()
        traffic.finish()
        wait_until_landed(platform)
        evidence = collect(platform, traffic.kept)
    findings = check(evidence)
    meanwhile = [
        a for a in _answers(traffic) if stopped < a.began and a.began + a.seconds < ended and a.status != NOT_ASKED
    ]
    return Outage(
        seconds=seconds,
        answers=dict(Counter(answer.status for answer in meanwhile)),
        slowest_503_seconds=round(max((a.seconds for a in meanwhile if a.status == 503), default=0.0), 3),
        false_202=findings.lost,
        duplicated=findings.duplicated,
        rss_before_mb=round(rss[0], 1),
        rss_most_mb=round(max(rss), 1),
        rss_late_growth_mb=round(max(rss) - max(rss[: len(rss) // 2]), 1),
        recovery_seconds=round(recovered - ended, 2),
        events_acknowledged=evidence.acknowledged.len(),
    )


def _answers(traffic: Traffic) -> Iterator[Answer]:
    return (answer for kept in traffic.kept for answer in list(kept.answers))


def _first_accepted(traffic: Traffic, since: float) -> float:
    """When the first batch was accepted that was sent after `since`."""
    while time.monotonic() < since + RECOVERY_SECONDS:
        times = [a.began + a.seconds for a in _answers(traffic) if a.status == 202 and a.began > since]
        if times:
            return min(times)
        time.sleep(0.05)
    raise Unfinished("no batch was accepted, long after the log went on")


@contextmanager
def _rss(platform: Platform) -> Iterator[Sequence[float]]:
    """Memory of the collectors together, in MB, five times a second."""
    processes = [psutil.Process(platform.pid(name)) for name in COLLECTORS]
    over, seen = threading.Event(), [sum(each.memory_info().rss for each in processes) / 1e6]

    def look() -> None:
        while not over.wait(0.2):
            seen.append(sum(each.memory_info().rss for each in processes) / 1e6)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
