"""The faults: each strikes one part, lasts for a while, and is healed by whoever struck.

Collector, log, lander and lake are struck in turn; which of its faults a part gets, for how long and how hard is drawn
from the seed, so that a schedule can be repeated.
"""

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

from bench.faults import Fault, paused
from infra.lake import LakeError
from tests.chaos.platform import COLLECTORS, LANDERS, Platform

LEASE_SECONDS = 7.5
"""Longer than a group waits for a member that says nothing, on either log."""
COMMIT_PATIENCE_SECONDS = 4.0

_numbers = count()


class Strike(NamedTuple):
    """A fault that is to come.

    Attributes:
        target: which part.
        kind: what happens to it.
        seconds: how long it lasts.
        luck: in [0, 1): chooses among parts that are alike, and how slow is slow.
    """

    target: str
    kind: str
    seconds: float
    luck: float

    @property
    def name(self) -> str:
        """As the result counts it."""
        return f"{self.target}: {self.kind}"

    def one_of(self, names: Sequence[str]) -> str:
        """The part that is struck."""
        return names[int(self.luck * len(names))]


Struck = Callable[[Platform, Strike], AbstractContextManager[object]]


@contextmanager
def killed(platform: Platform, name: str) -> Iterator[None]:
    """Kill -9, and start again afterwards."""
    platform.kill(name)
    try:
        yield
    finally:
        platform.start(name)


@contextmanager
def left(platform: Platform, name: str) -> Iterator[None]:
    """SIGTERM, and start again afterwards."""
    platform.end(name)
    try:
        yield
    finally:
        platform.start(name)


def collector_killed(platform: Platform, strike: Strike) -> AbstractContextManager[None]:
    """One of them, with whatever it has under way."""
    return killed(platform, strike.one_of(COLLECTORS))


def collector_paused(platform: Platform, strike: Strike) -> AbstractContextManager[None]:
    """SIGSTOP, SIGCONT."""
    return paused(platform.pid(strike.one_of(COLLECTORS)))


def collector_cut(platform: Platform, strike: Strike) -> AbstractContextManager[None]:
    """Clients lose their connections, and the answers on them."""
    return platform.ways[strike.one_of(COLLECTORS)].fault(Fault.CUT)


def collector_slow(platform: Platform, strike: Strike) -> AbstractContextManager[None]:
    """Everything between clients and collector comes late."""
    return platform.ways[strike.one_of(COLLECTORS)].fault(Fault.SLOW, delay=0.05 + 0.4 * strike.luck)


def log_killed(platform: Platform, _: Strike) -> AbstractContextManager[None]:
    """Kill -9 of Redis or of the broker."""
    return killed(platform, platform.struck)


def log_paused(platform: Platform, _: Strike) -> AbstractContextManager[None]:
    """SIGSTOP, SIGCONT of Redis or of the broker."""
    return paused(platform.pid(platform.struck))


def log_unreachable(fault: Fault) -> Struck:
    """The way to the log is at fault: where there are several, the collectors' or the landers' alone."""

    def strike_it(platform: Platform, strike: Strike) -> AbstractContextManager[None]:
        ways = ["kafka"] if platform.log == "kafka" else ["redis-collectors", "redis-landers"]
        delay = 0.02 + 0.2 * strike.luck if fault is Fault.SLOW else 0.0
        return platform.ways[strike.one_of(ways)].fault(fault, delay=delay)

    return strike_it


def projection_killed(platform: Platform, _: Strike) -> AbstractContextManager[None]:
    """Kill -9 of the Redis that knows who allows what; where it is the log too, that is `log: killed`."""
    return killed(platform, "redis")


def lander_killed(platform: Platform, strike: Strike) -> AbstractContextManager[None]:
    """One of them, the zombie included."""
    return killed(platform, strike.one_of(platform.landers))


@contextmanager
def landers_killed(platform: Platform, _: Strike) -> Iterator[None]:
    """All of them at once."""
    with ExitStack() as stack:
        for name in platform.landers:
            stack.enter_context(killed(platform, name))
        yield


