"""How far a log has come, as far as one process knows. A log never goes back, unless it has lost records."""

from collections.abc import Mapping, Sequence

from infra.event_log.port import EventLogBehind, Position


class Ends:
    """The furthest end of each partition that was met. Safe to share between threads.

    Attributes:
        behind: the log was found to end before it, and nobody has put that right since.
    """

    def __init__(self) -> None:
        self.behind = False
        self._known: dict[int, int] = {}

    def now(self) -> Mapping[int, int]:
        """partition → the furthest end met so far."""
        return dict(self._known)

    def agree(self, ends: Mapping[int, int]) -> bool:
        """Whether these are no step back; False too where nothing was met yet."""
        return bool(self._known) and not self.behind and all(ends.get(p, 0) >= end for p, end in self.now().items())

    def met(self, ends: Mapping[int, int]) -> None:
        """Note that the log ends here, or further on."""
        for partition, end in ends.items():
            if end > self._known.get(partition, 0):
                self._known[partition] = end

    def before_append(self) -> Mapping[int, int]:
        """`now`.

        Raises:
            EventLogBehind: nothing may be appended, see `behind`.
        """
        if self.behind:
            raise EventLogBehind(
                "the log has lost records, so nothing is appended until it goes on above what was landed"
            )
        return self.now()

    def check(self, taken: Sequence[Position], before: Mapping[int, int]) -> None:
        """See that what was appended stands behind all that was there before.

        Args:
            taken: where it stands.
            before: what `before_append` said.

        Raises:
            EventLogBehind: it does not: it would be taken for landed, so it must not be called accepted.
        """
        if any(at.offset < before.get(at.partition, 0) for at in taken):
            self.behind = True
            raise EventLogBehind("the log has lost records: what was appended now stands where others stood")
        self.met({at.partition: at.offset + 1 for at in taken})
