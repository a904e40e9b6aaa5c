"""Compares what was acknowledged with log, lake and training read, in the style of Jepsen's checkers.

An acknowledged event has to be in the log. A record of the log whose receipt is newer than its person's last withdrawal
has to be in the lake at its place, once; any other must not be. And of every event that is in the lake the training
read has one act, however often it was sent.
"""

from dataclasses import dataclass, field

import polars as pl

from ingest.account import Account

SHOWN = 5
PLACE = ["partition", "offset"]
ACT = ["user_id", "at_ms"]


@dataclass(frozen=True)
class Evidence:
    """What is to be compared.

    Attributes:
        acknowledged: event_id of every event that was called accepted; one row an event.
        forbidden: event_ids that were called accepted though they were sent after a withdrawal's answer.
        logged: partition, offset, event_id, user_id, at_ms, receipt of every record that is an event.
        other_records: records of the log that are no events.
        broken: of these, the ones that are no records of ours.
        revoked: user_id, revoked: the number of the last receipt that withdrew.
        lake: partition, offset, event_id, receipt of every row.
        learned: user_id, at_ms of every act that training reads.
        account: what the platform itself says became of the log's records.
        refused: event_ids that were refused once. Sent again, and allowed by then, they come after newer ones.
    """

    acknowledged: pl.Series
    forbidden: tuple[str, ...]
    logged: pl.DataFrame
    other_records: int
    broken: int
    revoked: pl.DataFrame
    lake: pl.DataFrame
    learned: pl.DataFrame
    account: Account
    refused: pl.Series = field(default_factory=lambda: pl.Series([], dtype=pl.String))


@dataclass(frozen=True)
class Findings:
    """Numbers of anomalies, and what else was counted.

    Attributes:
        lost: acknowledged events that are not in the log; records of it that are missing in lake or training read.
        duplicated: rows of the lake beyond the first of a record; acts that are read beyond the first of an event.
        false_202: events that were accepted though they had been withdrawn.
        kept: rows of the lake, or acts, that were withdrawn.
        invented: rows or acts that nobody sent.
        out_of_order: events that stand in the log before one that the same person did, and sent, earlier.
        unaccounted: how far the platform's own account is from what was found.
        examples: kind → some of what was found.
        figures: numbers of the account.
    """

    lost: int
    duplicated: int
    false_202: int
    kept: int
    invented: int
    out_of_order: int
    unaccounted: int
    examples: dict[str, list[str]] = field(default_factory=dict)
    figures: dict[str, int] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Nothing was found."""
        return not (
            self.lost
            or self.duplicated
            or self.false_202
            or self.kept
            or self.invented
            or self.out_of_order
            or self.unaccounted
        )


def check(evidence: Evidence) -> Findings:
    """What is wrong."""
    e, examples = evidence, _Examples()
    logged = e.logged.join(e.revoked, on="user_id", how="left").with_columns(pl.col("revoked").fill_null(0))
    covered = logged.filter(pl.col("receipt") > pl.col("revoked"))
    places, rows = covered.select(*PLACE, "event_id"), e.lake.select(*PLACE, "event_id")
    expected = covered.select("event_id", *ACT).unique()
    withdrawn = logged.filter(pl.col("receipt") <= pl.col("revoked"))
    surplus = rows.join(places, on=rows.columns, how="anti")
    acts = e.learned.join(expected, on=ACT, how="anti")
    lost = [
        examples.of("acknowledged and not in the log", _missing(e.acknowledged, logged["event_id"])),
        examples.of("in the log and not in the lake", places.join(rows, on=rows.columns, how="anti")["event_id"]),
        examples.of("not in the training read", expected.join(e.learned, on=ACT, how="anti")["event_id"]),
    ]
    duplicated = [
        examples.of("twice in the lake", _again(rows, PLACE)["event_id"]),
        examples.of("twice in the training read", _again(e.learned, ACT)["user_id"]),
    ]
    kept = [
        examples.of("in the lake though withdrawn", surplus.join(withdrawn, on=PLACE, how="semi")["event_id"]),
        examples.of("in the training read though withdrawn", acts.join(withdrawn, on=ACT, how="semi")["user_id"]),
    ]
    invented = [
        examples.of("in the lake, sent by nobody", surplus.join(withdrawn, on=PLACE, how="anti")["event_id"]),
        examples.of("in the training read, sent by nobody", acts.join(withdrawn, on=ACT, how="anti")["user_id"]),
    ]
    examples.of("accepted after a withdrawal", pl.Series(e.forbidden, dtype=pl.String))
    disordered = examples.of("out of order", _out_of_order(e.logged, e.refused)["event_id"])
    counted = sum(lost), sum(duplicated), len(e.forbidden), sum(kept), sum(invented), disordered
    return Findings(*counted, _unaccounted(e), examples.found, _figures(e, withdrawn))


class _Examples:
    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def of(self, kind: str, which: pl.Series) -> int:
        """Note some of them; returns how many there are."""
        if which.len():
            self.found[f"{which.len()} {kind}"] = which.head(SHOWN).to_list()
        return which.len()


def _out_of_order(logged: pl.DataFrame, refused: pl.Series) -> pl.DataFrame:
    """Events, where each stands first, that an older one of the person stands behind. A person has one partition."""
    at_once = logged.filter(~pl.col("event_id").is_in(refused.implode()))
    first = at_once.sort("offset").unique("event_id", keep="first", maintain_order=True)
    return first.filter(pl.col("at_ms") < pl.col("at_ms").cum_max().over("user_id"))


def _again(rows: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Rows beyond the first one of its kind."""
    return rows.filter(~pl.struct(columns).is_first_distinct())


def _missing(wanted: pl.Series, there: pl.Series) -> pl.Series:
    return wanted.filter(~wanted.is_in(there.unique().implode()))


def _unaccounted(e: Evidence) -> int:
    a, became = e.account, e.account.became
    return sum(
        abs(difference)
        for difference in (
            a.waiting,
            a.unaccounted,
            a.records - e.logged.height - e.other_records,
            became["events"] + became["dropped"] + became["dead_letters"] - e.logged.height - e.broken,
            became["gone"],
            a.in_lake - e.lake.height,
            a.duplicates - (e.lake.height - e.lake["event_id"].n_unique()),
        )
    )


def _figures(e: Evidence, withdrawn: pl.DataFrame) -> dict[str, int]:
    became = e.account.became
    return {
        "records_in_the_log": e.account.records,
        "events_in_the_log": e.logged.height,
        "landed": became["events"],
        "in_the_lake": e.account.in_lake,
        "sent_more_than_once_and_landed": e.account.duplicates,
        "withdrawn_events": withdrawn.height,
        "dropped_on_withdrawal": became["dropped"],
        "forgotten_on_withdrawal": e.account.forgotten,
        "dead_letters": became["dead_letters"],
        "acts_in_the_training_read": e.learned.height,
    }
