"""Where a run stands, how long its phases take, and how much memory it held at most."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog


class Phases:
    """Measures and logs the phases of a run.

    Attributes:
        seconds: phase that was done → how long it took.
        now: the phase that is under way; None between two.
        detail: how far that one is, in words; None where it says nothing.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.now: str | None = None
        self.detail: str | None = None

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the block under this name."""
        start, self.now = time.monotonic(), name
        yield
        self.now = self.detail = None
        self.seconds[name] = time.monotonic() - start
        structlog.get_logger(__name__).info("phase done", phase=name, seconds=round(self.seconds[name], 2))

    def say(self, detail: str) -> None:
        """Say how far the phase is that is under way."""
        self.detail = detail

    def figures(self) -> dict[str, float]:
        """`seconds_<phase>`, and `peak_memory_mb` of this process since it began."""
        return {f"seconds_{name}": took for name, took in self.seconds.items()} | {"peak_memory_mb": peak_memory_mb()}


def peak_memory_mb() -> float:
    """The most memory that this process has held, in megabytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # Bytes on macOS, kilobytes on Linux.
