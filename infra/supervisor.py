"""Runs the platform's processes in one terminal: prefixed logs, restart with backoff, an orderly stop."""

import asyncio
import ctypes
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

FIRST_BACKOFF_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 10.0
HEALTHY_SECONDS = 10.0
LONGEST_LINE_BYTES = 1 << 20
PR_SET_PDEATHSIG = 1


class Program(NamedTuple):
    """A process to keep running."""

    name: str
    command: Sequence[str]


@dataclass
class Supervisor:
    """Keeps programs running until it is told to stop.

    Args:
        stores: started first and stopped last, one after another, since the others need them.
        programs: started and stopped together.
        write: takes a program's name and a line that it printed, or that is said about it.
        stop_seconds: how long a program may take to stop before it is killed.
    """

    stores: Sequence[Program]
    programs: Sequence[Program]
    write: Callable[[str, str], None]
    stop_seconds: float = 10.0

    async def run(self, stop: asyncio.Event) -> None:
        """Start everything, restart what dies, and, once `stop` is set, end it in order. Nothing is left running."""
        stop_stores = asyncio.Event()
        stores = [asyncio.create_task(self._keep_running(program, stop_stores)) for program in self.stores]
        programs = [asyncio.create_task(self._keep_running(program, stop)) for program in self.programs]
        await asyncio.gather(*programs)
        stop_stores.set()
        await asyncio.gather(*stores)

    async def _keep_running(self, program: Program, stop: asyncio.Event) -> None:
        backoff = FIRST_BACKOFF_SECONDS
        while not stop.is_set():
            started = asyncio.get_running_loop().time()
            code = await self._run_once(program, stop)
            if stop.is_set():
                return
            if asyncio.get_running_loop().time() - started > HEALTHY_SECONDS:
                backoff = FIRST_BACKOFF_SECONDS
            self.write(program.name, f"ended with {_in_words(code)}; starting it again in {backoff:.1f} s")
            await _wait(stop, backoff)
            backoff = min(2 * backoff, LONGEST_BACKOFF_SECONDS)

    async def _run_once(self, program: Program, stop: asyncio.Event) -> int:
        process = await asyncio.create_subprocess_exec(
            *program.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=LONGEST_LINE_BYTES,
            start_new_session=True,  # Ctrl-C reaches us alone, so that the stop has an order.
            preexec_fn=end_with_parent if sys.platform == "linux" else None,
        )
        reading = asyncio.create_task(self._copy_lines(program, process))
        ended = asyncio.create_task(process.wait())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not ended.done():
            process.terminate()
            await asyncio.wait({ended}, timeout=self.stop_seconds)
        if not ended.done():
            self.write(program.name, f"did not stop within {self.stop_seconds:g} s; killed")
            process.kill()
        code = await ended
        await reading
        return code

    async def _copy_lines(self, program: Program, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # A line beyond the limit: its rest follows as lines of its own.
                continue
            if not line:
                return
            self.write(program.name, line.decode(errors="replace").rstrip())


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


def end_with_parent() -> None:
    """Have Linux end this process when the supervisor dies, even of SIGKILL."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _in_words(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
