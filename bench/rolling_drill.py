"""The drill in which each of two serving workers behind HAProxy is replaced in turn, and versions change meanwhile."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.editions import grant_everybody, put, user
from bench.load_drills import LONGEST_SECONDS, publish_for_everybody, roll_back, wait_for_version
from bench.observing import Phase, Report, between, failed, p99_ms, viewers
from bench.own_platform import ROOT, SECRET, OwnPlatform, wait_until
from workshop.fresh_platform import free_ports

CONFIGURATION = ROOT / "infra/deploy/haproxy/haproxy.cfg"
OTHER = "serve-2"


class Size(NamedTuple):
    """How large the drill is.

    Attributes:
        users: people with a list.
        rate: requests for lists a second.
        settled: seconds before, between and after.
        ends: what a worker is sent.
        configuration: of HAProxy.
    """

    users: int = 5000
    rate: float = 500
    settled: float = 2.0
    ends: signal.Signals = signal.SIGTERM
    configuration: Path = CONFIGURATION


@contextmanager
def balanced(configuration: Path = CONFIGURATION) -> Iterator[tuple[OwnPlatform, int]]:
    """A platform with two serving workers, and the port of the HAProxy before them."""
    front, second = free_ports(2)
    with OwnPlatform(("nearline", "serve"), proxied=False) as platform:
        platform.start_another(OTHER, "serve", second)
        one, other = (f"127.0.0.1:{port}" for port in (platform.ports["SERVING"], second))
        variables = {"FRONT": f"127.0.0.1:{front}", "SERVING_1": one, "SERVING_2": other}
        platform.start_program("haproxy", ["haproxy", "-db", "-f", str(configuration)], variables)
        platform.ports |= {"SERVING_2": second, "FRONT": front}
        yield platform, front


def rolling_drill(size: Size = Size()) -> Report:  # noqa: B008
    """Replace one worker, publish a version, replace the other, go back to the version before."""
    report = Report(
        "rolling-restart", f"two workers replaced in turn at {size.rate:g} requests/s; a publish, a rollback"
    )
    with balanced(size.configuration) as (platform, front):
        names = [user(number) for number in range(size.users)]
        grant_everybody(platform.store, names, SECRET)
        put(platform.store, 1, names)
        _both_have(platform, 1)
        with viewers(platform, size.users, size.rate, LONGEST_SECONDS, port=front) as load:
            begin = time.monotonic()
            time.sleep(size.settled)
            started = time.monotonic()
            _replace(platform, "serve", 1, size)
            published = publish_for_everybody(platform, 2, size.users)
            _both_have(platform, 2)
            _replace(platform, OTHER, 2, size)
            roll_back(platform, 1)
            _both_have(platform, 1)
            ended = time.monotonic()
            time.sleep(size.settled)
    meanwhile = between(load.answers, started, ended)
    report.phases = [Phase("before", between(load.answers, begin, started)), Phase("replaced", meanwhile)]
    report.phases.append(Phase("after", between(load.answers, ended, time.monotonic())))
    report.figures = {
        "failed": failed(load.answers),
        "mixed": sum(1 for answer in load.answers if answer.seen and answer.seen.mixed),
        "rolling_p99_ms": p99_ms(meanwhile),
        **published,
    }
    report.said = [f"versions seen: {sorted({answer.seen.version for answer in load.answers if answer.seen})}"]
    return report


def _replace(platform: OwnPlatform, name: str, version: int, size: Size) -> None:
    """End a worker and start another in its place, at the same address."""
    platform.stop(name, size.ends)
    if name == OTHER:
        platform.start_another(OTHER, "serve", platform.ports["SERVING_2"])
    else:
        platform.start(name)
    _both_have(platform, version)
    time.sleep(size.settled)


def _both_have(platform: OwnPlatform, version: int) -> None:
    wait_for_version(platform, version)
    wait_until(
        lambda: platform.ready_version(platform.ports["SERVING_2"]) == version, f"version {version} is served twice"
    )
