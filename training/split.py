"""The hold-out by time: what a model trained at one moment would have had to guess afterwards.

One cut for everybody. What came before it is trained on. Of what a person took up after it, the earlier half has
`arrived` by the time the person asks (nearline folds it in) and the later half is `held_out`: to be guessed. The stale
history is what training knew, the fresh one has in it what arrived; both are judged on the same held-out items.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import sparse

from training.interactions import Catalogue, Column, Events, Interactions, as_histories, histories
from training.recency import Histories


class NothingHeldOut(Exception):
    """The events cannot be split by time; the message says what is missing."""


@dataclass(frozen=True)
class Split:
    """What to train on, and whom to ask what. Rows of the three matrices are the same people.

    Attributes:
        cut_ms: the moment of the cut, in milliseconds since 1970.
        train: histories of everybody from before the cut.
        stale: (people, items): their histories as training knew them.
        fresh: (people, items): with what arrived since.
        held_out: (people, items) CSR: what they took up later and liked, none of it in `fresh`.
    """

    cut_ms: int
    train: Interactions
    stale: Histories
    fresh: Histories
    held_out: sparse.csr_matrix


def split_by_time(
    events: Events,
    catalogue: Catalogue,
    length: int,
    *,
    quantile: float = 0.8,
    most_people: int = 20_000,
    seed: int = 0,
) -> Split:
    """Split at the moment by which `quantile` of the events have happened.

    Args:
        events: the acts.
        catalogue: the items.
        length: the newest items of a person that a history keeps.
        quantile: share of events before the cut, about.
        most_people: judged at most; of more, as many are drawn at random.
        seed: of the draw.

    Raises:
        NothingHeldOut: nothing before the cut, or nobody with two new items after it.
    """
    rows = events.rows.filter(pl.col(Column.ITEM).is_in(list(catalogue.items.ids)))
    if rows.is_empty():
        raise NothingHeldOut("no event concerns an item that may be shown")
    cut = int(rows[Column.AT_MS].quantile(quantile, "higher") or 0)
    train = histories(rows.filter(pl.col(Column.AT_MS) < cut), catalogue, length)
    if train.rows.is_empty():
        raise NothingHeldOut("all events happened at the same moment: a hold-out by time needs older ones")
    taken_up = _taken_up(rows.filter(pl.col(Column.AT_MS) >= cut), train)
    people = _people(taken_up, most_people, seed)
    if not people:
        raise NothingHeldOut("nobody has two new items in the newest part of the events: collect more before training")
    return _for_people(cut, train, taken_up, people, length)


def _taken_up(after: pl.DataFrame, train: Interactions) -> pl.DataFrame:
    """user_id, item_index, at_ms, weight, held_out: the new items of each person, the later half held out."""
    c = Column
    new = histories(after, train.catalogue, after.height)
    known = _by_id(train).select(c.USER, c.ITEM_INDEX)
    order = pl.struct(c.AT_MS, c.WEIGHT, c.ITEM_INDEX).rank("ordinal").over(c.USER)
    return (
        _by_id(new)
        .join(known, on=[c.USER, c.ITEM_INDEX], how="anti")
        .with_columns(order.alias("order"), pl.len().over(c.USER).alias("of"))
        .filter(pl.col("of") >= 2)
        .with_columns((pl.col("order") * 2 > pl.col("of")).alias("held_out"))
    )


def _by_id(interactions: Interactions) -> pl.DataFrame:
    """user_id, item_index, at_ms, weight."""
    c = Column
    users = pl.Series(interactions.users.ids, dtype=pl.String)
    ids = users.gather(interactions.rows[c.USER_INDEX]).alias(c.USER)
    return interactions.rows.select(ids, c.ITEM_INDEX, c.AT_MS, c.WEIGHT)


def _people(taken_up: pl.DataFrame, most: int, seed: int) -> list[str]:
    """Those who liked something that is held out, in canonical order."""
    liked = taken_up.filter(pl.col("held_out") & (pl.col(Column.WEIGHT) > 0))
    people: list[str] = liked[Column.USER].unique().sort().to_list()
    if len(people) <= most:
        return people
    drawn = np.random.default_rng(seed).choice(len(people), most, replace=False)
    return [people[index] for index in np.sort(drawn)]


def _for_people(cut: int, train: Interactions, taken_up: pl.DataFrame, people: list[str], length: int) -> Split:
    c = Column
    rows = pl.DataFrame({c.USER: people, c.USER_INDEX: np.arange(len(people), dtype=np.int32)})
    columns = (c.USER_INDEX, c.ITEM_INDEX, c.AT_MS, c.WEIGHT)
    after = taken_up.join(rows, on=c.USER)
    stale = _by_id(train).join(rows, on=c.USER).select(columns)
    fresh = pl.concat([stale, after.filter(~pl.col("held_out")).select(columns)])
    newest = fresh.sort(c.USER_INDEX, c.AT_MS, c.WEIGHT, c.ITEM_INDEX).group_by(c.USER_INDEX).tail(length)
    liked = after.filter(pl.col("held_out") & (pl.col(c.WEIGHT) > 0)).select(columns)
    items = len(train.catalogue.items)
    order = (c.USER_INDEX, c.ITEM_INDEX)
    known, newer, wanted = (as_histories(part.sort(order), len(people), items) for part in (stale, newest, liked))
    return Split(cut, train, known, newer, wanted.user_items)
