"""One run: events come in, faults strike, everything is healed, and what came of it is collected."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

from infra.event_log.port import EventLog, EventLogUnavailable
from infra.lake import EVENTS, LakeError
from tests.chaos.checker import Findings, check
from tests.chaos.evidence import collect
from tests.chaos.histories import wrong_histories
from tests.chaos.people import Statements, allow, register_items
from tests.chaos.platform import CLUSTER, COLLECTORS, Platform
from tests.chaos.producers import Kept, Pace, Producer, Silences, in_parallel
from tests.chaos.strikes import CLUSTER_STRIKES, STRIKES, Strike, schedule, strike_now

PRODUCERS = 6
SECONDS_A_STRIKE = 2.5
LEAD = 0.3
"""Of a fault's share of the events, so much is acknowledged before it strikes."""
WITHDRAWING = 1 / 40
BREATH_SECONDS = (0.2, 15.0)
"""Between two faults: at least, and at most until the traffic has come so far."""
FINISH_SECONDS = 180.0
LANDING_SECONDS = 300.0
SETTLE_SECONDS = 3.0
CONTROL_KINDS = ("all kill -9 as they commit", "SIGSTOP until thought dead")

Watch = Callable[[int, int, str], None]
"""Told events acknowledged, faults struck, and what happens now."""


class Size(NamedTuple):
    """How large a run is.

    Attributes:
        events: that are sent, not counting what is sent again.
        strikes: faults.
        people: whose events they are.
        seed: of everything that is drawn.
    """

    events: int
    strikes: int
    people: int
    seed: int = 1

    @property
    def rate(self) -> float:
        """Events a second: as many as are sent by the last fault if nothing holds them up."""
        return self.events / self.strikes / SECONDS_A_STRIKE