def landers_killed_at(pattern: str) -> Struck:
    """All of them, the moment that a file of this kind is written in the lake: in the middle of a commit."""

    @contextmanager
    def strike_it(platform: Platform, _: Strike) -> Iterator[None]:
        folder = platform.folder / "lake.real/events"
        before, deadline = _files(folder, pattern), time.monotonic() + COMMIT_PATIENCE_SECONDS
        while time.monotonic() < deadline and _files(folder, pattern) <= before:
            time.sleep(0.0005)
        with landers_killed(platform, _):
            yield

    return strike_it


@contextmanager
def landers_killed_one_after_another(platform: Platform, _: Strike) -> Iterator[None]:
    """Each is killed in turn, and started again before the next one dies."""
    for name in platform.landers:
        with killed(platform, name):
            time.sleep(0.2)
    yield


def lander_paused(platform: Platform, strike: Strike) -> AbstractContextManager[None]:
    """SIGSTOP, SIGCONT: shorter than the group notices."""
    return paused(platform.pid(strike.one_of(platform.landers)))


@contextmanager
def lander_thought_dead(platform: Platform, strike: Strike) -> Iterator[None]:
    """A lander sleeps until the group has given its partitions away, and wakes with a batch in hand."""
    with paused(platform.pid(strike.one_of(LANDERS))):
        time.sleep(max(0.0, LEASE_SECONDS - strike.seconds))
        yield


@contextmanager
def lake_is_a_file(platform: Platform, _: Strike) -> Iterator[None]:
    """Where the lake's folder was is a file, so that nothing in it can be read or written."""
    other = platform.folder / f"no-lake-{next(_numbers)}"
    other.touch()
    with _instead(platform, other):
        yield


@contextmanager
def lake_elsewhere(platform: Platform, _: Strike) -> Iterator[None]:
    """Where the lake was is an empty folder, as when a disk is not mounted; then the lake is there again."""
    other = platform.folder / f"other-lake-{next(_numbers)}"
    other.mkdir()
    with _instead(platform, other):
        yield


@contextmanager
def lake_purged(platform: Platform, strike: Strike) -> Iterator[None]:
    """Somebody else compacts and purges the lake, time and again."""
    until = time.monotonic() + strike.seconds
    while time.monotonic() < until:
        with suppress(LakeError):
            platform.lake.compact()
        with suppress(LakeError):
            platform.lake.purge()
    yield


def broker_killed(platform: Platform, strike: Strike) -> AbstractContextManager[None]:
    """One of the brokers, and all that it leads."""
    return killed(platform, strike.one_of(platform.brokers))


def broker_paused(platform: Platform, strike: Strike) -> AbstractContextManager[None]:
    """SIGSTOP, SIGCONT: the others wait for it, or go on without."""
    return paused(platform.pid(strike.one_of(platform.brokers)))


def lander_leaves(platform: Platform, strike: Strike) -> AbstractContextManager[None]:
    """One ends in order, and the other takes its partitions over; then it comes back."""
    return left(platform, strike.one_of(platform.landers))


def nearline_killed(platform: Platform, strike: Strike) -> AbstractContextManager[None]:
    """One of them."""
    return killed(platform, strike.one_of(platform.nearlines))


def nearline_leaves(platform: Platform, strike: Strike) -> AbstractContextManager[None]:
    """As `lander_leaves`."""
    return left(platform, strike.one_of(platform.nearlines))


@contextmanager
def nearline_thought_dead(platform: Platform, strike: Strike) -> Iterator[None]:
    """As `lander_thought_dead`."""
    with paused(platform.pid(strike.one_of(platform.nearlines))):
        time.sleep(max(0.0, LEASE_SECONDS - strike.seconds))
        yield


Kinds = Mapping[str, Mapping[str, tuple[Struck, float, float, float]]]

