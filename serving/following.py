"""The versions whose live lists nearline writes: the one that is served, and the next one while it is published.

The lists that training publishes know nothing of what came after the snapshot's watermark. So a version's live lists
are written from there on, and `{version}:caught-up:{n}` tells the publisher of which partitions they stand.
"""

from collections.abc import Collection, Iterable, Mapping
from itertools import islice

from infra.event_log.port import Record
from infra.online_store import OnlineStore
from serving.versions import Published, Versions
from training.bundle import caught_up_key

CAUGHT_UP_SECONDS = 3600


class Following:
    """Which versions are followed, and up to where their live lists are written.

    Args:
        store: the online store.
        versions: loads the published ones.
    """

    def __init__(self, store: OnlineStore, versions: Versions) -> None:
        self._store = store
        self._versions = versions
        self._current: Published | None = None
        self._next: Published | None = None
        self._written: dict[int, dict[int, int]] = {}
        self._awaited: dict[int, dict[str, int]] = {}
        self._asked: int | None = None
        self._told: set[int] = set()

    @property
    def versions(self) -> tuple[Published, ...]:
        """The served one, and the next one where there is one."""
        return tuple(each for each in (self._current, self._next) if each is not None)

    def follow(self, current: bytes | None, coming: bytes | None, done: Mapping[int, int]) -> None:
        """Take over what the pointers name. A version that cannot be read changes nothing.

        Args:
            current: value of `{version}:current`; None: whatever is in use stays.
            coming: value of `{version}:next`.
            done: partition → offset up to which the group has folded its events into histories.
        """
        if current is not None and not _is(self._current, current) and (found := self._find(current)):
            self._current = found
            self._versions.use(found)
        if coming is None or _is(self._current, coming):
            self._next = None
        elif not _is(self._next, coming):
            self._next = self._find(coming)
        asked = next((each.version for each in self.versions if coming is not None and _is(each, coming)), None)
        if asked != self._asked:
            self._asked, self._told = asked, set()
        followed = {each.version: each for each in self.versions}
        self._written = {version: self._written.get(version, {}) for version in followed}
        self._awaited = {version: self._awaited.get(version, {}) for version in followed}
        for version, written in self._written.items():
            for partition in done.keys() - written.keys():
                written[partition] = _start(followed[version], partition, done[partition])

    def begin(self, partition: int, done: int) -> None:
        """Write a partition's live lists from the watermarks on: who wrote them before may not have come to the end."""
        for published in self.versions:
            self._written[published.version][partition] = _start(published, partition, done)

    def position(self, partition: int, done: int) -> int:
        """Offset from which some version's live lists need the partition."""
        return min([done, *(written.get(partition, done) for written in self._written.values())])

    def needing(self, record: Record) -> tuple[Published, ...]:
        """The versions whose live lists do not know of a record yet."""
        at = record.partition, record.offset
        return tuple(each for each in self.versions if at[1] >= self._written[each.version].get(at[0], 0))

    def await_list(self, user_id: str, partition: int, versions: Iterable[Published]) -> None:
        """Note that a person's live list of these versions is to be written: once, however much is replayed."""
        for published in versions:
            self._awaited[published.version][user_id] = partition

    def awaited(self, most: int) -> tuple[Published, list[str]] | None:
        """A version, the served one first, and some people whose live lists of it are to be written; None: nobody's."""
        for published in self.versions:
            if people := list(islice(self._awaited[published.version], most)):
                return published, people
        return None

    def came(self, published: Published, people: Iterable[str]) -> None:
        """Note that these people's live lists are written."""
        for person in people:
            self._awaited[published.version].pop(person, None)

    def keep(self, partitions: Collection[int]) -> None:
        """Await no lists of people of other partitions than these: they are another member's."""
        for version, people in self._awaited.items():
            self._awaited[version] = {person: p for person, p in people.items() if p in partitions}

    def wrote(self, after: Mapping[int, int]) -> None:
        """Note up to where live lists are written now, or awaited: partition → offset."""
        for written in self._written.values():
            written |= {p: max(offset, written.get(p, 0)) for p, offset in after.items()}

    def tell(self, done: Mapping[int, int], *, at_end: bool, again: bool) -> None:
        """Tell the publisher of which partitions the next version's live lists stand.

        Args:
            done: partition → offset up to which events are in histories.
            at_end: there is nothing left to read.
            again: also what was told before: another publisher of the same version may ask.
        """
        if self._asked is None:
            return
        written, waits = self._written[self._asked], {*self._awaited[self._asked].values()}
        there = {p for p, offset in done.items() if p not in waits and (at_end or written.get(p, 0) >= offset)}
        if new := there if again else there - self._told:
            tells = self._store.pipeline()
            tells.hset(caught_up_key(self._asked), mapping=dict.fromkeys(map(str, new), 1))
            tells.expire(caught_up_key(self._asked), CAUGHT_UP_SECONDS)
            tells.execute()
        self._told = there

    def _find(self, pointer: bytes) -> Published | None:
        known = (each for each in self.versions if _is(each, pointer))
        return next(known, None) or self._versions.read(pointer)


def _is(published: Published | None, pointer: bytes) -> bool:
    return published is not None and pointer == b"%d" % published.version


def _start(published: Published, partition: int, done: int) -> int:
    return min(done, published.bundle.manifest.snapshot.watermark.get(partition, 0))