class Unfinished(Exception):
    """The platform did not come to rest after everything was healed."""


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        findings: of the checker.
        acknowledged: events.
        struck: kind of fault → how often.
        counts: of the producers.
        withdrawals: people who withdrew.
        statuses: HTTP status → answers; 0: none.
        surprises: answers that nothing accounts for.
        restarts: processes that ended by themselves.
        seconds: from the first event until everything had landed.
        wrong_histories: people whose history in Redis is not what the lake says, where nearline workers ran.
    """

    findings: Findings
    acknowledged: int
    struck: Counter[str]
    counts: Counter[str]
    withdrawals: int
    statuses: Counter[int]
    surprises: list[str]
    restarts: int
    seconds: float
    wrong_histories: list[str]

    @property
    def whole(self) -> bool:
        """Nothing was lost, doubled, or unaccounted for, and nobody was answered wrongly."""
        return self.findings.whole and not self.surprises and not self.wrong_histories


class Traffic:
    """Producers, and people who withdraw; a context manager that ends both.

    Args:
        platform: where to.
        size: of the run.
        withdrawing: share of the people who withdraw.
        producers: how many send at the same time.
        rate: events a second; None: as the size says.
    """

    def __init__(
        self,
        platform: Platform,
        size: Size,
        withdrawing: float = WITHDRAWING,
        producers: int = PRODUCERS,
        rate: float | None = None,
    ) -> None:
        self.pace, silences = Pace(size.events, rate or size.rate), Silences()
        people = [f"u{number}" for number in range(size.people)]
        ports = [platform.ways[name].port for name in COLLECTORS]
        register_items(ports[0])
        in_parallel(lambda person: allow(ports[0], person, threading.Event()), people)
        self.producers = [
            Producer(people[number::producers], ports, self.pace, silences, size.seed * 1000 + number)
            for number in range(producers)
        ]
        self._log = platform.open_log()
        some = people[:: int(1 / withdrawing)] if withdrawing else []
        self.statements = Statements(some, ports, self.pace, silences, self._log, size.seed)

    def __enter__(self) -> "Traffic":
        for each in (*self.producers, self.statements):
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.pace.end()
        self.statements.end()
        for producer in self.producers:
            producer.give_up()
        for each in (*self.producers, self.statements):
            each.join(30)
        self._log.close()

    def finish(self) -> None:
        """Wait until everything is sent and answered.

        Raises:
            Unfinished: it is not, long after everything was healed.
        """
        self.pace.allow(self.pace.events)
        deadline = time.monotonic() + FINISH_SECONDS
        for producer in self.producers:
            producer.join(max(0.0, deadline - time.monotonic()))
            if producer.is_alive():
                raise Unfinished("some events were not answered, long after everything was healed")
        self.statements.end()
        self.statements.join(60)

    @property
    def kept(self) -> list[Kept]:
        """What the producers know."""
        return [producer.kept for producer in self.producers]


def run(platform: Platform, size: Size, watch: Watch = lambda *_: None) -> Outcome:
    """Send, strike, heal, compare.

    Raises:
        Unfinished: the platform does not come to rest.
    """
    kinds = CLUSTER_STRIKES if platform.brokers == CLUSTER else STRIKES
    planned = schedule(size.strikes, size.seed, kinds)
    with Traffic(platform, size) as traffic:
        began = time.monotonic()
        _strike_all(platform, planned, traffic.pace, watch)
        watch(traffic.pace.acknowledged, len(planned), "the rest is sent")
        platform.wait_until_all_up()
        traffic.finish()
        watch(traffic.pace.acknowledged, len(planned), "landing")
        wait_until_landed(platform)
        seconds = time.monotonic() - began
        watch(traffic.pace.acknowledged, len(planned), "comparing")
        return _outcome(platform, planned, traffic, seconds)


def run_control(platform: Platform, size: Size, watch: Watch = lambda *_: None) -> int:
    """The same story, told to landers without the fence: how many rows of the lake are there twice.

    Only landers are struck, in the two ways that a consumer that trusts its group's offsets cannot stand.

    Raises:
        Unfinished: the platform does not come to rest.
    """
    planned = [
        Strike("lander", CONTROL_KINDS[number % len(CONTROL_KINDS)], 0.2, number / size.strikes)
        for number in range(size.strikes)
    ]
    with Traffic(platform, size, withdrawing=0) as traffic:
        _strike_all(platform, planned, traffic.pace, watch)
        platform.wait_until_all_up()
        traffic.finish()
        watch(traffic.pace.acknowledged, len(planned), "landing")
        rows = _rows_once_complete(platform, traffic.pace.acknowledged)
    return rows.height - rows.unique().height


def _rows_once_complete(platform: Platform, events: int) -> pl.DataFrame:
    """Places of the rows of the lake, once it has so many different events and no more come."""
    deadline, before = time.monotonic() + LANDING_SECONDS, -1
    while time.monotonic() < deadline:
        with suppress(LakeError):
            rows = platform.lake.snapshot(EVENTS, ["partition", "offset", "event_id"]).rows
            if rows["event_id"].n_unique() >= events and rows.height == before:
                return rows.select("partition", "offset")
            before = rows.height
        time.sleep(SETTLE_SECONDS)
    raise Unfinished("the lake does not get all events, long after everything was healed")


def _outcome(platform: Platform, planned: Sequence[Strike], traffic: Traffic, seconds: float) -> Outcome:
    evidence = collect(platform, traffic.kept)
    return Outcome(
        findings=check(evidence),
        acknowledged=evidence.acknowledged.len(),
        struck=Counter(strike.name for strike in planned),
        counts=sum((kept.counts for kept in traffic.kept), Counter[str]()),
        withdrawals=len(traffic.statements.withdrawn),
        statuses=Counter(answer.status for kept in traffic.kept for answer in kept.answers),
        surprises=[surprise for kept in traffic.kept for surprise in kept.surprises],
        restarts=platform.restarts,
        seconds=seconds,
        wrong_histories=wrong_histories(platform) if platform.nearlines else [],
    )


def _strike_all(platform: Platform, planned: Sequence[Strike], pace: Pace, watch: Watch) -> None:
    """Faults and events in step: so many faults, so many events."""
    share = pace.events / max(1, len(planned))
    for number, strike in enumerate(planned):
        pace.allow(int((number + 2) * share))
        since = time.monotonic()
        shortest, longest = (since + seconds for seconds in BREATH_SECONDS)
        while time.monotonic() < shortest or (
            pace.acknowledged < (number + LEAD) * share and time.monotonic() < longest
        ):
            platform.tend()
            time.sleep(0.05)
        watch(pace.acknowledged, number, strike.name)
        strike_now(platform, strike)


def wait_until_landed(platform: Platform) -> None:
    """Wait until the lake has all that is in the log.

    Raises:
        Unfinished: it never does.
    """
    log: EventLog = platform.open_log()
    try:
        deadline, unlanded = time.monotonic() + LANDING_SECONDS, -1
        while unlanded:
            if time.monotonic() > deadline:
                raise Unfinished(f"{unlanded} records have not landed, long after everything was healed")
            platform.tend()
            time.sleep(0.2)
            try:
                unlanded = platform.unlanded(log)
            except (EventLogUnavailable, LakeError):
                unlanded = -1
    finally:
        log.close()
