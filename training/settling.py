"""What acts come to, by the rule of `training.bundle.add_to_history`, for everybody at once.

Of a person's acts with an item the newest decides, of two as new the heavier; the `length` newest items stay. The acts
are worked on in place, some people at a time, so that they take their memory once.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from infra.ahead import ahead
from training.acts import Acts
from training.ordering import order_by
from training.packed import PackedHistories, Times

AT_ONCE = 1 << 17
"""Acts that are sorted at once, or those of one person where they are more."""
SORTERS = 2
OUTSIDE = -1
"""Index of an item that is not in the catalogue."""

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Block(NamedTuple):
    """Acts in the order of person, item, time and weight; (acts,) each.

    Attributes:
        user: number of the person; in `Settled` a smaller one, of those who stay.
        item: index of the item.
        at_ms: milliseconds since 1970.
        weight: place in `Acts.weights`; in `Settled`, what it weighs.
    """

    user: npt.NDArray[np.signedinteger]
    item: npt.NDArray[np.int32]
    at_ms: Numbers
    weight: npt.NDArray[Any]

    def where(self, those: Flags | Numbers) -> "Block":
        """Some of them."""
        return Block(self.user[those], self.item[those], self.at_ms[those], self.weight[those])


@dataclass(frozen=True)
class Settled:
    """Histories, by what they say.

    Attributes:
        stay: (users of the acts,) who has a history. All rows and numbers below are of those who do.
        liked: (users, items) the items with a weight above 0.
        seen: (users, items) those that were seen but speak for nothing; its values are 0.
        older: acts that count no more: a newer one with the same item does, or there are too many newer items.
    """

    stay: Flags
    liked: PackedHistories
    seen: PackedHistories
    older: Block


def settle(acts: Acts, item_index: npt.NDArray[np.int32], items: int, length: int) -> Settled:
    """The histories of these acts.

    Args:
        acts: they are spent: their arrays are written over.
        item_index: (items met,) index of each of `acts.items` in the catalogue, or OUTSIDE.
        items: of the catalogue.
        length: the newest items of a person that stay.
    """
    liked = np.zeros(len(acts.users), np.int64)
    zeros, older = [_NOTHING], [_NOTHING]
    free = 0
    with ThreadPoolExecutor(SORTERS, "settle") as beside:
        sorting = (beside.submit(_sorted, acts, item_index, people) for people in _blocks(acts.bounds))
        for block in (future.result() for future in ahead(sorting, SORTERS)):
            counts = _newest(block)
            counts[counts] = _within(block.where(counts), length)
            likes = counts & (acts.weights[block.weight] > 0)
            zeros.append(block.where(counts & ~likes))
            older.append(block.where(~counts))
            # The blocks that are sorted meanwhile lie behind the places of this one, which are written over.
            free = _put(acts, block.where(likes), free)
            np.add.at(liked, block.user[likes], 1)
    return _settled(acts, liked, _joined(zeros), _joined(older), items)


def _settled(acts: Acts, liked: Numbers, zeros: Block, older: Block, items: int) -> Settled:
    seen = np.bincount(zeros.user, minlength=len(liked))
    stay = liked + seen > 0
    number = np.cumsum(stay) - 1
    weights = acts.weights.astype(np.float32)
    count = int(liked.sum())
    data = weights[acts.weight[:count]]
    acts.item.resize(count, refcheck=False)
    acts.times.shrink(count)
    return Settled(
        stay,
        PackedHistories(_csr(data, acts.item, liked[stay], items), acts.times),
        PackedHistories(_csr(weights[zeros.weight], zeros.item, seen[stay], items), Times.of(zeros.at_ms)),
        older._replace(user=number[older.user].astype(np.int32), weight=weights[older.weight]),
    )


def _csr(
    data: npt.NDArray[np.float32], indices: npt.NDArray[np.int32], lengths: Numbers, items: int
) -> sparse.csr_matrix:
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return sparse.csr_matrix((data, indices, indptr), shape=(len(lengths), items))


def _blocks(bounds: Numbers) -> Iterator[tuple[int, int]]:
    """First person of each block, and the first one after it."""
    first = 0
    while first < len(bounds) - 1:
        last = max(first + 1, int(np.searchsorted(bounds, bounds[first] + AT_ONCE, "right")) - 1)
        yield first, last
        first = last


def _sorted(acts: Acts, item_index: npt.NDArray[np.int32], people: tuple[int, int]) -> Block:
    """The acts of some people with items of the catalogue."""
    first, last = people
    part = slice(acts.bounds[first], acts.bounds[last])
    item = item_index[acts.item[part]]
    key = np.repeat(np.arange(first, last) << 32, np.diff(acts.bounds[first : last + 1])) | item
    at_ms, weight = acts.times[part], acts.weight[part]
    # The key of what is outside the catalogue is OUTSIDE too, so all of that comes first.
    order = order_by(key, at_ms, weight)[np.count_nonzero(item == OUTSIDE) :]
    key = key[order]
    return Block(key >> 32, (key & _LOW).astype(np.int32), at_ms[order], weight[order])


def _newest(block: Block) -> Flags:
    """(acts,) whether it is the last of its person and item."""
    last = np.ones(len(block.user), np.bool_)
    last[:-1] = (block.item[1:] != block.item[:-1]) | (block.user[1:] != block.user[:-1])
    return last


def _within(block: Block, length: int) -> Flags:
    """(items,) whether it is among the newest of its person, of one act an item."""
    within = np.ones(len(block.user), np.bool_)
    if not len(within):
        return within
    number = block.user - block.user[0]
    many = np.flatnonzero((np.bincount(number) > length)[number])
    few = block.where(many)
    # Stable: of acts that are alike in all this the items are in the order of their ids.
    by_time = np.lexsort((few.weight, few.at_ms, few.user))
    ends = np.searchsorted(few.user, few.user, "right")
    within[many[by_time]] = ends - np.arange(len(many)) <= length
    return within


def _put(acts: Acts, block: Block, free: int) -> int:
    """Write over acts that have been worked on; where the next ones go."""
    places = slice(free, free + len(block.user))
    acts.item[places], acts.weight[places] = block.item, block.weight
    acts.times.put(places, block.at_ms)
    return places.stop


def _joined(blocks: list[Block]) -> Block:
    return Block(*(np.concatenate(columns) for columns in zip(*blocks, strict=True)))


_LOW = 0xFFFFFFFF
_NOTHING = Block(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.uint8))
