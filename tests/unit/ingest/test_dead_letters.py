"""What could not be landed is read, put right by hand, and sent in again through all checks and the gate."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from infra.lake import EVENTS, ITEMS, Lake
from ingest.dead_letters import DeadLetters, LetterError, LetterId
from ingest.messages import verdicts_message

MakeEvent = Callable[..., dict[str, Any]]


class Desk:
    """Ingest with its lander, and whoever works on the dead letters."""

    def __init__(self, ingest: Any) -> None:
        self.ingest = ingest
        self.lake: Lake = ingest.lake
        self.letters = DeadLetters(self.lake, self.send)

    def send(self, method: str, path: str, body: Any) -> Any:
        if path == "/items":
            return verdicts_message(self.ingest.collector.register_items(body["items"]), "item_id")
        return verdicts_message(self.ingest.collector.collect(body["events"]), "event_id")

    def log(self, key: bytes, value: bytes) -> LetterId:
        """Put something into the log that no collector would, and land it."""
        [at] = self.ingest.log.append([(key, value)])
        self.land()
        return LetterId(*at)

    def land(self) -> None:
        self.ingest.land()

    def landed(self) -> list[str]:
        return self.lake.snapshot(EVENTS).rows["event_id"].to_list()


@pytest.fixture
def desk(ingest: Any) -> Desk:
    ingest.allow("u1")
    return Desk(ingest)


def broken(event: dict[str, Any]) -> bytes:
    return orjson.dumps({"kind": "event", **event, "item_id": 7, "receipt": 1, "accepted_at": event["occurred_at"]})


def test_without_dead_letters_there_is_nothing_to_list(desk: Desk) -> None:
    assert desk.letters.listed().is_empty()


def test_a_letter_is_listed_shown_put_right_and_replayed(desk: Desk, event: MakeEvent) -> None:
    sent = event(event_id="e1")
    letter = desk.log(b"u1", broken(sent))
    [row] = desk.letters.listed().to_dicts()
    assert (row["partition"], row["offset"], row["kept"]) == (*letter, True)
    shown = orjson.loads(orjson.dumps(desk.letters.shown(letter)))
    assert shown["record"] == {**sent, "item_id": 7}
    assert "item_id" in shown["reason"]
    shown["record"]["item_id"] = "m7"
    assert desk.letters.replay(shown) == "accepted"
    desk.land()
    assert desk.landed() == ["e1"]
    assert desk.letters.listed().is_empty()
    with pytest.raises(LetterError, match="no dead letter"):
        desk.letters.replay(shown)


def test_a_letter_that_is_refused_again_stays(desk: Desk, event: MakeEvent) -> None:
    letter = desk.log(b"u1", broken(event()))
    shown = desk.letters.shown(letter)
    assert desk.letters.replay(shown).startswith("invalid_event: ")
    shown["record"] |= {"item_id": "m7", "user_id": "stranger"}
    assert desk.letters.replay(shown).startswith("consent_missing")
    assert len(desk.letters.listed()) == 1


def test_who_withdrew_since_is_refused_by_the_gate(desk: Desk, event: MakeEvent) -> None:
    """Their letters go with the withdrawal; a file that somebody still has does not bring them back."""
    letter = desk.log(b"u1", broken(event()))
    shown = desk.letters.shown(letter)
    shown["record"]["item_id"] = "m7"
    desk.ingest.consents.withdraw("u1", "1", "test")
    assert desk.letters.replay(shown).startswith("consent_missing")
    desk.land()
    assert desk.letters.listed().is_empty()
    with pytest.raises(LetterError):
        desk.letters.replay(shown)


def test_what_is_no_json_is_shown_as_text_and_written_anew(desk: Desk, event: MakeEvent) -> None:
    letter = desk.log(b"u1", b'{"kind":"event", oops')
    shown = desk.letters.shown(letter)
    assert (shown["kind"], shown["record"], shown["text"]) == ("event", {}, '{"kind":"event", oops')
    assert desk.letters.replay({**shown, "record": event(event_id="e9")}) == "accepted"


def test_an_item_is_sent_in_as_an_item(desk: Desk) -> None:
    letter = desk.log(b"u1", b'{"kind":"item","item_id":"m9","hidden":"perhaps"}')
    shown = desk.letters.shown(letter)
    assert shown["kind"] == "item"
    shown["record"]["hidden"] = True
    assert desk.letters.replay(shown) == "accepted"
    desk.land()
    assert desk.lake.snapshot(ITEMS).rows["item_id"].to_list() == ["m9"]


def test_other_letters_stay_where_they_are(desk: Desk, event: MakeEvent) -> None:
    letters = [desk.log(b"u1", broken(event())) for _ in range(3)]
    shown = desk.letters.shown(letters[1])
    shown["record"]["item_id"] = "m7"
    desk.letters.replay(shown)
    assert {(row["partition"], row["offset"]) for row in desk.letters.listed().to_dicts()} == {letters[0], letters[2]}


@pytest.mark.parametrize(
    "document",
    [{}, {"id": "x"}, {"id": "0:99"}, {"id": "0:0", "kind": "erasure"}, {"id": "0:0", "kind": "event", "record": []}],
    ids=str,
)
def test_a_document_that_is_not_of_the_form_is_told_so(desk: Desk, document: dict[str, Any]) -> None:
    with pytest.raises(LetterError):
        desk.letters.replay({"kind": "event", "record": {}, **document})
