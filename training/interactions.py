"""From a snapshot of the lake to what models learn from: `user_items` and the two maps between ids and indices."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl
from scipy import sparse

from training.acts import Acts, AskConsents, ReadCounts, acts_of, gather
from training.bundle import Scores
from training.columns import Column
from training.identity import FrameRows
from training.ids import IdMap
from training.packed import PackedHistories, divided, merged, parts
from training.recency import MS_A_DAY, Histories
from training.settling import OUTSIDE, Block, settle

__all__ = [
    "Catalogue",
    "Column",
    "Events",
    "IdMap",
    "Interactions",
    "ReadCounts",
    "as_histories",
    "histories",
    "read_catalogue",
    "read_events",
    "settled",
]

PEOPLE_AT_ONCE = 4096


@dataclass(frozen=True)
class Catalogue:
    """The items that may be recommended.

    Attributes:
        items: item_id ↔ item_index.
        attributes: (items,) the newest that was said of each; empty for items known from events alone.
    """

    items: IdMap
    attributes: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Events:
    """The acts that enter histories, each once.

    Attributes:
        rows: user_id, item_id, at_ms, weight, receipt; one row an act.
        counts: what reading them met.
    """

    rows: pl.DataFrame
    counts: ReadCounts

    @property
    def items(self) -> pl.Series:
        """The ids of the items met."""
        return self.rows[Column.ITEM].unique()

    def before(self, at_ms: int) -> "Events":
        """Those that happened before this moment."""
        return replace(self, rows=self.rows.filter(pl.col(Column.AT_MS) < at_ms))


@dataclass(frozen=True)
class Interactions:
    """Histories of many people over one catalogue.

    Attributes:
        users: user_id ↔ user_index.
        catalogue: the items.
        liked: (users, items) the items that speak for something, packed.
        seen: (users, items) those that were seen but speak for nothing, packed; its values are 0.
        oldest_receipts: (users,) the oldest receipt that any of the person's acts was accepted under.
    """

    users: IdMap
    catalogue: Catalogue
    liked: PackedHistories
    seen: PackedHistories
    oldest_receipts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, users: IdMap, catalogue: Catalogue, rows: pl.DataFrame) -> "Interactions":
        """Those of rows in canonical order: user_index, item_index, at_ms, weight, receipt."""
        liked, seen = divided(as_histories(rows, len(users), len(catalogue.items)))
        oldest = np.full(len(users), np.iinfo(np.int64).max)
        np.minimum.at(oldest, rows[Column.USER_INDEX].to_numpy(), rows[Column.RECEIPT].to_numpy())
        return cls(users, catalogue, liked, seen, oldest)

    @property
    def positives(self) -> sparse.csr_matrix:
        """(users, items) CSR, float32: what models are fitted on."""
        return self.liked.user_items

    def histories_of(self, users: slice | npt.NDArray[np.integer]) -> Histories:
        """The histories of some people: (people, items)."""
        return merged(self.liked[users], self.seen[users])

    @cached_property
    def histories(self) -> Histories:
        """Everybody's: (users, items). It takes the memory once more: for many people use `histories_of`."""
        return self.histories_of(slice(None))

    @property
    def user_items(self) -> sparse.csr_matrix:
        """(users, items) CSR, float32, of `histories`; explicit zeros are items that speak for nothing."""
        return self.histories.user_items

    @property
    def ages(self) -> npt.NDArray[np.float32]:
        """Days before the newest interaction of all, aligned with the values of `positives`."""
        times, newest = self.liked.times, max(self.liked.times.newest(), self.seen.times.newest())
        ages = np.empty(len(times), np.float32)
        for part in parts(len(times)):
            ages[part] = (newest - times[part]) / MS_A_DAY
        return ages

    @cached_property
    def popularity(self) -> Scores:
        """(items,) number of people whose history speaks for it."""
        counts = np.zeros(len(self.catalogue.items), np.int64)
        for part in parts(self.positives.nnz):
            counts += np.bincount(self.positives.indices[part], minlength=len(counts))
        return counts.astype(np.float32)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of people, items and interactions in canonical order: the same digest gives the same model."""
        digest = sha256(orjson.dumps([self.users.ids, self.catalogue.items.ids]))
        for people in parts(len(self.users), PEOPLE_AT_ONCE):
            some = self.histories_of(people)
            matrix = some.user_items
            for column, kind in (
                (matrix.indptr, "<i4"),
                (matrix.indices, "<i4"),
                (matrix.data, "<f4"),
                (some.at_ms, "<i8"),
            ):
                digest.update(column.astype(kind).tobytes())
        return digest.hexdigest()

    @property
    def rows(self) -> pl.DataFrame:
        """user_index, item_index, at_ms, weight, receipt; one row an item of a history, in canonical order."""
        matrix = self.user_items
        users = np.repeat(np.arange(len(self.users), dtype=np.int32), np.diff(matrix.indptr))
        return self._rows(users, matrix.indices, self.histories.at_ms, matrix.data)

    def and_older(self, older: Block) -> pl.DataFrame:
        """All acts, those that count in the histories and these: user_id, item_id, at_ms, weight, receipt."""
        rows = pl.concat([self.rows, self._rows(*older)])
        users, items = (pl.Series(ids.ids, dtype=pl.String) for ids in (self.users, self.catalogue.items))
        c = Column
        names = (users.gather(rows[c.USER_INDEX]).alias(c.USER), items.gather(rows[c.ITEM_INDEX]).alias(c.ITEM))
        return rows.select(*names, c.AT_MS, c.WEIGHT, c.RECEIPT)

    def _rows(self, users: npt.NDArray[np.integer], *columns: npt.NDArray[np.generic]) -> pl.DataFrame:
        c = Column
        numbers = {c.USER_INDEX: pl.Int32(), c.ITEM_INDEX: pl.Int32(), c.AT_MS: pl.Int64(), c.WEIGHT: pl.Float64()}
        named = dict(zip(numbers, (users, *columns), strict=True))
        return pl.DataFrame({**named, c.RECEIPT: self.oldest_receipts[users]}, schema_overrides=numbers)


def read_events(rows: pl.LazyFrame, weights: Mapping[str, float], consents: AskConsents | None = None) -> Events:
    """The acts in a frame like the lake's `events` table: those that enter histories, each once.

    Args:
        rows: the table.
        weights: event type → weight, for the types that enter a history.
        consents: tells what people allow now; None: everybody allows it.
    """
    acts, counts = gather(FrameRows(rows.collect()), weights, consents)
    interactions, older = settled(acts, read_catalogue(None, acts), len(acts.item) + 1)
    return Events(interactions.and_older(older), counts)


def read_catalogue(items: pl.LazyFrame | None, events: Acts | Events) -> Catalogue:
    """Every item that was described or met, without those that are hidden.

    Args:
        items: the lake's `items` table, or None when there is none; of several rows of an item the last one stands.
        events: the acts.
    """
    c = Column
    met = set(events.items)
    if items is None:
        return Catalogue(IdMap(tuple(sorted(met))), ({},) * len(met))
    last = items.sort(c.PARTITION, c.OFFSET).unique(c.ITEM, keep="last").collect()
    hidden = set(last.filter(pl.col(c.HIDDEN))[c.ITEM])
    described = dict(zip(last[c.ITEM], last[c.ATTRIBUTES], strict=True))
    ids = sorted({*met, *described} - hidden)
    attributes = tuple(orjson.loads(described[item]) if item in described else {} for item in ids)
    return Catalogue(IdMap(tuple(ids)), attributes)


def histories(events: pl.DataFrame, catalogue: Catalogue, length: int) -> Interactions:
    """The histories that these events make, by the rule of `training.bundle.add_to_history`.

    Args:
        events: rows as in `Events`. Those of items outside the catalogue are passed over.
        catalogue: the items.
        length: the newest items of a person that stay.
    """
    return settled(acts_of(events), catalogue, length)[0]


def settled(acts: Acts, catalogue: Catalogue, length: int) -> tuple[Interactions, Block]:
    """The histories that these acts make, and the acts that count in them no more. The acts are spent.

    Args:
        acts: those of items outside the catalogue are passed over.
        catalogue: the items.
        length: the newest items of a person that stay.
    """
    place = catalogue.items.index
    found = settle(acts, np.array([place.get(item, OUTSIDE) for item in acts.item_ids], np.int32), len(place), length)
    users = IdMap(tuple(user for user, stays in zip(acts.users.ids, found.stay, strict=True) if stays))
    return Interactions(users, catalogue, found.liked, found.seen, acts.oldest_receipts[found.stay]), found.older


def as_histories(rows: pl.DataFrame, users: int, items: int) -> Histories:
    """Histories (users, items) of rows in canonical order with user_index, item_index, at_ms and weight."""
    c = Column
    counts = np.bincount(rows[c.USER_INDEX].to_numpy(), minlength=users)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    indices, weights = rows[c.ITEM_INDEX].to_numpy().astype(np.int32), rows[c.WEIGHT].to_numpy().astype(np.float32)
    user_items = sparse.csr_matrix((weights, indices, indptr), shape=(users, items))
    return Histories(user_items, rows[c.AT_MS].to_numpy())
