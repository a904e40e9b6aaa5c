"""One reading of the lake: everybody's history as far as they allow its use, and what stood beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from infra.lake import EVENTS, ITEMS, Lake, LakeEmpty, LakeTable
from infra.process import give_back_memory
from ingest.events import ConsentProjection, Domain, now
from training.acts import gather
from training.bundle import Snapshot, milliseconds
from training.interactions import Catalogue, Events, Interactions, ReadCounts, read_catalogue, settled
from training.settling import Block


@dataclass(frozen=True)
class Reading:
    """What the lake held, as far as people allow its use.

    Attributes:
        interactions: everybody's history.
        older: acts that count in no history any more, but did once.
        counts: what was met.
        version: of the lake's table of events.
        watermark: partition → offset up to which the log was in it.
        length: the newest items of a person that a history keeps.
    """

    interactions: Interactions
    older: Block
    counts: ReadCounts
    version: int
    watermark: Mapping[int, int]
    length: int

    @property
    def catalogue(self) -> Catalogue:
        """The items."""
        return self.interactions.catalogue

    @property
    def acts(self) -> int:
        """How many acts may be used."""
        return self.interactions.liked.user_items.nnz + self.interactions.seen.user_items.nnz + len(self.older.user)

    @property
    def events(self) -> Events:
        """All acts, in a table made for it: 50 bytes an act, so let go of it."""
        return Events(self.interactions.and_older(self.older), self.counts)

    def histories(self) -> Interactions:
        """Everybody's history as of this reading."""
        return self.interactions

    def describe(self, interactions: Interactions) -> Snapshot:
        """What a model says it was trained on."""
        return Snapshot(
            version=self.version,
            digest=interactions.digest,
            watermark=dict(self.watermark),
            events=self.acts,
            users=len(interactions.users),
        )


def read_lake(lake: Lake, consents: ConsentProjection, domain: Domain) -> Reading:
    """Read the newest events of the people who allow it, and the items.

    The lander removes the rows of those who withdrew; they are left out here too, for it may not have come to them yet.

    Raises:
        infra.lake.LakeEmpty: nothing has landed yet.
        infra.lake.LakeUnavailable: the lake cannot be read.
        ingest.events.ConsentUnavailable: nobody can tell what people allow.
    """

    def read(table: LakeTable) -> Reading:
        acts, counts = gather(table, domain.history_weights, consents.read, latest_ms)
        catalogue = read_catalogue(_items(lake), acts)
        interactions, older = settled(acts, catalogue, domain.history.length)
        return Reading(interactions, older, counts, table.version, table.watermark, domain.history.length)

    latest_ms = milliseconds(now() + timedelta(seconds=domain.events.future_tolerance_seconds))
    reading = lake.read(EVENTS, read)
    give_back_memory()
    return reading


def _items(lake: Lake) -> pl.LazyFrame | None:
    try:
        return lake.snapshot(ITEMS).rows.lazy()
    except LakeEmpty:
        return None
