"""Hold-outs: what a model trained on a part of the events would have had to guess of the rest.

By time, the default: one cut for everybody. What came before it is trained on. Of what a person took up after it, the
earlier half has `arrived` by the time the person asks (nearline folds it in) and the later half is `held_out`: to be
guessed. The stale history is what training knew, the fresh one has in it what arrived; both are judged on the same
held-out items. The hold-outs per person (`leave_last`, `random_share`) are for comparison with papers.

Training knows nothing of the rest: not even the items that were first met there. Who takes up one of those has taken
up something that cannot be recommended yet; it stays among what is wanted.
"""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl
from scipy import sparse

from training.interactions import Catalogue, Column, Events, IdMap, Interactions, as_histories, histories
from training.recency import Histories

ROW = (Column.USER, Column.ITEM, Column.AT_MS, Column.WEIGHT, Column.RECEIPT)


class NothingHeldOut(Exception):
    """The events cannot be split; the message says what is missing."""


@dataclass(frozen=True)
class Split:
    """What to train on, and whom to ask what. Rows of the three matrices are the same people.

    Attributes:
        cut_ms: everything that is trained on happened before this moment, in milliseconds since 1970.
        train: histories of everybody, over the items that were described or met by then.
        stale: (people, items): their histories as training knew them.
        fresh: (people, items): with what arrived since, as far as training knows the items.
        held_out: (people, items and more) CSR: what they took up later and liked, none of it in `fresh`. Columns from
            `len(train.catalogue.items)` on are items that training never met: nobody can guess them.
        people: user_id ↔ row.
    """

    cut_ms: int
    train: Interactions
    stale: Histories
    fresh: Histories
    held_out: sparse.csr_matrix
    people: IdMap


def split_by_time(
    events: Events,
    catalogue: Catalogue,
    length: int,
    *,
    quantile: float = 0.8,
    gap: timedelta = timedelta(),
    most_people: int = 20_000,
    seed: int = 0,
) -> Split:
    """Split at the moment by which `quantile` of the events have happened.

    Args:
        events: the acts.
        catalogue: the items.
        length: the newest items of a person that a history keeps.
        quantile: share of events before the moment from which on people are asked, about.
        gap: how long before that moment training ended, as it does in production: what happened between the two has
            arrived by the time people ask, and was not trained on.
        most_people: judged at most; of more, as many are drawn at random.
        seed: of the draw.

    Raises:
        NothingHeldOut: nothing to train on, or nobody with two new items afterwards.
    """
    rows = _shown(events, catalogue)
    asked_from = int(rows[Column.AT_MS].quantile(quantile, "higher") or 0)
    cut = asked_from - gap // timedelta(milliseconds=1)
    at = pl.col(Column.AT_MS)
    before, between = rows.filter(at < cut), rows.filter((at >= cut) & (at < asked_from))
    if before.is_empty():
        raise NothingHeldOut("nothing happened before the cut: a hold-out by time needs older events or a shorter gap")
    train = trained(before, catalogue, length)
    known = train if between.is_empty() else histories(pl.concat([before, between]), catalogue, length)
    taken_up = _taken_up(rows.filter(at >= asked_from), known, catalogue)
    asked = _sample(taken_up.filter(pl.col("held_out") & (pl.col(Column.WEIGHT) > 0)), most_people, seed)
    if asked.is_empty():
        raise NothingHeldOut("nobody has two new items in the newest part of the events: collect more before training")
    arrived = pl.concat([between.select(ROW), taken_up.filter(~pl.col("held_out")).select(ROW)])
    return assemble(train, arrived, asked, length, cut)


def leave_last(events: Events, catalogue: Catalogue, length: int, n: int = 1) -> Split:
    """Hold out the last n items of every person who has more: "leave-one-out", as many papers do.

    Training sees what others did after a person's last items, so figures are better than production's (Ji et al. 2023,
    "A critical study on data leakage in recommender system offline evaluation").

    Args:
        events: the acts.
        catalogue: the items.
        length: the newest items of a person that a history keeps.
        n: items that are held out.

    Raises:
        NothingHeldOut: nobody has more than n items and liked one of the last.
    """
    items = _once(_shown(events, catalogue), catalogue).sort(Column.USER, Column.AT_MS, Column.WEIGHT, Column.ITEM)
    of, place = pl.len().over(Column.USER), pl.int_range(pl.len()).over(Column.USER)
    return _per_person(items.with_columns(((of > n) & (place >= of - n)).alias("held_out")), catalogue, length)


def random_share(events: Events, catalogue: Catalogue, length: int, share: float = 0.2, seed: int = 0) -> Split:
    """Hold out a random share of every person's items, whenever they were taken up, as many papers do.

    Training sees the future of the same person: such figures say little about production, where the future is not
    known (Ji et al. 2023).

    Args:
        events: the acts.
        catalogue: the items.
        length: the newest items of a person that a history keeps.
        share: of a person's items that are held out, rounded down.
        seed: of the draw.

    Raises:
        NothingHeldOut: nobody has enough items, or liked one that was drawn.
    """
    items = _once(_shown(events, catalogue), catalogue).sort(Column.USER, Column.ITEM)
    drawn = items.with_columns(pl.Series("drawn", np.random.default_rng(seed).random(items.height)))
    place, of = pl.col("drawn").rank("ordinal").over(Column.USER), pl.len().over(Column.USER)
    return _per_person(drawn.with_columns((place <= (of * share).floor()).alias("held_out")), catalogue, length)