STRIKES: Kinds = {
    "collector": {
        "kill -9": (collector_killed, 3, 0.1, 1.0),
        "SIGSTOP": (collector_paused, 3, 0.3, 3.0),
        "connections cut": (collector_cut, 3, 0.1, 1.0),
        "connections slow": (collector_slow, 2, 0.5, 2.0),
    },
    "log": {
        "kill -9": (log_killed, 2, 0.1, 1.0),
        "SIGSTOP": (log_paused, 3, 0.3, 3.0),
        "connections cut": (log_unreachable(Fault.CUT), 3, 0.2, 2.0),
        "connections hang": (log_unreachable(Fault.HANG), 2, 0.3, 3.0),
        "connections slow": (log_unreachable(Fault.SLOW), 2, 0.5, 2.0),
        "kill -9 of the projection": (projection_killed, 1, 0.1, 1.0),
    },
    "lander": {
        "kill -9": (lander_killed, 3, 0.1, 1.0),
        "all kill -9": (landers_killed, 1, 0.1, 0.5),
        "all kill -9 with a file written and not committed": (landers_killed_at("*/*.parquet"), 2, 0.1, 0.5),
        "all kill -9 as they commit": (landers_killed_at("_delta_log/*.json"), 2, 0.1, 0.5),
        "kill -9 one after another": (landers_killed_one_after_another, 1, 0.1, 0.2),
        "SIGSTOP": (lander_paused, 3, 0.3, 3.0),
        "SIGSTOP until thought dead": (lander_thought_dead, 2, 0.1, 1.0),
    },
    "lake": {
        "a file in its place": (lake_is_a_file, 2, 0.3, 2.0),
        "an empty folder in its place": (lake_elsewhere, 2, 0.5, 3.0),
        "compacted and purged by another": (lake_purged, 2, 0.2, 1.5),
    },
}
"""target → kind → what is done, how often beside its neighbours, and for how long: from, to in seconds."""

CLUSTER_STRIKES: Kinds = {
    "broker": {
        "kill -9": (broker_killed, 3, 1.0, 4.0),
        "SIGSTOP": (broker_paused, 1, 0.5, 3.0),
    },
    "collector": STRIKES["collector"],
    "lander": {
        "kill -9": (lander_killed, 2, 0.1, 3.0),
        "SIGTERM": (lander_leaves, 1, 0.5, 3.0),
        "SIGSTOP until thought dead": (lander_thought_dead, 1, 0.1, 1.0),
    },
    "nearline": {
        "kill -9": (nearline_killed, 2, 0.1, 3.0),
        "SIGTERM": (nearline_leaves, 1, 0.5, 3.0),
        "SIGSTOP until thought dead": (nearline_thought_dead, 1, 0.1, 1.0),
    },
}
"""The same for a platform on several brokers, with landers and nearline workers that share the partitions."""


def schedule(strikes: int, seed: int, of: Kinds = STRIKES) -> list[Strike]:
    """So many faults, at each target in turn; the same for the same seed.

    >>> schedule(8, 1) == schedule(8, 1) != schedule(8, 2)
    True
    >>> [strike.target for strike in schedule(5, 1)]
    ['collector', 'log', 'lander', 'lake', 'collector']
    """
    draw = random.Random(seed)
    planned = []
    for number in range(strikes):
        target = [*of][number % len(of)]
        kinds = of[target]
        [kind] = draw.choices(list(kinds), [weight for _, weight, _, _ in kinds.values()])
        _, _, shortest, longest = kinds[kind]
        planned.append(Strike(target, kind, draw.uniform(shortest, longest), draw.random()))
    return planned


def strike_now(platform: Platform, strike: Strike) -> None:
    """Have the fault for as long as it lasts, and heal it."""
    kinds = {**STRIKES.get(strike.target, {}), **CLUSTER_STRIKES.get(strike.target, {})}
    what, *_ = kinds[strike.kind]
    with what(platform, strike):
        time.sleep(0.0 if what is lake_purged else strike.seconds)


@contextmanager
def _instead(platform: Platform, other: Path) -> Iterator[None]:
    _link(platform.lake_path, other)
    try:
        yield
    finally:
        _link(platform.lake_path, platform.folder / "lake.real")


def _link(link: Path, to: Path) -> None:
    fresh = link.with_suffix(".new")
    fresh.symlink_to(to.name)
    os.replace(fresh, link)


def _files(folder: Path, pattern: str) -> set[Path]:
    return set(folder.glob(pattern))
