"""The items of the version that is served, in memory and ready to send; swapped whole when the version changes."""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, Self, TypeVar, cast

import numpy as np
import orjson

from ingest.events import ItemRules
from serving.filters import Filters, ItemFilters, Wanted
from training.bundle import Bundle

MOST_FILTERS = 64
"""Combinations of filters that are kept ready: callers choose their values, so there have to be bounds."""


_Kept = TypeVar("_Kept")


MOST_POPULAR = 1000
"""Popular items that are kept ready a combination of filters: a list with all that may be excluded, and more."""


class CorruptList(Exception):
    """A stored list that cannot be one of this version."""


class Votes(NamedTuple):
    """What people watch, as nearline counts it: item ids, best first."""

    popular: tuple[str, ...] = ()
    trending: tuple[str, ...] = ()


NO_VOTES = Votes()


class Items(NamedTuple):
    """The items of one version, rendered.

    Attributes:
        ids: (items,) what they are called.
        index_of: item_id → its index.
        fragments: (items,) JSON of each.
        filters: which of them the filters keep.
        popular: item indices, most popular first.
    """

    ids: Sequence[str]
    index_of: Mapping[str, int]
    fragments: Sequence[bytes]
    filters: ItemFilters
    popular: Sequence[int]

    @classmethod
    def render(
        cls,
        item_ids: Sequence[str],
        attributes: Sequence[Mapping[str, Any]],
        popular: Sequence[int],
        rules: ItemRules,
    ) -> Self:
        """Made once a version."""
        rows = zip(item_ids, attributes, strict=True)
        fragments = [orjson.dumps({"item_id": item_id, **of_item}) for item_id, of_item in rows]
        index_of = {item_id: index for index, item_id in enumerate(item_ids)}
        return cls(item_ids, index_of, fragments, ItemFilters(attributes, rules), popular)


NO_ITEMS = Items((), {}, (), ItemFilters((), ItemRules(attributes={})), ())


