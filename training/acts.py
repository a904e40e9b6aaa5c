"""Everybody's acts, gathered from the lake in passes that read each column once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ingest.events import PERSONALIZATION, Consent
from training.columns import Column
from training.identity import Identities, Rows, identify, numbered
from training.ids import IdCodes, IdMap
from training.packed import Times, parts

NONE = 255
"""Code of what has no weight: it enters no history."""
PEOPLE_AT_ONCE = 1000
NEVER = np.iinfo(np.int64).max

Numbers = npt.NDArray[np.int64]
AskConsents = Callable[[Sequence[str]], Mapping[str, Consent]]


@dataclass(frozen=True)
class ReadCounts:
    """What one reading of the lake met.

    Attributes:
        rows: rows of the lake's table.
        repeated_positions: rows whose (partition, offset) another row has too: the lander wrote twice. Must be 0.
        repeated_events: rows dropped because the person's event with that id stands earlier: clients sent again.
        not_permitted: acts dropped because the person's consent does not cover them; the lander removes them.
        people: people with acts, whether they allow the use or not.
        types: event type → rows.
        ahead: rows that claim to have happened later than the moment of the reading allows.
    """

    rows: int
    repeated_positions: int
    repeated_events: int
    not_permitted: int = 0
    people: int = 0
    types: Mapping[str, int] = field(default_factory=dict)
    ahead: int = 0


@dataclass(frozen=True)
class Acts:
    """Acts that may be used, each once, person by person; in no order within a person.

    Attributes:
        users: user_id ↔ user_index.
        bounds: (users + 1,) where each person's acts begin, and the last one's end.
        item_ids: in no order, and more than were met.
        item: (acts,) int32 place in `item_ids`.
        times: (acts,) when.
        weight: (acts,) place in `weights`.
        weights: weights that there are, ascending.
        oldest_receipts: (users,) the oldest receipt that any of the person's acts was accepted under.
    """

    users: IdMap
    bounds: Numbers
    item_ids: pl.Series
    item: npt.NDArray[np.int32]
    times: Times
    weight: npt.NDArray[np.integer]
    weights: npt.NDArray[np.float64]
    oldest_receipts: Numbers

    @property
    def items(self) -> pl.Series:
        """The ids of the items met."""
        met = np.zeros(len(self.item_ids), np.bool_)
        met[self.item] = True
        return self.item_ids.filter(met)


class _Standing(NamedTuple):
    """The rows that stand: acts, not repeated, of people who allow it.

    Attributes:
        weight: (rows,) code of the weight; NONE for rows that do not stand.
        acts: (people,) how many stand.
        oldest: (people,) the oldest receipt of those.
        not_permitted: how many do not for want of consent.
        people: people with acts, permitted or not.
        types: event type → rows.
    """

    weight: npt.NDArray[np.uint8]
    acts: Numbers
    oldest: Numbers
    not_permitted: int
    people: int
    types: dict[str, int]


def gather(
    rows: Rows, weights: Mapping[str, float], consents: AskConsents | None, latest_ms: int = NEVER
) -> tuple[Acts, ReadCounts]:
    """The acts in the lake's table of events that enter histories, each once.

    Args:
        rows: the table.
        weights: event type → weight, for the types that enter a history.
        consents: tells what people allow now. Acts stay that were accepted after the person's last withdrawal, of
            those who allow personalization. None: everybody allows it.
        latest_ms: what happened later cannot have happened yet, in milliseconds since 1970.
    """
    who = identify(rows)
    table = np.unique(np.array([*weights.values()], np.float64))
    codes = {name: int(np.searchsorted(table, weight)) for name, weight in weights.items()}
    standing = _stand(rows, who, codes, _revoked(who.people, consents))
    acts, ahead = _collect(rows, who, standing, table, latest_ms)
    counts = ReadCounts(
        rows=len(rows),
        repeated_positions=who.repeated_positions,
        repeated_events=len(who.repeated),
        not_permitted=standing.not_permitted,
        people=standing.people,
        types=standing.types,
        ahead=ahead,
    )
    return acts, counts


def _revoked(people: pl.Series, consents: AskConsents | None) -> Numbers:
    """(people,) receipt up to which what a person did may not be used."""
    revoked = np.full(len(people), np.iinfo(np.int64).min)
    if consents is None:
        return revoked
    for part in parts(len(people), PEOPLE_AT_ONCE):
        some = people[part].to_list()
        found = consents(some)
        revoked[part] = [found[p].revoked if found[p].allows(PERSONALIZATION) else NEVER for p in some]
    return revoked


def _stand(rows: Rows, who: Identities, codes: Mapping[str, int], revoked: Numbers) -> _Standing:
    repeated = np.zeros(len(rows), np.bool_)
    repeated[who.repeated] = True
    weight = np.empty(len(rows), np.uint8)
    acts, oldest = np.zeros(len(revoked), np.int64), np.full(len(revoked), NEVER)
    acted = np.zeros(len(revoked), np.bool_)
    kinds, types = IdCodes(), np.zeros(0, np.int64)
    not_permitted = 0
    for part, (kind, receipts) in numbered(rows, kinds.encode(Column.TYPE), pl.col(Column.RECEIPT)):
        names, person = kinds.ids, who.codes[part]
        types = np.bincount(kind, minlength=len(names)) + np.pad(types, (0, len(names) - len(types)))
        code = np.array([codes.get(name, NONE) for name in names], np.uint8)[kind]
        enters = (code != NONE) & ~repeated[part]
        stands = enters & (receipts > revoked[person])
        acted[person[enters]] = True
        not_permitted += int(np.count_nonzero(enters)) - int(np.count_nonzero(stands))
        weight[part] = np.where(stands, code, NONE)
        acts += np.bincount(person[stands], minlength=len(acts))
        np.minimum.at(oldest, person[stands], receipts[stands])
    named = dict(zip(kinds.ids, types.tolist(), strict=True))
    return _Standing(weight, acts, oldest, not_permitted, int(np.count_nonzero(acted)), named)


def _collect(
    rows: Rows, who: Identities, standing: _Standing, weights: npt.NDArray[np.float64], latest_ms: int
) -> tuple[Acts, int]:
    """The acts, and the number of rows that are ahead of the time."""
    order = who.people.arg_sort().to_numpy()
    bounds = np.concatenate([[0], np.cumsum(standing.acts[order])])
    free = np.zeros(len(who.people), np.int64)
    free[order] = bounds[:-1]
    items = IdCodes()
    item, weight, times = np.empty(bounds[-1], np.int32), np.empty(bounds[-1], np.uint8), Times.empty(bounds[-1])
    ahead = 0
    when = pl.col(Column.OCCURRED).dt.timestamp("ms")
    for part, (code, at_ms) in numbered(rows, items.encode(Column.ITEM), when):
        stands = standing.weight[part] != NONE
        places, by_person = _places(who.codes[part][stands], free)
        item[places] = code[stands][by_person]
        ahead += int(np.count_nonzero(at_ms > latest_ms))
        times.put(places, at_ms[stands][by_person])
        weight[places] = standing.weight[part][stands][by_person]
    users = IdMap(tuple(who.people.gather(order)))
    return Acts(users, bounds, items.ids, item, times, weight, weights, standing.oldest[order]), ahead


def acts_of(rows: pl.DataFrame) -> Acts:
    """Acts that stand in a frame: user_id, item_id, at_ms, weight and receipt, one row an act."""
    c = Column
    users, items = (IdMap(tuple(rows[column].unique().sort())) for column in (c.USER, c.ITEM))
    rows = rows.with_columns(users.encode(c.USER), items.encode(c.ITEM)).sort(c.USER)
    oldest = rows.group_by(c.USER).agg(pl.col(c.RECEIPT).min()).sort(c.USER)
    weights, weight = np.unique(rows[c.WEIGHT].to_numpy(), return_inverse=True)
    bounds = np.concatenate([[0], np.cumsum(np.bincount(rows[c.USER].to_numpy(), minlength=len(users)))])
    ids = pl.Series(items.ids, dtype=pl.String)
    item, times = rows[c.ITEM].to_numpy().copy(), Times.of(rows[c.AT_MS].to_numpy())
    return Acts(users, bounds, ids, item, times, weight, weights, oldest[c.RECEIPT].to_numpy())


def _places(people: npt.NDArray[np.uint32], free: Numbers) -> tuple[Numbers, Numbers]:
    """Where these people's acts go, and the order in which they go there; `free` moves on."""
    order = np.argsort(people)
    ordered = people[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)])
    lengths = np.diff(np.append(first, len(ordered)))
    places = np.repeat(free[ordered[first]] - first, lengths) + np.arange(len(ordered))
    free[ordered[first]] += lengths
    return places, order
