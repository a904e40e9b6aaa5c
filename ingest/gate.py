"""The consent gate: what people allow now, told only by what was lately compared with the ledger.

It is shut whenever it cannot know: the projection does not answer or is not whole, this process has not compared it
with the ledger for a while, or it holds less than it did then. Receipts are told apart by their numbers, never by
times, so it does not matter what the clock on the wall does.

Between the gate and the log a withdrawal may come. Where log and projection are on one Redis, the log looks at the
people's values again in the step that appends (`Judgement.guard`), so that nothing under an older receipt can be
appended once a withdrawal is in the projection, whichever process sends it. Where they are not (Kafka), a withdrawal
waits for the batches of its own process (`Passage`), and what another process had let through before may still be
appended: under its older receipt, by which lander, nearline and publish drop it.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from infra.event_log.port import Guard
from ingest.events import Consent, ConsentProjection, ConsentUnavailable

PASSAGE_SECONDS = 10.0
FRESH_SECONDS = 10.0
"""For so long after the last comparison with the ledger the gate may be open."""


def steady_seconds() -> float:
    """Seconds that pass whatever the clock on the wall does; where the system can tell, those of a suspension too."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Judgement(NamedTuple):
    """What people allow, as it was when they were asked about.

    Attributes:
        consents: user_id → what that person allows.
        guard: what has to be in force still when something is appended for those who allow it; None: nobody can check.
    """

    consents: Mapping[str, Consent]
    guard: Guard | None


class Gate:
    """Asks the projection, and trusts it only while it is fresh. Safe to share between threads; shut at first.

    Args:
        projection: what people allow.
        guards: whether the event log is on the projection's Redis, and so can look at it itself.
        clock: seconds that only rise.
    """

    def __init__(
        self, projection: ConsentProjection, guards: bool, clock: Callable[[], float] = steady_seconds
    ) -> None:
        self._projection = projection
        self._guards = guards
        self._clock = clock
        self._compared: tuple[float, int] | None = None

    def compare(self, catch_up: Callable[[], object]) -> None:
        """Bring the projection up to the ledger, and note that it is fresh.

        Raises: what `catch_up` raises; ConsentUnavailable: Redis does not answer.
        """
        began = self._clock()
        catch_up()
        self._compared = (began, self._projection.receipts())

    def judge(self, user_ids: Sequence[str], purpose: str) -> Judgement:
        """What these people allow now, in one round trip.

        Args:
            purpose: what for; the guard is about those who allow it.

        Raises:
            ConsentUnavailable: nobody can tell.
        """
        head, consents = self._projection.read_at(user_ids)
        self._check(head)
        if not self._guards:
            return Judgement(consents, None)
        allowed = {person: consent for person, consent in consents.items() if consent.allows(purpose)}
        return Judgement(consents, {self._projection.key(person): c.encode() for person, c in allowed.items()})

    def _check(self, head: int) -> None:
        compared = self._compared
        if compared is None or not 0 <= self._clock() - compared[0] < FRESH_SECONDS:
            raise ConsentUnavailable(f"the projection was not compared with the ledger for {FRESH_SECONDS:.0f} s")
        if head < compared[1]:
            raise ConsentUnavailable("the projection holds less than it did: it is caught up from the ledger")


class Passage:
    """The way from the gate into the log: whoever shuts the gate can wait for the batches that are already through."""

    def __init__(self) -> None:
        self._inside: set[object] = set()
        self._changed = threading.Condition()

    @contextmanager
    def through(self) -> Iterator[None]:
        """Be inside: from before the gate is asked until the log has answered."""
        batch = object()
        with self._changed:
            self._inside.add(batch)
        try:
            yield
        finally:
            with self._changed:
                self._inside.remove(batch)
                self._changed.notify_all()

    def wait_out(self, timeout: float = PASSAGE_SECONDS) -> bool:
        """Wait for those who are inside now, not for later ones. False: some are still inside after `timeout`."""
        with self._changed:
            earlier = set(self._inside)
            return self._changed.wait_for(lambda: earlier.isdisjoint(self._inside), timeout)
