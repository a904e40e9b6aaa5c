"""The checker finds each kind of anomaly, and nothing where there is none."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from ingest.account import Account
from tests.chaos.checker import Evidence, check
from tests.chaos.outage import Outage

LOGGED = {"partition": pl.Int32(), "offset": pl.Int64(), "event_id": pl.String(), "user_id": pl.String()}
NUMBERS = {"at_ms": pl.Int64(), "receipt": pl.Int64()}


def whole() -> Evidence:
    """u1 sent three events, one of them twice; u2 sent one and withdrew it; a mark and something broken are logged."""
    logged = [
        (0, 0, "u1:0", "u1", 0, 1),
        (0, 1, "u1:1", "u1", 1, 1),
        (0, 2, "u1:2", "u1", 2, 1),
        (0, 3, "u1:1", "u1", 1, 1),
        (1, 0, "u2:0", "u2", 0, 2),
    ]
    rows = [(p, o, event, receipt) for p, o, event, user, _, receipt in logged if user == "u1"]
    became = Counter(events=4, dropped=1, marks=1, dead_letters=1)
    return Evidence(
        acknowledged=pl.Series(["u1:0", "u1:1", "u1:2", "u2:0"]),
        forbidden=(),
        logged=pl.DataFrame(logged, schema={**LOGGED, **NUMBERS}, orient="row"),
        other_records=2,
        broken=1,
        revoked=pl.DataFrame({"user_id": ["u1", "u2"], "revoked": [0, 3]}),
        lake=pl.DataFrame(
            rows,
            schema={**{k: v for k, v in LOGGED.items() if k != "user_id"}, "receipt": pl.Int64()},
            orient="row",
        ),
        learned=pl.DataFrame({"user_id": ["u1"] * 3, "at_ms": [0, 1, 2]}, schema_overrides={"at_ms": pl.Int64()}),
        account=Account(7, 0, became, in_lake=4, duplicates=1, dead_letters_in_lake=1),
    )


def test_what_was_refused_at_first_may_come_late() -> None:
    late = replace(whole(), logged=swapped(whole().logged), lake=swapped(whole().lake))
    assert check(late).out_of_order == 1
    assert check(replace(late, refused=pl.Series(["u1:1"]))).out_of_order == 0


def test_where_all_is_well_nothing_is_found() -> None:
    findings = check(whole())
    assert findings.whole
    assert findings.examples == {}
    assert findings.figures["withdrawn_events"] == 1


def acknowledged(evidence: Evidence, event: str) -> Evidence:
    return replace(evidence, acknowledged=pl.concat([evidence.acknowledged, pl.Series([event])]))


def without(frame: pl.DataFrame, row: int) -> pl.DataFrame:
    return pl.concat([frame[:row], frame[row + 1 :]])


def in_the_lake(evidence: Evidence, *row: Any) -> Evidence:
    more = pl.DataFrame([row], schema=evidence.lake.schema, orient="row")
    lake = pl.concat([evidence.lake, more])
    ids = lake["event_id"]
    account = evidence.account._replace(in_lake=lake.height, duplicates=ids.len() - ids.n_unique())
    return replace(evidence, lake=lake, account=account)


def learned(evidence: Evidence, user: str, at_ms: int) -> Evidence:
    more = pl.DataFrame([(user, at_ms)], schema=evidence.learned.schema, orient="row")
    return replace(evidence, learned=pl.concat([evidence.learned, more]))


def missing_in_the_lake(evidence: Evidence) -> Evidence:
    became = evidence.account.became
    account = evidence.account._replace(in_lake=3, became=became)
    return replace(evidence, lake=without(evidence.lake, 2), account=account)


def swapped(frame: pl.DataFrame) -> pl.DataFrame:
    """What was second stands where the third was, and the other way round."""
    ids = pl.col("event_id").replace({"u1:1": "u1:2", "u1:2": "u1:1"})
    times = [pl.col("at_ms").replace({1: 2, 2: 1})] if "at_ms" in frame.columns else []
    return frame.with_columns(ids, *times)


def account_of(change: Callable[[Account], Account]) -> Callable[[Evidence], Evidence]:
    return lambda evidence: replace(evidence, account=change(evidence.account))


@pytest.mark.parametrize(
    ("kind", "count", "spoil"),
    [
        ("lost", 1, lambda e: acknowledged(e, "u1:9")),
        ("lost", 1, missing_in_the_lake),
        ("lost", 1, lambda e: replace(e, learned=without(e.learned, 1))),
        ("duplicated", 1, lambda e: in_the_lake(e, 0, 2, "u1:2", 1)),
        ("duplicated", 1, lambda e: learned(e, "u1", 2)),
        ("false_202", 1, lambda e: replace(e, forbidden=("u2:7",))),
        ("kept", 1, lambda e: in_the_lake(e, 1, 0, "u2:0", 2)),
        ("kept", 1, lambda e: learned(e, "u2", 0)),
        ("invented", 1, lambda e: in_the_lake(e, 3, 9, "u1:9", 1)),
        ("invented", 1, lambda e: learned(e, "u3", 0)),
        ("out_of_order", 1, lambda e: replace(e, logged=swapped(e.logged), lake=swapped(e.lake))),
        ("unaccounted", 2, account_of(lambda a: a._replace(waiting=1))),
        ("unaccounted", 2, account_of(lambda a: a._replace(became=a.became - Counter(dropped=1)))),
        ("unaccounted", 1, account_of(lambda a: a._replace(in_lake=3))),
        ("unaccounted", 1, account_of(lambda a: a._replace(duplicates=0))),
    ],
)
def test_each_anomaly_is_found_and_named(kind: str, count: int, spoil: Callable[[Evidence], Evidence]) -> None:
    findings = check(spoil(whole()))
    kinds = ("lost", "duplicated", "false_202", "kept", "invented", "out_of_order", "unaccounted")
    assert {name: getattr(findings, name) for name in kinds} == {**dict.fromkeys(kinds, 0), kind: count}
    assert not findings.whole


def test_a_row_under_the_receipt_of_a_later_grant_is_expected() -> None:
    """u2 allows it again and sends once more: that event may not be missing."""
    evidence = acknowledged(whole(), "u2:1")
    again = pl.DataFrame([(1, 1, "u2:1", "u2", 1, 4)], schema=evidence.logged.schema, orient="row")
    assert check(replace(evidence, logged=pl.concat([evidence.logged, again]))).lost == 2


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"answers": {503: 9, 0: 1}}, "something else"),
        ({"answers": {}}, "something else"),
        ({"slowest_503_seconds": 2.5}, "too long"),
        ({"false_202": 1}, "called accepted"),
        ({"duplicated": 1}, "twice"),
        ({"rss_most_mb": 400.0}, "memory grew"),
        ({"rss_late_growth_mb": 20.0}, "went on growing"),
    ],
)
def test_an_outage_that_breaks_a_promise_says_which(changes: dict[str, Any], what: str) -> None:
    fine = Outage(10.0, {503: 9}, 1.5, 0, 0, 200.0, 210.0, 5.0, 0.5, 100)
    assert fine.broken == []
    [said] = replace(fine, **changes).broken
    assert what in said
