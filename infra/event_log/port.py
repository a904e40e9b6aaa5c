"""The event log as the stages see it: an append-only topic in partitions, read by consumer groups.

Adapters: `kafka.py` (Apache Kafka) and `redis_streams.py` (embedded). Both pass `tests/contract/test_event_log.py`.

A record's partition is chosen by its key, so what one person did stands in order. Offsets are dense, rise by one and
never come back. Delivery to a group is at least once: whoever must not count twice keeps its own offsets
(`start_at`), as the lander does inside the lake's commits.

That offsets never come back has to hold for a log that lost everything, too, or what it takes anew would be taken for
landed. So a topic is made only by who knows what was landed (`keep`), and it goes on above that.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol


class EventLogError(Exception):
    """Root of what the event log raises."""


class EventLogUnavailable(EventLogError):
    """The log did not take or give records in time. Nothing may be assumed about them: try again, keeping the ids."""


class EventLogBehind(EventLogUnavailable):
    """The log ends before what was landed of it, so it has lost records: what it takes now would never be landed."""


class GuardChanged(EventLogError):
    """What the records rest on has changed since: nothing was appended. Look at it again."""


class PartitionsLost(EventLogError):
    """A commit came too late: the partitions have another owner by now. Drop what is in hand and poll again."""


class Record(NamedTuple):
    """One record of the log."""

    partition: int
    offset: int
    key: bytes
    value: bytes


class Position(NamedTuple):
    """Where an appended record stands."""

    partition: int
    offset: int


Guard = Mapping[str, bytes]
"""Key of the online store → the value that it has to have still."""

Fences = Callable[[], Mapping[int, int]]
"""partition → offset up to which its records are landed; may be slow."""

SKIP = 1 << 16
"""A topic that is made anew goes on so far above what was landed: by more than a lander may hold, and land yet."""

StartAt = Callable[[int], int | None]
"""partition → offset to begin at when that partition is newly ours; None: where the group committed, or the start."""


class EventLog(Protocol):
    """A topic that can be appended to and read by groups. Safe to share between threads."""

    def append(self, records: Sequence[tuple[bytes, bytes]], guard: Guard | None = None) -> list[Position]:
        """Append (key, value) pairs and return their positions, in order, once all of them are durable.

        Args:
            guard: append only if these values are in force, in the same step. A log on Redis that is the online store
                too can tell; any other passes it over.

        Raises:
            EventLogBehind: see there.
            GuardChanged: see there.
            EventLogUnavailable: within about 2 s when the log cannot take them (some may stand in it nevertheless).
        """
        ...

    def consumer(self, group: str, start_at: StartAt | None = None) -> "Consumer":
        """Join `group` and share the topic's partitions with its other members. One consumer belongs to one thread."""
        ...

    def keep(self, fences: Fences) -> None:
        """See that the log goes on above what was landed, and make the topic where it does not exist.

        To be called before the first append, and about every second from then on.

        Args:
            fences: asked the first time, and whenever the log is found shorter than it was.

        Raises:
            EventLogBehind: it ends before that, and cannot be made to go on (Kafka); the message says what to do.
                Nothing is appended meanwhile.
            EventLogUnavailable: the log does not answer.
        """
        ...

    def end_offsets(self) -> dict[int, int]:
        """partition → offset that the next record of it will get.

        Raises:
            EventLogUnavailable: the log does not answer.
        """
        ...

    def forget(self, at: Position) -> int | None:
        """Remove the record at this position, every earlier one of its key, and every copy that the log keeps of them.

        The record at the position goes last, so that a call that was cut short can be made again; where it is gone
        already, only the copies remain to be removed. Offsets of other records stay as they are.

        Returns:
            The number removed, or None where the log cannot remove single records (Kafka) and its retention has to end
            their life.

        Raises:
            EventLogUnavailable: the log does not answer.
        """
        ...

    def close(self) -> None:
        """Give back connections. What was not appended is not waited for."""
        ...

    def keeps_seconds(self) -> float | None:
        """How long a record that cannot be removed stays at most; infinite without a retention. None: all can be.

        Raises:
            EventLogUnavailable: the log does not answer.
        """
        ...


class Consumer(Protocol):
    """One member of a consumer group."""

    def poll(self, timeout: float, max_records: int = 5000) -> list[Record]:
        """Next records of our partitions, in order within each; waits up to `timeout` seconds for the first of them.

        Raises:
            EventLogUnavailable: the log does not answer.
        """
        ...

    def seek(self, partition: int, offset: int) -> None:
        """Read `partition`, one of ours, from `offset` next."""
        ...

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Remember, for the group, the next offset to read of each partition.

        Raises:
            PartitionsLost: another member owns one of them by now.
            EventLogUnavailable: the log does not answer.
        """
        ...

    def assigned(self) -> set[int]:
        """Partitions that are ours now (known after the first polls)."""
        ...

    def position(self, partition: int) -> int:
        """Offset that is read next of `partition`, one of ours.

        Raises:
            PartitionsLost: another member owns it by now.
            EventLogUnavailable: the log does not answer.
        """
        ...

    def lag(self) -> dict[int, int]:
        """partition → records of it, among ours, that we have not polled yet.

        Raises:
            EventLogUnavailable: the log does not answer.
        """
        ...

    def close(self) -> None:
        """Leave the group, so that others take over at once."""
        ...
