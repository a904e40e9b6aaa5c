"""Erasures, followed to their end: who has forgotten is signed in the ledger, and the log forgets last.

`ingest.consent` opens an erasure and appends its mark. The lander obeys the mark in the lake and meets the other
stages' `erasure_step` records; both come here. When lake, lists and nearline have signed, nobody needs the mark any
more, and the keeper takes it out of the log together with all that stands before it under the same key. The ledger
holds only the mark's position, so the person's id goes with the record. A log that cannot remove records says until
when they stay. Models hold no person: they are replaced by the next retraining, and signed for when that is done.

Each part can be done twice without harm, and `advance` looks at the ledger each time: a process killed anywhere is
continued by the next one.
"""

from datetime import datetime, timedelta

import structlog

from infra.database import ErasureState, Ledger, Step
from infra.event_log.port import EventLog, Position
from ingest.events import STAGES, ErasureMark, ErasureStep, Stage, now

LAST: Stage = "log"
"""The stage that waits for the others: its mark is what they follow."""


class ErasureKeeper:
    """Signs the stages' steps, has the log forget, completes.

    Args:
        ledger: where erasures are kept.
        log: has to forget.
    """

    def __init__(self, ledger: Ledger, log: EventLog) -> None:
        self._ledger = ledger
        self._log = log

    def met(self, mark: ErasureMark, at: Position) -> None:
        """Note where an erasure's mark stands. Of an erasure that is complete, it is a late copy: the log forgets it.

        Raises:
            LedgerUnavailable, EventLogUnavailable: meet the mark again.
        """
        state = self._ledger.erasure(mark.erasure_id)
        if state is None:
            structlog.get_logger(__name__).warning("mark_of_unknown_erasure", erasure_id=mark.erasure_id)
        elif state.completed_at is not None:
            self._log.forget(at)
        else:
            self._ledger.set_mark(mark.erasure_id, at.partition, at.offset)

    def sign(self, step: ErasureStep) -> None:
        """Put a stage's signature under its erasure.

        Raises:
            LedgerUnavailable: meet the step again.
        """
        if step.stage != LAST:
            self._ledger.sign_step(step.erasure_id, step.stage, Step(step.removed, step.at))

    def advance(self) -> int:
        """Finish the erasures that wait for nothing but the log.

        Returns:
            Number of erasures completed.

        Raises:
            LedgerUnavailable, EventLogUnavailable: call again.
        """
        ready = [state for state in self._ledger.open_erasures() if set(STAGES) - state.steps.keys() <= {LAST}]
        for state in ready:
            self._finish(state)
        return len(ready)

    def _finish(self, state: ErasureState) -> None:
        if LAST not in state.steps:
            if state.mark is None:
                return
            removed, at = self._log.forget(Position(*state.mark)), now()
            self._ledger.sign_step(state.erasure_id, LAST, Step(removed, at, self._remain_until(at)))
        self._ledger.complete_erasure(state.erasure_id, now())
        structlog.get_logger(__name__).info("erasure_completed", erasure_id=state.erasure_id)

    def _remain_until(self, at: datetime) -> datetime | None:
        """When the log's retention has ended all that stands in it by now: it is counted from after the mark."""
        seconds = self._log.keeps_seconds()
        return None if seconds is None or seconds == float("inf") else at + timedelta(seconds=seconds)
