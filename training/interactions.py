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

from ingest.events import PERSONALIZATION, Consent
from training.bundle import Scores
from training.recency import Histories


class Column:
    """Names of columns, here and in the lake."""

    EVENT = "event_id"
    TYPE = "type"
    USER = "user_id"
    ITEM = "item_id"
    OCCURRED = "occurred_at"
    RECEIPT = "receipt"
    PARTITION = "partition"
    OFFSET = "offset"
    ATTRIBUTES = "attributes"
    HIDDEN = "hidden"
    AT_MS = "at_ms"
    WEIGHT = "weight"
    USER_INDEX = "user_index"
    ITEM_INDEX = "item_index"


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
class ReadCounts:
    """What one reading of the lake met.

    Attributes:
        rows: rows of the lake's table.
        repeated_positions: rows whose (partition, offset) another row has too: the lander wrote twice. Must be 0.
        repeated_events: rows dropped because the person's event with that id stands earlier: clients sent again.
        not_permitted: rows dropped because the person's consent does not cover them; the lander removes them.
    """

    rows: int
    repeated_positions: int
    repeated_events: int
    not_permitted: int = 0


@dataclass(frozen=True)
class Events:
    """The acts that enter histories, each once.

    Attributes:
        rows: event_id, user_id, item_id, at_ms, weight, receipt; one row an act.
        counts: what reading them met.
    """

    rows: pl.DataFrame
    counts: ReadCounts

    @cached_property
    def people(self) -> list[str]:
        """The ids of everybody in it, in canonical order."""
        return self.rows[Column.USER].unique().sort().to_list()

    def before(self, at_ms: int) -> "Events":
        """Those that happened before this moment."""
        return replace(self, rows=self.rows.filter(pl.col(Column.AT_MS) < at_ms))

    def permitted(self, consents: Mapping[str, Consent]) -> "Events":
        """The events of people who allow personalization now, accepted after their last withdrawal."""
        revoked = {user: c.revoked for user, c in consents.items() if c.allows(PERSONALIZATION)}
        last = pl.DataFrame(
            {Column.USER: list(revoked), "revoked": list(revoked.values())},
            schema={Column.USER: pl.String, "revoked": pl.Int64},
        )
        rows = self.rows.join(last, on=Column.USER).filter(pl.col(Column.RECEIPT) > pl.col("revoked")).drop("revoked")
        return Events(rows, replace(self.counts, not_permitted=self.rows.height - rows.height))


