"""Every record of the log is accounted for, whatever becomes of it, and whoever is killed."""

from collections.abc import Callable
from typing import Any

import pytest

from infra.event_log.port import Record
from infra.lake import EVENTS, Lake, LakeConflict
from ingest import landing
from ingest.account import Account, take_account
from ingest.landing import Batch

MakeEvent = Callable[..., dict[str, Any]]


def account(ingest: Any) -> Account:
    return take_account(ingest.log, ingest.lake)


def everything_happens(ingest: Any, event: MakeEvent) -> None:
    """Six marks, two steps of an erasure, five events (one twice), an item, four letters."""
    for name in ("u1", "u2", "u3"):
        ingest.allow(name)
    twice = event()
    ingest.collector.collect([twice, event(), twice, event(user_id="u2")])
    ingest.collector.collect([event(user_id="u3"), event(user_id="stranger")])
    ingest.collector.register_items([{"item_id": "m1"}])
    ingest.log.append([(b"u1", b"bad"), (b"u2", b"bad"), (b"nobody", b"bad"), (b"u3", b"bad")])
    ingest.consents.withdraw("u2", "1", "test")


def test_an_empty_platform_has_nothing_to_account_for(ingest: Any) -> None:
    found = account(ingest)
    assert (found.records, found.waiting, found.unaccounted, found.in_lake) == (0, 0, 0, 0)


def test_every_record_is_one_thing_or_the_other(ingest: Any, event: MakeEvent) -> None:
    everything_happens(ingest, event)
    waiting = account(ingest)
    assert (waiting.records, waiting.waiting, waiting.unaccounted) == (14, 14, 0)
    ingest.land()
    found = account(ingest)
    assert (found.records, found.waiting, found.unaccounted) == (14, 0, 0)
    assert +found.became == {"events": 4, "dropped": 2, "dead_letters": 3, "items": 1, "marks": 4}
    assert (found.in_lake, found.duplicates, found.forgotten, found.dead_letters_in_lake) == (4, 1, 0, 3)
    ingest.consents.withdraw("u1", "1", "test")
    ingest.consents.erase("u3", "1", "test")
    ingest.land()
    found = account(ingest)
    assert (found.waiting, found.unaccounted) == (0, 0)
    assert (found.in_lake, found.duplicates, found.forgotten, found.dead_letters_in_lake) == (0, 0, 4, 1)


def test_what_landed_in_several_commits_adds_up(ingest: Any, event: MakeEvent) -> None:
    ingest.allow("u1")
    for _ in range(3):
        ingest.collector.collect([event(), event()])
        ingest.land()
    found = account(ingest)
    assert (found.became["events"], found.unaccounted, found.in_lake) == (6, 0, 6)


def test_a_commit_that_another_lander_was_faster_with_counts_once(ingest: Any, event: MakeEvent) -> None:
    everything_happens(ingest, event)

    class Late(Lake):
        def append(self, table: str, *arguments: Any) -> None:
            super().append(table, *arguments)
            if table == EVENTS and not raced:
                raced.append(True)
                raise LakeConflict("the answer was lost")

    raced: list[bool] = []
    ours, ingest.lake = ingest.lake, Late(str(ingest.folder / "lake"))
    with pytest.raises(LakeConflict):
        ingest.land()
    ingest.lake = ours
    ingest.land()
    assert account(ingest).unaccounted == 0
    assert account(ingest).became.total() == 14


def test_a_lander_that_loses_a_record_is_found(ingest: Any, event: MakeEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a record that is passed over in silence, as by a reader that skips what it does not understand."""
    everything_happens(ingest, event)
    sort = Batch._sort

    def forgetful(self: Batch, record: Record) -> None:
        if record.value != b"bad":
            sort(self, record)

    monkeypatch.setattr(landing.Batch, "_sort", forgetful)
    ingest.land()
    assert account(ingest).unaccounted == 4


def test_a_lander_that_counts_what_it_does_not_land_is_found(
    ingest: Any, event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events that are neither in the lake nor forgotten by anybody show as forgotten, though nobody withdrew."""
    ingest.allow("u1")
    ingest.collector.collect([event()])
    monkeypatch.setattr("ingest.lander.event_rows", lambda events: landing.event_rows([]))
    ingest.land()
    assert account(ingest).forgotten == 1
    assert account(ingest).became["marks"] == 1
