"""What nearline keeps of people in the online store: their histories and their live lists. It alone writes them.

A history and the votes that it stands for (see `serving.votes`) change in one transaction, which is begun again when
somebody else has changed one of its histories meanwhile: so votes are counted once, whatever is done twice, in another
order or by two members at a time. The set `histories` says whose votes are counted, and when they were written.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, cast

import orjson
import structlog

from infra.online_store import OnlineStore
from ingest.events import PopularityRules
from serving import votes
from serving.votes import Vote
from training.bundle import (
    COMPLETE,
    CURRENT,
    KEPT,
    LANDMARKS,
    POPULAR,
    TRENDING,
    WRITTEN,
    History,
    Indices,
    Interaction,
    add_to_history,
    decode_history,
    encode_history,
    encode_list,
    history_key,
    live_key,
)

SWEPT_AT_ONCE = 500
EARLY = 30
"""A history is swept away so early: in the last thirtieth of its lifetime. Redis itself cannot take its votes back."""

Acts = Mapping[str, Sequence[tuple[str, Interaction]]]
"""user_id → what the person did: item ids with times and weights."""


class _Known(NamedTuple):
    """What stands in the store.

    Attributes:
        histories: user_id → history; an empty one for who has none.
        written: user_id → when, in milliseconds since 1970; None for those whose votes are not counted.
        landmarks: board → landmark of its sums.
        foreign: the sums are made with other half-lives than ours.
    """

    histories: dict[str, History]
    written: dict[str, float | None]
    landmarks: dict[str, int]
    foreign: bool


class Histories:
    """Histories and live lists, many people a round trip.

    Args:
        store: the online store.
        history_ttl: seconds that a history lives without a new event.
        list_ttl: seconds that a live list lives.
        rules: how fast votes lose their weight.
        clock: milliseconds since 1970.
    """

    def __init__(
        self,
        store: OnlineStore,
        history_ttl: int,
        list_ttl: int,
        rules: PopularityRules,
        clock: Callable[[], float] = votes.now_ms,
    ) -> None:
        self._store = store
        self._history_ttl = history_ttl
        self._list_ttl = list_ttl
        self._boards = votes.boards(rules)
        self._clock = clock
        self._log = structlog.get_logger()

    def read(self, people: Sequence[str]) -> dict[str, History]:
        """user_id → history, of those who have one."""
        values = cast("list[bytes | None]", self._store.mget(list(map(history_key, people)))) if people else []
        found = {person: self._decode(value) for person, value in zip(people, values, strict=True)}
        return {person: history for person, history in found.items() if history}

    def add(self, acts: Acts, length: int) -> dict[str, History]:
        """Fold acts into their people's histories. Folding them again, in whatever order, changes nothing.

        Args:
            acts: what was done.
            length: the newest items of a person that stay.

        Returns:
            user_id → history as it is now.
        """

        def work(transaction: Any) -> Any:
            known = self._read(transaction, list(acts))
            changed, given = [], list[Vote]()
            for person, history in known.histories.items():
                before = dict(history)
                for item_id, seen in acts[person]:
                    add_to_history(history, item_id, seen, length)
                if known.written[person] is None:
                    given += votes.of(history, 1)
                elif before != history:
                    given += votes.changed(before, history, (item_id for item_id, _ in acts[person]))
                else:
                    continue
                changed.append(person)
            transaction.multi()
            if changed:
                self._queue(transaction, {person: known.histories[person] for person in changed}, known, given)
            return known.histories

        if not acts:
            return {}
        found = self._store.transaction(work, *_watched(list(acts)), value_from_callable=True)
        return cast("dict[str, History]", found)

    def write_live(self, version: int, lists: Mapping[str, Indices]) -> None:
        """Keep these lists (item indices, best first) as the live ones of `version`."""
        writes = self._store.pipeline(transaction=False)
        for person, indices in lists.items():
            writes.set(live_key(version, person), encode_list(indices), ex=self._list_ttl)
        writes.execute()

    def forget(self, people: Collection[str], versions: Collection[int]) -> dict[str, int]:
        """Delete the people's histories, their votes, and their live lists of every version that may have any.

        Args:
            people: user ids.
            versions: that nearline writes live lists of, whether or not they are kept any more.

        Returns:
            user_id → keys deleted and votes taken back.
        """
        return self._forget(list(people), versions, written_before=float("inf"))

    def sweep(self) -> int:
        """Forget some of the histories that are near the end of their lifetime; returns how many."""
        before = self._clock() - 1000 * self._history_ttl * (1 - 1 / EARLY)
        found = cast("list[bytes]", self._store.zrangebyscore(WRITTEN, "-inf", before, 0, SWEPT_AT_ONCE))
        return len(self._forget([person.decode() for person in found], (), before))

    def _forget(self, people: Sequence[str], versions: Collection[int], written_before: float) -> dict[str, int]:
        if not people:
            return {}
        versions = self._versions() | set(versions)
        taken: dict[str, list[Vote]] = {}

        def work(transaction: Any) -> None:
            known = self._read(transaction, people)
            going = [person for person in people if (known.written[person] or 0) <= written_before]
            taken.clear()
            taken.update((p, votes.of(known.histories[p], -1) if known.written[p] is not None else []) for p in going)
            transaction.multi()
            for person in going:
                transaction.delete(history_key(person))
            if going:
                transaction.zrem(WRITTEN, *going)
                self._queue_votes(transaction, known, [vote for some in taken.values() for vote in some])

        deleted = cast("list[int]", self._store.transaction(work, *_watched(people)))
        lists = self._unlink_live(list(taken), versions)
        return {p: len(some) + count + lists[p] for (p, some), count in zip(taken.items(), deleted, strict=False)}

    def _unlink_live(self, people: Sequence[str], versions: Collection[int]) -> dict[str, int]:
        """user_id → live lists that were deleted."""
        unlinks = self._store.pipeline(transaction=False)
        for person in people:
            for version in versions:
                unlinks.unlink(live_key(version, person))
        done = iter(cast("list[int]", unlinks.execute()))
        return {person: sum(islice(done, len(versions))) for person in people}

    def _read(self, reads: Any, people: Sequence[str]) -> _Known:
        # A cluster's client has no `mget` in a transaction, though the store has.
        landmarks, *values = reads.execute_command("MGET", LANDMARKS, *map(history_key, people))
        histories = {person: self._decode(value) for person, value in zip(people, values, strict=True)}
        written = dict(zip(people, reads.zmscore(WRITTEN, list(people)), strict=True))
        found: dict[str, list[float]] = {} if landmarks is None else orjson.loads(landmarks)
        if any(found.get(board.key, [board.half_life_ms])[0] != board.half_life_ms for board in self._boards):
            return _Known(histories, dict.fromkeys(people), {}, foreign=True)
        return _Known(histories, written, {key: int(landmark) for key, (_, landmark) in found.items()}, foreign=False)

    def _queue(self, writes: Any, histories: Mapping[str, History], known: _Known, given: Sequence[Vote]) -> None:
        if known.foreign:
            self._log.warning("half-lives have changed: all votes are counted anew")
            writes.delete(POPULAR, TRENDING, LANDMARKS, WRITTEN, COMPLETE)
        for person, history in histories.items():
            writes.set(history_key(person), encode_history(history), ex=self._history_ttl)
        writes.zadd(WRITTEN, dict.fromkeys(histories, self._clock()))
        self._queue_votes(writes, known, given)

    def _queue_votes(self, writes: Any, known: _Known, given: Sequence[Vote]) -> None:
        if known.foreign and not given:
            return
        now_ms = self._clock()
        boards = [board.at(now_ms, known.landmarks.get(board.key)) for board in self._boards]
        for board in boards:
            votes.queue(writes, board, known.landmarks.get(board.key), given, now_ms)
        # Only where one moved: whoever writes another history at this moment would have to begin again.
        if known.landmarks != {board.key: board.landmark for board in boards}:
            writes.set(LANDMARKS, orjson.dumps({board.key: (board.half_life_ms, board.landmark) for board in boards}))

    def _decode(self, value: bytes | None) -> History:
        try:
            return decode_history(value)
        except ValueError:
            self._log.error("a history could not be read and is begun anew")
            return {}

    def _versions(self) -> set[int]:
        reads = self._store.pipeline(transaction=False)
        reads.smembers(KEPT)
        reads.get(CURRENT)
        kept, current = reads.execute()
        return {int(version) for version in kept} | ({int(current)} if current else set())


def _watched(people: Sequence[str]) -> list[str]:
    return [LANDMARKS, *map(history_key, people)]
