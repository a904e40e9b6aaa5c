"""The account: what became of every record of the event log, so that none is lost without a trace.

Everything below the lake's fences is one of these: an event or an item that landed, a mark or a step that was obeyed, a
dead letter, a record that was dropped because its person had withdrawn, or one that the log no longer had. The lander
counts them in the commits that move the fences (`infra.lake_tables.TALLIES`), so the sums are exact whatever was killed
when.
"""

from collections import Counter
from typing import NamedTuple

import polars as pl

from infra.event_log.port import EventLog
from infra.lake import DEAD_LETTERS, EVENTS, Lake, LakeEmpty


class Account(NamedTuple):
    """Numbers of records of the log.

    Attributes:
        records: that the log ever took.
        waiting: not landed yet.
        became: what became of the others, by `TALLIES`.
        in_lake: events that the lake holds now; those that are missing to `became` were forgotten on a withdrawal.
        duplicates: of these, the ones sent more than once; training counts each once.
        dead_letters_in_lake: dead letters that the lake holds now; the others were forgotten, or replayed.
    """

    records: int
    waiting: int
    became: Counter[str]
    in_lake: int
    duplicates: int
    dead_letters_in_lake: int

    @property
    def unaccounted(self) -> int:
        """Records that landed without being counted: none, but of a lake that is older than the counting."""
        return self.records - self.waiting - self.became.total()

    @property
    def forgotten(self) -> int:
        """Events that landed, and went when their person withdrew or was erased."""
        return self.became["events"] - self.in_lake

    def lines(self) -> list[str]:
        """The account as it is printed."""
        rows = {
            "records in the log": self.records,
            "waiting to be landed": self.waiting,
            "events landed": self.became["events"],
            "  of these in the lake": self.in_lake,
            "  of these sent more than once": self.duplicates,
            "  forgotten since, on a withdrawal or an erasure": self.forgotten,
            "events and dead letters dropped on a withdrawal": self.became["dropped"],
            "dead letters": self.became["dead_letters"],
            "  of these still there": self.dead_letters_in_lake,
            "items": self.became["items"],
            "marks of consent and erasure, and their steps": self.became["marks"] + self.became["steps"],
            "no longer in the log when they were due": self.became["gone"],
            "unaccounted for": self.unaccounted,
        }
        return [f"{records:>12,}  {what}" for what, records in rows.items()]


def take_account(log: EventLog, lake: Lake) -> Account:
    """The account as it is now. While the lander runs, what lands meanwhile may count as waiting.

    Raises:
        EventLogUnavailable, LakeUnavailable: a store does not answer.
    """
    became, landed = Counter[str](), lake.landed(EVENTS)
    for tally in lake.tallies().values():
        became.update(tally)
    ends = log.end_offsets()
    waiting = sum(end - landed.get(partition, 0) for partition, end in ends.items())
    events = _column(lake, EVENTS, "event_id")
    duplicates = events.len() - events.n_unique()
    return Account(
        sum(ends.values()), waiting, became, events.len(), duplicates, _column(lake, DEAD_LETTERS, "at").len()
    )


def _column(lake: Lake, table: str, column: str) -> pl.Series:
    try:
        return lake.snapshot(table, [column]).rows[column]
    except LakeEmpty:
        return pl.Series(column, [], pl.String())