class Catalogue:
    """One version's items. It never changes: another version, other hidden items or other votes are another catalogue.

    Args:
        version: number of the version; 0 where none was taken over yet.
        bundle: its model; None where none was taken over yet.
        items: its items.
        hidden: ids of items that must not be shown.
        votes: what people watch now.
    """

    def __init__(
        self,
        version: int,
        bundle: Bundle | None,
        items: Items,
        hidden: frozenset[str] = frozenset(),
        votes: Votes = NO_VOTES,
    ) -> None:
        self.version = version
        self.bundle = bundle
        self.items = items
        self.hidden = hidden
        self.votes = votes
        self._shown: list[bytes | None] = list(items.fragments)
        for item_id in hidden & items.index_of.keys():
            self._shown[items.index_of[item_id]] = None
        self._shown_at = cast("Callable[[int], bytes]", self._shown.__getitem__)
        self._kept: dict[Filters, bytes] = {}
        self._popular_of_length: dict[int, bytes] = {}
        self._popular_kept: dict[Filters, list[int]] = {}

    @classmethod
    def of(
        cls,
        version: int,
        bundle: Bundle,
        rules: ItemRules,
        hidden: frozenset[str] = frozenset(),
    ) -> "Catalogue":
        """The catalogue of a published bundle; its items are rendered here, once."""
        table = bundle.items
        items = Items.render(table.item_ids, table.attributes, bundle.popular.tolist(), rules)
        return cls(version, bundle, items, hidden)

    def showing(self, hidden: frozenset[str], votes: Votes) -> "Catalogue":
        """The same version with other items hidden, or with other votes."""
        return Catalogue(self.version, self.bundle, self.items, hidden, votes)

    @property
    def categories(self) -> Sequence[str]:
        """Categories of the items, most frequent first."""
        return self.items.filters.categories

    def kept(self, wanted: Wanted) -> bytes:
        """(items,) one byte an item: 1 where it may be shown and passes the filters that are wanted, else 0."""
        if (kept := self._kept.get(wanted.filters)) is None:
            mask = self.items.filters.mask(wanted.filters)
            mask[[self.items.index_of[item_id] for item_id in self.hidden & self.items.index_of.keys()]] = False
            kept = mask.astype(np.uint8).tobytes()
            _keep(self._kept, wanted.filters, kept)
        return kept

    def pick(self, indices: Iterable[int], wanted: Wanted) -> list[int]:
        """The first `k` of `indices` that may be shown and are wanted; padding (-1) is left out.

        Raises:
            IndexError: this version has no such item.
        """
        kept, excluded = self.kept(wanted), self._excluded(wanted)
        found = (index for index in indices if index >= 0 and kept[index] and index not in excluded)
        return [index for index, _ in zip(found, range(wanted.k), strict=False)]

    def popular_for(self, wanted: Wanted) -> list[int]:
        """The `k` most popular items that may be shown and are wanted: by the votes, then by the model's own count."""
        kept = self._popular_kept.get(wanted.filters)
        if kept is None:
            kept = self.pick(self._by_popularity(), Wanted(MOST_POPULAR, wanted.filters))
            _keep(self._popular_kept, wanted.filters, kept)
        excluded = self._excluded(wanted)
        return [index for index in kept if index not in excluded][: wanted.k]

    @cached_property
    def trending(self) -> Sequence[int]:
        """Items that are watched now more than usually and may be shown, best first."""
        known = (self.items.index_of[item_id] for item_id in self.votes.trending if item_id in self.items.index_of)
        return [index for index in known if self._shown[index] is not None]

    def render(self, packed: bytes, k: int) -> bytes:
        """The first `k` items of a stored list that may be shown, as JSON joined by commas.

        Args:
            packed: the list, as `training.bundle.encode_list` made it.
            k: 1 to 100.

        Raises:
            CorruptList: it is no list of this version.
        """
        length = _length(packed)
        try:
            return b",".join(map(self._shown_at, _unpack(min(k, length)).unpack_from(packed)))
        except TypeError:  # one of them is hidden
            return self.join(self.unpack(packed, Wanted(k)))
        except IndexError:
            raise self._corrupt() from None

    def unpack(self, packed: bytes, wanted: Wanted) -> list[int]:
        """The first `k` items of a stored list that may be shown and are wanted.

        Raises:
            CorruptList: it is no list of this version.
        """
        try:
            return self.pick(_unpack(_length(packed)).unpack(packed), wanted)
        except IndexError:
            raise self._corrupt() from None

    def render_indices(self, indices: Iterable[int], k: int) -> bytes:
        """The first `k` of `indices` that may be shown, as JSON joined by commas; padding (-1) is left out."""
        return self.join(self.pick(indices, Wanted(k)))

    def popular(self, k: int) -> bytes:
        """The `k` most popular items that may be shown, as JSON joined by commas."""
        if k not in self._popular_of_length:
            self._popular_of_length[k] = self.join(self.popular_for(Wanted(k)))
        return self._popular_of_length[k]

    def join(self, indices: Iterable[int]) -> bytes:
        """The items' JSON joined by commas."""
        fragments = self.items.fragments
        return b",".join([fragments[index] for index in indices])

    def _by_popularity(self) -> Iterator[int]:
        index = self.items.index_of
        voted = dict.fromkeys(index[item_id] for item_id in self.votes.popular if item_id in index)
        yield from voted
        yield from (item for item in self.items.popular if item not in voted)

    def _excluded(self, wanted: Wanted) -> set[int]:
        index = self.items.index_of
        return {index[item_id] for item_id in wanted.exclude if item_id in index}

    def _corrupt(self) -> CorruptList:
        return CorruptList(f"a list names items that version {self.version} does not have")


def empty_catalogue() -> Catalogue:
    """What is served before any version was published."""
    return Catalogue(0, None, NO_ITEMS)


def _length(packed: bytes) -> int:
    length, rest = divmod(len(packed), 4)
    if rest:
        raise CorruptList(f"a list of {len(packed)} bytes is no list of 32-bit numbers")
    return length


def _keep(cache: dict[Filters, _Kept], filters: Filters, value: _Kept) -> None:
    if len(cache) >= MOST_FILTERS:  # looked at whole and popped softly: pages are made in threads, beside the hot path
        cache.pop(next(iter(list(cache))), None)
    cache[filters] = value


@lru_cache(1024)
def _unpack(length: int) -> struct.Struct:
    return struct.Struct(f"<{length}I")
