"""Ids outside, numbers inside."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import polars as pl


@dataclass(frozen=True)
class IdMap:
    """Ids in canonical order: by code point. The place of an id is its index.

    >>> IdMap(("a", "b")).index["b"]
    1
    """

    ids: tuple[str, ...]

    @cached_property
    def index(self) -> Mapping[str, int]:
        """id → index."""
        return {name: index for index, name in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.ids)

    def encode(self, column: str) -> pl.Expr:
        """Indices of the ids in `column`, every one of which has to be known."""
        return pl.col(column).cast(pl.Enum(list(self.ids))).to_physical().cast(pl.Int32)


class IdCodes:
    """Numbers ids in the order in which they are met.

    >>> codes = IdCodes()
    >>> first, then = pl.DataFrame({"id": ["b", "a", "b"]}), pl.DataFrame({"id": ["c", "a"]})
    >>> [frame.select(codes.encode("id"))["id"].to_list() for frame in (first, then)], codes.ids.to_list()
    ([[0, 1, 0], [2, 1]], ['b', 'a', 'c'])
    """

    def __init__(self) -> None:
        self._categories = pl.Categories.random()
        # Categories that no series is of are forgotten.
        self._kept = pl.Series(dtype=pl.Categorical(self._categories))

    def encode(self, column: str) -> pl.Expr:
        """The numbers of the ids in a column."""
        return pl.col(column).cast(self._kept.dtype).to_physical()

    @property
    def ids(self) -> pl.Series:
        """The ids so far; the place of each is its number."""
        return self._categories.to_series()
