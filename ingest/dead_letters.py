"""Dead letters: records of the log that could not be landed. They are read, put right by hand, and sent in again.

A letter's bytes are kept only of people who allow personalization (`ingest.landing`). What is sent in again takes the
way of every event: it is checked, goes through the gate, and stands in the log under the receipt of today.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import polars as pl

from infra.lake import DEAD_LETTERS, TABLES, Lake, LakeEmpty
from ingest.collector import ACCEPTED

SET_BY_THE_PLATFORM = frozenset({"kind", "receipt", "accepted_at"})
ROUTES = {"event": ("POST", "/events", "events"), "item": ("PUT", "/items", "items")}
"""kind → how it is sent in: method, path, name of the batch."""

Send = Callable[[str, str, Mapping[str, Any]], Mapping[str, Any]]
"""Method, path and body → the answer, verdicts included where there are any."""


class LetterError(Exception):
    """There is no such letter, or it cannot be sent in; the message says what to do."""


class LetterId(NamedTuple):
    """Where the record stood in the log."""

    partition: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> "LetterId":
        """From PARTITION:OFFSET.

        Raises:
            LetterError: it is none.
        """
        found = re.fullmatch(r"(\d{1,9}):(\d{1,18})", text)
        if found is None:
            raise LetterError(f"{text!r} is no letter's id: `marquee dead-letters list` shows them as PARTITION:OFFSET")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


class DeadLetters:
    """The letters in the lake.

    Args:
        lake: where they are.
        send: calls the ingest API.
    """

    def __init__(self, lake: Lake, send: Send) -> None:
        self._lake = lake
        self._send = send

    def listed(self) -> pl.DataFrame:
        """Columns partition, offset, at, reason and `kept`: whether its bytes are there. Newest first.

        Raises:
            LakeUnavailable: the lake does not answer.
        """
        kept = (pl.col("value").bin.size() > 0).alias("kept")
        return self._rows().select("partition", "offset", "at", "reason", kept).sort("at", "partition", "offset")[::-1]

    def shown(self, letter: LetterId) -> dict[str, Any]:
        """The letter as a document to be edited: `record` is what is sent in again, as its `kind`.

        Raises:
            LetterError: there is none of that id.
            LakeUnavailable: the lake does not answer.
        """
        row = self._row(letter)
        record = _object(row["value"])
        kind = record.get("kind")
        return {
            "id": str(letter),
            "at": row["at"],
            "reason": row["reason"],
            "kind": kind if kind in ROUTES else "event",
            "record": {name: value for name, value in record.items() if name not in SET_BY_THE_PLATFORM},
            "text": row["value"].decode("utf-8", "replace"),
        }

    def replay(self, document: Mapping[str, Any]) -> str:
        """Send a letter in again, as it was put right, and take it out of the lake once it is accepted.

        Args:
            document: as `shown` gave it, edited; only `id`, `kind` and `record` are looked at.

        Returns:
            The verdict: `accepted`, or why it stays where it is.

        Raises:
            LetterError: there is none of that id, or the document is not of the form.
            LakeUnavailable: the lake does not answer.
        """
        letter = LetterId.parse(str(document.get("id")))
        kind, record = document.get("kind"), document.get("record")
        if kind not in ROUTES or not isinstance(record, dict):
            raise LetterError('`kind` has to be "event" or "item", and `record` an object: marks are not sent in again')
        self._row(letter)
        method, path, batch = ROUTES[kind]
        [verdict] = self._send(method, path, {batch: [record]})["verdicts"]
        if verdict["code"] == ACCEPTED:
            self._lake.remove_dead_letter(*letter)
            return ACCEPTED
        return f"{verdict['code']}: {verdict.get('detail', '')}"

    def _row(self, letter: LetterId) -> dict[str, Any]:
        rows = self._rows().filter(partition=letter.partition, offset=letter.offset)
        if rows.is_empty():
            raise LetterError(f"There is no dead letter {letter}: see `marquee dead-letters list`")
        return rows.row(0, named=True)

    def _rows(self) -> pl.DataFrame:
        try:
            return self._lake.snapshot(DEAD_LETTERS).rows
        except LakeEmpty:
            return pl.DataFrame(schema=dict(TABLES[DEAD_LETTERS]))


def read_document(file: Path) -> Mapping[str, Any]:
    """A letter as `marquee dead-letters show` printed it and somebody edited it.

    Raises:
        LetterError: the file cannot be read, or holds something else.
    """
    try:
        document = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise LetterError(f"{file} cannot be read: {error}") from None
    if not isinstance(document, dict):
        raise LetterError(f"{file} holds no letter as `marquee dead-letters show` prints it")
    return document


def _object(value: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
