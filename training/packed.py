"""Histories of millions of people in little memory: fourteen bytes an item."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from training.recency import Histories

AT_ONCE = 1 << 18
"""Values that are unpacked at once."""


@dataclass(frozen=True)
class Times:
    """Moments in milliseconds since 1970, six bytes each: enough for the years up to 6429.

    Attributes:
        low: (n,) the lower 32 bits of each.
        high: (n,) the upper 16.
    """

    low: npt.NDArray[np.uint32]
    high: npt.NDArray[np.int16]

    @classmethod
    def of(cls, at_ms: npt.NDArray[np.int64]) -> "Times":
        """These moments, packed."""
        times = cls.empty(len(at_ms))
        for part in parts(len(at_ms)):
            times.put(part, at_ms[part])
        return times

    @classmethod
    def empty(cls, count: int) -> "Times":
        """Room for so many."""
        return cls(np.empty(count, np.uint32), np.empty(count, np.int16))

    def put(self, places: slice | npt.NDArray[np.integer], at_ms: npt.NDArray[np.int64]) -> None:
        """Write moments to these places."""
        self.low[places] = at_ms & 0xFFFFFFFF
        self.high[places] = at_ms >> 32

    def shrink(self, count: int) -> None:
        """Keep the first so many, and no memory for more."""
        self.low.resize(count, refcheck=False)
        self.high.resize(count, refcheck=False)

    def __len__(self) -> int:
        return len(self.low)

    def __getitem__(self, places: slice | npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Some of them, (n,) int64."""
        at_ms = self.high[places].astype(np.int64)
        at_ms <<= 32
        at_ms |= self.low[places]
        return at_ms

    def newest(self) -> int:
        """The latest of them; 0 of none."""
        return max((int(self[part].max()) for part in parts(len(self))), default=0)


@dataclass(frozen=True)
class PackedHistories:
    """Histories of many people over the items of one version, to be unpacked a few at a time.

    Attributes:
        user_items: (rows, items) CSR, float32, column indices sorted.
        times: (nnz,) time of the newest event about each, aligned with the values.
    """

    user_items: sparse.csr_matrix
    times: Times

    def __len__(self) -> int:
        return int(self.user_items.shape[0])

    def __getitem__(self, rows: slice | npt.NDArray[np.integer]) -> Histories:
        """The histories in these rows."""
        indptr, items = self.user_items.indptr, self.user_items.shape[1]
        places: slice | npt.NDArray[np.int64]
        if isinstance(rows, slice):
            first, last, _ = rows.indices(len(self))
            ends = indptr[first : max(first, last) + 1]
            places = slice(int(ends[0]), int(ends[-1]))
            bounds = ends - ends[0]
        else:
            lengths = indptr[rows + 1] - indptr[rows]
            bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
            places = np.repeat(indptr[rows] - bounds[:-1], lengths) + np.arange(bounds[-1])
        values = (self.user_items.data[places], self.user_items.indices[places], bounds)
        return Histories(sparse.csr_matrix(values, shape=(len(bounds) - 1, items)), self.times[places])


def divided(histories: Histories) -> tuple[PackedHistories, PackedHistories]:
    """The items that speak for something, and those that do not, packed."""
    matrix = histories.user_items
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    likes = matrix.data > 0
    return _some(histories, rows, likes), _some(histories, rows, ~likes)


def merged(one: Histories, other: Histories) -> Histories:
    """Histories of the same people, none of whose items is in both."""
    if other.user_items.nnz == 0:
        return one
    both, shape = (one, other), one.user_items.shape
    rows = np.concatenate([np.repeat(np.arange(shape[0]), np.diff(h.user_items.indptr)) for h in both])
    indices = np.concatenate([h.user_items.indices for h in both])
    order = np.argsort((rows << 32) | indices)
    weights = np.concatenate([h.user_items.data for h in both])[order]
    indptr = one.user_items.indptr + other.user_items.indptr
    user_items = sparse.csr_matrix((weights, indices[order], indptr), shape=shape)
    return Histories(user_items, np.concatenate([h.at_ms for h in both])[order])


def parts(count: int, at_once: int | None = None) -> Iterator[slice]:
    """The numbers from 0 up to `count`, some at a time."""
    step = AT_ONCE if at_once is None else at_once
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _some(histories: Histories, rows: npt.NDArray[np.integer], flags: npt.NDArray[np.bool_]) -> PackedHistories:
    matrix = histories.user_items
    ends = np.cumsum(np.bincount(rows[flags], minlength=matrix.shape[0]))
    values = (matrix.data[flags], matrix.indices[flags], np.concatenate([[0], ends]).astype(np.int32))
    return PackedHistories(sparse.csr_matrix(values, shape=matrix.shape), Times.of(histories.at_ms[flags]))
