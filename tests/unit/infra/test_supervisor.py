"""The supervisor, with real processes."""

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

from infra.supervisor import Program, Supervisor

PATIENCE = 20.0
SLEEPER = "import time; print('up', flush=True); time.sleep(600)"


def python(name: str, code: str) -> Program:
    """A program that is a few lines of Python."""
    return Program(name, [sys.executable, "-c", code])


class Said:
    """What the supervisor was told to write."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def write(self, name: str, line: str) -> None:
        """Note a line."""
        self.lines.append((name, line))

    def count(self, name: str, start: str) -> int:
        """Lines of a program that begin like this."""
        return sum(who == name and line.startswith(start) for who, line in self.lines)


async def run_until(supervisor: Supervisor, holds: Callable[[], bool]) -> None:
    """Run it, and stop it in order once something holds."""
    stop = asyncio.Event()
    running = asyncio.create_task(supervisor.run(stop))
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    stop.set()
    await running


def test_lines_are_passed_on_under_the_programs_name() -> None:
    said = Said()
    program = python("one", "import sys; print('out'); print('err', file=sys.stderr); import time; time.sleep(600)")
    asyncio.run(run_until(Supervisor([], [program], said.write), lambda: len(said.lines) >= 1))
    assert ("one", "err") in said.lines


def test_what_dies_is_started_again_after_growing_pauses() -> None:
    said = Said()
    supervisor = Supervisor([], [python("one", "raise SystemExit(3)")], said.write)
    asyncio.run(run_until(supervisor, lambda: said.count("one", "ended with exit code 3") >= 3))
    pauses = [line.split(" in ")[1] for _, line in said.lines]
    assert pauses[:3] == ["0.2 s", "0.4 s", "0.8 s"]


def test_a_line_beyond_all_bounds_does_not_stop_the_reading() -> None:
    said = Said()
    code = "import time; print('x' * 3_000_000, flush=True); print('after', flush=True); time.sleep(600)"
    asyncio.run(run_until(Supervisor([], [python("one", code)], said.write), lambda: said.count("one", "after") == 1))


def test_the_stores_are_stopped_after_everything_else(tmp_path: Path) -> None:
    said = Said()
    order = tmp_path / "order"

    def notes_its_end(name: str) -> Program:
        code = (
            "import signal, sys, time\n"
            f"def end(*_):\n    time.sleep(0.3); open({str(order)!r}, 'a').write('{name} '); sys.exit()\n"
            "signal.signal(signal.SIGTERM, end); print('up', flush=True); time.sleep(600)"
        )
        return python(name, code)

    supervisor = Supervisor([notes_its_end("store")], [notes_its_end("stage")], said.write)
    asyncio.run(run_until(supervisor, lambda: said.count("store", "up") + said.count("stage", "up") == 2))
    assert order.read_text() == "stage store "


def test_what_does_not_stop_is_killed() -> None:
    said = Said()
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEPER
    supervisor = Supervisor([], [python("stubborn", code)], said.write, stop_seconds=0.3)
    asyncio.run(run_until(supervisor, lambda: said.count("stubborn", "up") == 1))
    assert said.count("stubborn", "did not stop within 0.3 s; killed") == 1
