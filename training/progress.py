"""What others may know of a retraining: how far it is, how the last one ended, and that one is wanted.

The run writes where it stands every few seconds, from a thread of its own, so that it neither waits for the online
store nor fails with it. What it wrote ends by itself soon after the process does. An operator's word is a key that the
schedule takes: however many ask, one run begins.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Literal, Self, TypeVar, cast

import structlog
from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from infra.online_store import OnlineStore, OnlineStoreError
from ingest.events import now
from training.bundle import ASKED, LAST, LOCK, RUN, SCHEDULE
from training.job import Outcome
from training.phases import Phases

LOOK_SECONDS = 1.0
REPEAT = 5
"""After so many looks what has not changed is written again."""
RUN_SECONDS = 30
ASKED_SECONDS = 60
SCHEDULE_SECONDS = 15
"""Lifetime of each key, but for the last run's."""

Said = TypeVar("Said", bound=BaseModel)


class NoSchedule(Exception):
    """Nobody would take up what is asked for: no schedule is running."""


class PhaseDone(BaseModel):
    """A phase of a run that is over."""

    name: str = Field(examples=["read"])
    seconds: float = Field(examples=[1.5])


class RunUnderWay(BaseModel):
    """Where a run stands."""

    started_at: AwareDatetime
    phase: str | None = Field(description="The one that is under way.", examples=["tune"])
    phases: list[PhaseDone] = Field(description="Those that are done, in their order.")
    detail: str | None = Field(description="How far the phase is, in words.")

    @classmethod
    def of(cls, phases: Phases, started_at: datetime) -> Self:
        """Now."""
        done = [PhaseDone(name=name, seconds=round(seconds, 3)) for name, seconds in list(phases.seconds.items())]
        return cls(started_at=started_at, phase=phases.now, phases=done, detail=phases.detail)


class LastRun(BaseModel):
    """How the last run ended."""

    finished_at: AwareDatetime
    result: Literal["published", "refused", "data_refused", "failed"]
    version: int | None = Field(description="Number of the challenger, published or not.")
    reason: str = Field(description="What the gate said, which checks failed, or why the run did.")

    @classmethod
    def of(cls, outcome: Outcome) -> Self:
        """It came to its end now."""
        reason = "; ".join(outcome.reasons)
        return cls(finished_at=now(), result=outcome.result, version=outcome.version, reason=reason)

    @classmethod
    def failed(cls, why: str) -> Self:
        """It came to none, and ended now."""
        return cls(finished_at=now(), result="failed", version=None, reason=why)


class Training(BaseModel):
    """Where training stands, whichever process trains."""

    state: Literal["idle", "asked", "running"]
    schedule: bool = Field(description="Whether a schedule is there that would take up what is asked for.")
    run: RunUnderWay | None
    last: LastRun | None


# --- the run ---------------------------------------------------------------------------------------------------------


class Shown:
    """A run that others can see.

    Attributes:
        phases: of the run.
        outcome: what it came to; None while it has come to nothing.
    """

    def __init__(self) -> None:
        self.phases = Phases()
        self.outcome: Outcome | None = None


@contextmanager
def shown(store: OnlineStore) -> Iterator[Shown]:
    """Let others see the run that the block makes. For who holds the training lock.

    Args:
        store: where it is written. An outage of it is logged, and nothing else.
    """
    run, stop, last = Shown(), threading.Event(), None
    writer = threading.Thread(target=_keep_writing, args=(store, run.phases, stop), name="progress", daemon=True)
    writer.start()
    try:
        yield run
        last = LastRun.of(run.outcome) if run.outcome else None
    except Exception as error:
        last = LastRun.failed(str(error) or type(error).__name__)
        raise
    finally:
        stop.set()
        writer.join()
        if last is not None:  # None: Ctrl-C, or another process has taken over, and what stands there is that one's.
            with _an_outage_is_logged():
                end(store, last)


def end(store: OnlineStore, last: LastRun) -> None:
    """Write how a run ended. The schedule does it for one that could not.

    Raises:
        infra.online_store.OnlineStoreError: the store does not answer.
    """
    writes = store.pipeline(transaction=True)
    writes.set(LAST, last.model_dump_json())
    writes.delete(RUN)
    writes.execute()


def _keep_writing(store: OnlineStore, phases: Phases, stop: threading.Event) -> None:
    started_at, written, looks = now(), "", 0
    while True:
        found = RunUnderWay.of(phases, started_at).model_dump_json()
        if found != written or looks >= REPEAT:
            with _an_outage_is_logged():
                store.set(RUN, found, ex=RUN_SECONDS)
            written, looks = found, 0
        looks += 1
        if stop.wait(LOOK_SECONDS):
            return


@contextmanager
def _an_outage_is_logged() -> Iterator[None]:
    try:
        yield
    except OnlineStoreError as error:
        structlog.get_logger(__name__).warning("the run's progress was not written", error=type(error).__name__)


# --- who looks, who asks, who takes up -------------------------------------------------------------------------------


def read_training(store: OnlineStore) -> Training:
    """Where training stands. A run counts while its process holds the training lock.

    Raises:
        infra.online_store.OnlineStoreError: the store does not answer.
    """
    run, lock, asked, last, schedule = cast("list[bytes | None]", store.mget(RUN, LOCK, ASKED, LAST, SCHEDULE))
    under_way = _read(RunUnderWay, run) if lock else None
    return Training(
        state="running" if under_way else "asked" if asked else "idle",
        schedule=schedule is not None,
        run=under_way,
        last=_read(LastRun, last),
    )


def _read(kind: type[Said], value: bytes | None) -> Said | None:
    """What a run wrote; None where that is nothing that this code can read."""
    try:
        return None if value is None else kind.model_validate_json(value)
    except ValidationError:
        return None


def ask(store: OnlineStore) -> Training:
    """Ask the schedule for a run. Where one is under way or asked for, that is the one.

    Raises:
        NoSchedule: see there.
        infra.online_store.OnlineStoreError: the store does not answer.
    """
    found = read_training(store)
    if found.state == "running":
        return found
    if not found.schedule:
        raise NoSchedule("no schedule is running: start `marquee train --schedule`, or retrain by `marquee train`")
    store.set(ASKED, 1, ex=ASKED_SECONDS)
    return found.model_copy(update={"state": "asked"})


def taken_up(store: OnlineStore) -> bool:
    """Whether a run is asked for. Who asks this begins it: the next one who asks is told no.

    Raises:
        infra.online_store.OnlineStoreError: the store does not answer.
    """
    return store.getdel(ASKED) is not None


def tell_of_schedule(store: OnlineStore) -> None:
    """Say that a schedule is there, for a while.

    Raises:
        infra.online_store.OnlineStoreError: the store does not answer.
    """
    store.set(SCHEDULE, 1, ex=SCHEDULE_SECONDS)
