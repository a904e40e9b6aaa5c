"""How long the phases of a run take, and how much memory it held at most."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog


class Phases:
    """Measures and logs the phases of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the block under this name."""
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start
        structlog.get_logger(__name__).info("phase done", phase=name, seconds=round(self.seconds[name], 2))

    def figures(self) -> dict[str, float]:
        """`seconds_<phase>`, and `peak_memory_mb` of this process since it began."""
        return {f"seconds_{name}": took for name, took in self.seconds.items()} | {"peak_memory_mb": peak_memory_mb()}


def peak_memory_mb() -> float:
    """The most memory that this process has held, in megabytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # Bytes on macOS, kilobytes on Linux.