def assemble(train: Interactions, arrived: pl.DataFrame, asked: pl.DataFrame, length: int, cut_ms: int) -> Split:
    """The split of parts that were decided on.

    Args:
        train: what is trained on.
        arrived: user_id, item_id, at_ms, weight, receipt: events that the fresh histories have besides.
        asked: user_id, item_id, one row a pair: what is held out, none of it trained on or arrived. Its users are the
            people of the split.
        length: the newest items of a person that a fresh history keeps.
        cut_ms: everything that is trained on happened before this moment.
    """
    people = IdMap(tuple(asked[Column.USER].unique().sort()))
    known = _by_id(train, people)
    newer = arrived.filter(pl.col(Column.USER).is_in(list(people.ids)))
    stale = fresh = _rows_of(known, people, train.catalogue)
    if not newer.is_empty():
        both = histories(pl.concat([known, newer.select(ROW)]), train.catalogue, length)
        fresh = _rows_of(_by_id(both, people), people, train.catalogue)
    return Split(cut_ms, train, stale, fresh, _held_out(asked, people, train.catalogue.items), people)


def trained(events: pl.DataFrame, catalogue: Catalogue, length: int) -> Interactions:
    """The histories that these events make, over the items that were described or are met in them and no others.

    Descriptions have no time: what the catalogue describes counts as known from the start.
    """
    met = set(events[Column.ITEM].unique())
    known = [(i, a) for i, a in zip(catalogue.items.ids, catalogue.attributes, strict=True) if a or i in met]
    items = Catalogue(IdMap(tuple(i for i, _ in known)), tuple(a for _, a in known))
    return histories(events, items, length)


def _shown(events: Events, catalogue: Catalogue) -> pl.DataFrame:
    """The events of items that may be shown."""
    rows = events.rows.filter(pl.col(Column.ITEM).is_in(list(catalogue.items.ids)))
    if rows.is_empty():
        raise NothingHeldOut("no event concerns an item that may be shown")
    return rows


def _once(rows: pl.DataFrame, catalogue: Catalogue) -> pl.DataFrame:
    """Each item of each person once, the newest event decides: user_id, item_id, at_ms, weight, receipt."""
    each = histories(rows, catalogue, rows.height)
    return _by_id(each, each.users)


def _taken_up(after: pl.DataFrame, known: Interactions, catalogue: Catalogue) -> pl.DataFrame:
    """The new items of each person with two or more, the later half `held_out`."""
    c = Column
    each = _once(after, catalogue)
    held = _by_id(known, IdMap(tuple(each[c.USER].unique().sort()))).select(c.USER, c.ITEM)
    new = each.join(held, on=[c.USER, c.ITEM], how="anti").sort(c.USER, c.AT_MS, c.WEIGHT, c.ITEM)
    place, of = pl.int_range(1, pl.len() + 1).over(c.USER), pl.len().over(c.USER)
    return new.with_columns((place * 2 > of).alias("held_out")).filter(of >= 2)


def _sample(liked: pl.DataFrame, most: int, seed: int) -> pl.DataFrame:
    """Those of `most` people, drawn at random where there are more."""
    people = liked[Column.USER].unique().sort()
    if len(people) <= most:
        return liked
    drawn = np.random.default_rng(seed).choice(len(people), most, replace=False)
    return liked.filter(pl.col(Column.USER).is_in(people.gather(drawn).to_list()))


def _per_person(items: pl.DataFrame, catalogue: Catalogue, length: int) -> Split:
    """The split of items, each with whether it is `held_out`; nothing arrives in between."""
    before, held_out = items.filter(~pl.col("held_out")), items.filter(pl.col("held_out"))
    asked = held_out.filter(pl.col(Column.WEIGHT) > 0)
    if asked.is_empty() or before.is_empty():
        raise NothingHeldOut("nobody has enough items that some could be held out: hold out fewer or collect more")
    cut = int(before[Column.AT_MS].to_numpy().max()) + 1
    return assemble(trained(before.select(ROW), catalogue, length), before.select(ROW).clear(), asked, length, cut)


def _by_id(interactions: Interactions, people: IdMap) -> pl.DataFrame:
    """The histories of these people as rows: user_id, item_id, at_ms, weight, receipt."""
    c = Column
    wanted = [interactions.users.index[user] for user in people.ids if user in interactions.users.index]
    rows = interactions.rows.filter(pl.col(c.USER_INDEX).is_in(wanted))
    users = pl.Series(c.USER, interactions.users.ids, pl.String).gather(rows[c.USER_INDEX])
    items = pl.Series(c.ITEM, interactions.catalogue.items.ids, pl.String).gather(rows[c.ITEM_INDEX])
    return rows.with_columns(users, items).select(ROW)


def _rows_of(events: pl.DataFrame, people: IdMap, catalogue: Catalogue) -> Histories:
    """(people, items): one event an item, as a matrix."""
    c = Column
    rows = events.select(
        people.encode(c.USER).alias(c.USER_INDEX), catalogue.items.encode(c.ITEM).alias(c.ITEM_INDEX), c.AT_MS, c.WEIGHT
    )
    return as_histories(rows.sort(c.USER_INDEX, c.ITEM_INDEX), len(people), len(catalogue.items))


def _held_out(asked: pl.DataFrame, people: IdMap, known: IdMap) -> sparse.csr_matrix:
    """(people, items and more) CSR: see `Split`."""
    c = Column
    unknown = sorted(set(asked[c.ITEM].unique()) - set(known.ids))
    columns = IdMap(known.ids + tuple(unknown))
    rows = asked.select(people.encode(c.USER).alias("row"), columns.encode(c.ITEM).alias("column")).sort(
        "row", "column"
    )
    ones, shape = np.ones(rows.height, np.float32), (len(people), len(columns))
    return sparse.csr_matrix((ones, (rows["row"].to_numpy(), rows["column"].to_numpy())), shape=shape)
