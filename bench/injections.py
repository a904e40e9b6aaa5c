"""The faults that drills inject: each is a context, and the platform is whole again after it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple, cast

from bench.editions import edition, put, user
from bench.faults import Fault, paused
from bench.own_platform import OwnPlatform
from training.bundle import CURRENT, bundle_key, list_key

LONGEST_SECONDS = 120.0
CORRUPT, MISSING, HALF = 11, 12, 13
"""Versions that a trainer who went wrong has published; viewers are served version 1."""

SLOW_SECONDS = 0.5

Injection = Callable[[OwnPlatform], AbstractContextManager[None]]


class FaultDrill(NamedTuple):
    """A fault, and how the platform has to speak of it.

    Attributes:
        injected: in words.
        inject: makes the fault for as long as the context lasts.
        metric: regular expression of the metric of serving, or of another stage, that has to rise meanwhile.
        log: regular expression of what the stage has to print meanwhile.
        stage: which process speaks of it.
    """

    injected: str
    inject: Injection
    metric: str
    log: str
    stage: str = "serve"


# --- the faults ------------------------------------------------------------------------------------------------------


@contextmanager
def redis_killed(platform: OwnPlatform) -> Iterator[None]:
    """Redis dies, and is started again on its own files."""
    platform.stop("redis", signal.SIGKILL)
    try:
        yield
    finally:
        platform.start_redis()


@contextmanager
def redis_full(platform: OwnPlatform) -> Iterator[None]:
    """Redis takes no more writes."""
    platform.store.config_set("maxmemory", 1)
    try:
        yield
    finally:
        platform.store.config_set("maxmemory", 0)


def redis_slow(platform: OwnPlatform) -> AbstractContextManager[None]:
    """Every byte to and from Redis takes half a second longer."""
    return platform.store_proxy.fault(Fault.SLOW, delay=SLOW_SECONDS)


@contextmanager
def pointing(platform: OwnPlatform, pointer: str | None) -> Iterator[None]:
    """The pointer to the current version has another value, or is gone."""
    before = platform.store.get(CURRENT)
    assert isinstance(before, bytes)
    if pointer is None:
        platform.store.delete(CURRENT)
    else:
        platform.store.set(CURRENT, pointer)
    try:
        yield
    finally:
        platform.store.set(CURRENT, before)


@contextmanager
def bundle_corrupt(platform: OwnPlatform) -> Iterator[None]:
    """The trainer has published a bundle that was altered on the way."""
    altered = bytearray(edition(CORRUPT).dump())
    altered[len(altered) // 2] ^= 0xFF
    platform.store.set(bundle_key(CORRUPT), bytes(altered))
    with pointing(platform, str(CORRUPT)):
        yield


@contextmanager
def lists_missing(platform: OwnPlatform) -> Iterator[None]:
    """The trainer has published a version and half of its lists."""
    with pointing(platform, "1"):
        put(platform.store, HALF, [user(number) for number in range(0, everybody(platform), 2)])
        yield


@contextmanager
def lists_corrupt(platform: OwnPlatform) -> Iterator[None]:
    """Every other stored list is no list: half an index too long, or of items that the version does not have."""
    keys = [list_key(1, user(number)) for number in range(0, everybody(platform), 2)]
    before = cast("list[bytes]", platform.store.mget(keys))
    wrong = [b"\x07\x00\x00", b"\xff\xff\xff\x7f" * 3]
    platform.store.mset({key: wrong[number % 2] for number, key in enumerate(keys)})
    try:
        yield
    finally:
        platform.store.mset(dict(zip(keys, before, strict=True)))


def everybody(platform: OwnPlatform) -> int:
    """How many people have a list of version 1."""
    return sum(1 for _ in platform.store.scan_iter(list_key(1, "*"), count=1000))


SILENT = (
    r"marquee_list_read_errors_total|marquee_catalogue_polls_failed_total",
    r"lists_unreadable|online_store_silent",
)
REFUSED = (r"marquee_bundles_refused_total", r"bundle_refused")

FAULTS = {
    "redis-down": FaultDrill("Redis killed with SIGKILL, then started again", redis_killed, *SILENT),
    "redis-paused": FaultDrill(
        "Redis paused with SIGSTOP", lambda platform: paused(platform.pid("redis"), LONGEST_SECONDS), *SILENT
    ),
    "redis-hangs": FaultDrill(
        "the way to Redis takes connections and forwards nothing",
        lambda platform: platform.store_proxy.fault(Fault.HANG, longest=LONGEST_SECONDS),
        *SILENT,
    ),
    "redis-slow": FaultDrill("the way to Redis takes 500 ms longer, each way", redis_slow, *SILENT),
    "redis-full": FaultDrill(
        "Redis is full: it refuses every write",
        redis_full,
        r"marquee_nearline_waits_total",
        r"nearline_waits",
        "nearline",
    ),
    "log-down": FaultDrill(
        "the way to the event log is cut",
        lambda platform: platform.log_proxy.fault(Fault.CUT, longest=LONGEST_SECONDS),
        r"marquee_nearline_waits_total",
        r"nearline_waits",
        "nearline",
    ),
    "bundle-corrupt": FaultDrill("the trainer publishes a bundle with an altered byte", bundle_corrupt, *REFUSED),
    "bundle-missing": FaultDrill(
        "the pointer names a version that has no bundle", lambda platform: pointing(platform, str(MISSING)), *REFUSED
    ),
    "pointer-wrong": FaultDrill("the pointer is no number", lambda platform: pointing(platform, "champion"), *REFUSED),
    "pointer-gone": FaultDrill("the pointer is gone", lambda platform: pointing(platform, None), *REFUSED),
    "lists-missing": FaultDrill(
        "the trainer publishes a version and half of its lists",
        lists_missing,
        r'marquee_recommendations_total\{tier="popular"\}',
        r"version_taken_over",
    ),
    "lists-corrupt": FaultDrill(
        "every other stored list is no list", lists_corrupt, r"marquee_corrupt_lists_total", ""
    ),
}