@dataclass(frozen=True)
class Interactions:
    """Histories of many people over one catalogue.

    Attributes:
        users: user_id ↔ user_index.
        catalogue: the items.
        rows: user_index, item_index, at_ms, weight, receipt; one row an item of a history, in canonical order.
    """

    users: IdMap
    catalogue: Catalogue
    rows: pl.DataFrame

    @cached_property
    def histories(self) -> Histories:
        """Everybody's, (users, items)."""
        return as_histories(self.rows, len(self.users), len(self.catalogue.items))

    @property
    def user_items(self) -> sparse.csr_matrix:
        """(users, items) CSR, float32; explicit zeros are items that were seen but speak for nothing."""
        return self.histories.user_items

    @cached_property
    def positives(self) -> sparse.csr_matrix:
        """(users, items) CSR, float32: what models are fitted on."""
        positive = self.user_items.copy()
        positive.eliminate_zeros()
        return positive

    @cached_property
    def ages(self) -> npt.NDArray[np.float32]:
        """Days before the newest interaction of all, aligned with the values of `positives`."""
        return self.histories.ages()[self.user_items.data > 0]

    @cached_property
    def popularity(self) -> Scores:
        """(items,) number of people whose history speaks for it."""
        return np.bincount(self.positives.indices, minlength=len(self.catalogue.items)).astype(np.float32)

    @cached_property
    def oldest_receipts(self) -> npt.NDArray[np.int64]:
        """(users,) the oldest receipt that anything in the person's history was accepted under."""
        oldest = self.rows.group_by(Column.USER_INDEX).agg(pl.col(Column.RECEIPT).min()).sort(Column.USER_INDEX)
        return oldest[Column.RECEIPT].to_numpy()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of people, items and interactions in canonical order: the same digest gives the same model."""
        digest = sha256(orjson.dumps([self.users.ids, self.catalogue.items.ids]))
        for column, kind in ((Column.USER_INDEX, "<i4"), (Column.ITEM_INDEX, "<i4"), (Column.AT_MS, "<i8")):
            digest.update(self.rows[column].to_numpy().astype(kind).tobytes())
        digest.update(self.rows[Column.WEIGHT].to_numpy().astype("<f8").tobytes())
        return digest.hexdigest()


def read_events(rows: pl.LazyFrame, weights: Mapping[str, float]) -> Events:
    """The acts in the lake's `events` table: those that enter histories, each once.

    Of events that a person sent under the same id, the one at the lowest (partition, offset) stands.

    Args:
        rows: the table.
        weights: event type → weight, for the types that enter a history.
    """
    c = Column
    met = rows.select(pl.len().alias("rows"), pl.struct(c.PARTITION, c.OFFSET).n_unique().alias("positions")).collect()
    first = (
        rows.sort(c.PARTITION, c.OFFSET)
        .unique([c.USER, c.EVENT], keep="first", maintain_order=True)
        .select(
            c.EVENT,
            c.USER,
            c.ITEM,
            pl.col(c.OCCURRED).dt.timestamp("ms").alias(c.AT_MS),
            pl.col(c.TYPE).replace_strict(dict(weights), default=None, return_dtype=pl.Float64).alias(c.WEIGHT),
            c.RECEIPT,
        )
        .collect()
    )
    total = int(met["rows"][0])
    counts = ReadCounts(total, total - int(met["positions"][0]), total - first.height)
    return Events(first.filter(pl.col(c.WEIGHT).is_not_null()), counts)


def read_catalogue(items: pl.LazyFrame | None, events: Events) -> Catalogue:
    """Every item that was described or met, without those that are hidden.

    Args:
        items: the lake's `items` table, or None when there is none; of several rows of an item the last one stands.
        events: the acts.
    """
    c = Column
    met = events.rows[c.ITEM].unique().to_list()
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
    c = Column
    events = events.filter(pl.col(c.ITEM).is_in(list(catalogue.items.ids)))
    users = IdMap(tuple(events[c.USER].unique().sort()))
    rows = (
        events.lazy()
        .with_columns(users.encode(c.USER).alias(c.USER_INDEX), catalogue.items.encode(c.ITEM).alias(c.ITEM_INDEX))
        .group_by(c.USER_INDEX, c.ITEM_INDEX)
        .agg(
            pl.col(c.AT_MS).max(),
            pl.col(c.WEIGHT).filter(pl.col(c.AT_MS) == pl.col(c.AT_MS).max()).max(),
            pl.col(c.RECEIPT).min(),
        )
        # Items are in code point order, so their indices break ties as their ids would.
        .sort(c.USER_INDEX, c.AT_MS, c.WEIGHT, c.ITEM_INDEX)
        .group_by(c.USER_INDEX, maintain_order=True)
        .tail(length)
        .sort(c.USER_INDEX, c.ITEM_INDEX)
        .select(c.USER_INDEX, c.ITEM_INDEX, c.AT_MS, c.WEIGHT, c.RECEIPT)
        .collect()
    )
    return Interactions(users, catalogue, rows)


def as_histories(rows: pl.DataFrame, users: int, items: int) -> Histories:
    """Histories (users, items) of rows in canonical order with user_index, item_index, at_ms and weight."""
    c = Column
    counts = np.bincount(rows[c.USER_INDEX].to_numpy(), minlength=users)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    indices, weights = rows[c.ITEM_INDEX].to_numpy().astype(np.int32), rows[c.WEIGHT].to_numpy().astype(np.float32)
    user_items = sparse.csr_matrix((weights, indices, indptr), shape=(users, items))
    return Histories(user_items, rows[c.AT_MS].to_numpy())
