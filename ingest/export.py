"""What is stored of a person, as it is stored: for that person to have, and for `marquee load export` to take back.

One JSON object a line, told apart by `kind`: the person, every receipt, every event in the lake, every dead letter, and
the history that lists are made from.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any, cast

import orjson
import polars as pl

from infra.lake import Lake, LakeEmpty
from infra.online_store import OnlineStore, OnlineStoreError
from ingest.consent import Consents
from ingest.events import ConsentUnavailable
from ingest.messages import ReceiptMessage

HISTORY_KEY = "{{histories}}:of:{user_id}"
"""As `training.bundle.history_key` has it: JSON, a list of [ms since 1970, weight, item_id]. Nearline writes it."""

LINES_AT_ONCE = 500


class Exports:
    """Reads what every store of the platform holds of one person.

    Args:
        lake: events and dead letters.
        consents: receipts.
        store: the online store, with the history.
    """

    def __init__(self, lake: Lake, consents: Consents, store: OnlineStore) -> None:
        self._lake = lake
        self._consents = consents
        self._store = store

    def of(self, user_id: str) -> Iterator[bytes] | None:
        """Lines of JSON, some at a time; None when nothing is stored.

        Raises:
            LedgerUnavailable, ConsentUnavailable, LakeUnavailable: a store does not answer.
        """
        _, receipts = self._consents.current(user_id)
        events, letters, history = self._rows(user_id), self._letters(user_id), self._history(user_id)
        if not (receipts or history or events.height or letters.height):
            return None
        return _lines(
            [{"kind": "person", "user_id": user_id}],
            ({"kind": "receipt", **ReceiptMessage.of(receipt).model_dump()} for receipt in receipts),
            ({"kind": "event", **row} for row in events.iter_rows(named=True)),
            ({"kind": "dead_letter", **_text(row)} for row in letters.iter_rows(named=True)),
            ({"kind": "history", "at_ms": at, "weight": weight, "item_id": item} for at, weight, item in history),
        )

    def _rows(self, user_id: str) -> pl.DataFrame:
        try:
            return self._lake.events_of(user_id)
        except LakeEmpty:
            return pl.DataFrame()

    def _letters(self, user_id: str) -> pl.DataFrame:
        try:
            return self._lake.dead_letters_of(user_id.encode())
        except LakeEmpty:
            return pl.DataFrame()

    def _history(self, user_id: str) -> list[Any]:
        try:
            value = cast("bytes | None", self._store.get(HISTORY_KEY.format(user_id=user_id)))
        except OnlineStoreError as error:
            raise ConsentUnavailable(f"the online store does not answer: {type(error).__name__}") from error
        return [] if value is None else cast("list[Any]", orjson.loads(value))


def _lines(*parts: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Some lines at a time: each piece that is sent costs a change of threads."""
    rows = chain.from_iterable(parts)
    while piece := list(islice(rows, LINES_AT_ONCE)):
        yield b"".join(orjson.dumps(row, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE) for row in piece)


def _text(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "key": row["key"].decode("utf-8", "replace"), "value": row["value"].decode("utf-8", "replace")}
