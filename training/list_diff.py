"""What two versions would show the same people: whose lists change, and by how much."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from training.bundle import Bundle, Indices, recommend
from training.interactions import Interactions
from training.publish import over_items_of

K = 10
MOST_PEOPLE = 2000
BATCH = 1000
PERSISTENCE = 0.9
"""Chance that somebody who looks at one place looks at the next: p of rank-biased overlap."""


class ItemChange(NamedTuple):
    """In how many first tens an item was and is."""

    item_id: str
    attributes: Mapping[str, Any]
    before: int
    after: int


class ListDiff(NamedTuple):
    """The first ten of the same people, before and after.

    Attributes:
        people: compared.
        changed: share of them whose first ten differ at all, in items or order.
        kept: mean share of the items that stay.
        overlap: mean rank-biased overlap: 1 the same, 0 nothing alike; the first places count most.
        by_kept: (11,) how many people keep no item, one, … all ten.
        items: whose number of lists changed, the largest gain first, the largest loss last.
    """

    people: int
    changed: float
    kept: float
    overlap: float
    by_kept: tuple[int, ...]
    items: tuple[ItemChange, ...]


def diff_lists(
    before: Bundle, after: Bundle, interactions: Interactions, most: int = MOST_PEOPLE, seed: int = 0
) -> ListDiff:
    """Ask both versions with the same histories.

    Args:
        before: one version.
        after: another one.
        interactions: today's histories of those who allow it.
        most: people compared at most; of more, as many are drawn at random.
        seed: of the draw.
    """
    people = len(interactions.users)
    rows = np.arange(people)
    if people > most:
        rows = np.sort(np.random.default_rng(seed).choice(people, most, replace=False))
    if not people:
        return ListDiff(0, 0.0, 1.0, 1.0, (0,) * (K + 1), ())
    catalogue = list(dict.fromkeys((*before.items.item_ids, *after.items.item_ids)))
    place = {item: index for index, item in enumerate(catalogue)}
    old, new = (_lists(bundle, interactions, rows, place) for bundle in (before, after))
    kept = shared(old, new)
    listed = np.maximum(1, (old >= 0).sum(axis=1))
    return ListDiff(
        people=len(rows),
        changed=float((old != new).any(axis=1).mean()),
        kept=float((kept / listed).mean()),
        overlap=float(rank_biased_overlap(old, new).mean()),
        by_kept=tuple(np.bincount(kept, minlength=K + 1).tolist()),
        items=_item_changes(old, new, catalogue, _attributes(before) | _attributes(after)),
    )


def shared(some: Indices, others: Indices) -> npt.NDArray[np.int64]:
    """(people,) how many items of one list are in the other, wherever they stand.

    Args:
        some: (people, k) item indices, none twice in a row, padded with -1.
        others: (people, any) the same people's.

    >>> shared(np.array([[1, 2, -1]]), np.array([[2, 3, -1]])).tolist()
    [1]
    """
    there = (some[:, :, None] == others[:, None, :]) & (some >= 0)[:, :, None]
    return np.asarray(there.sum(axis=(1, 2)))


def rank_biased_overlap(some: Indices, others: Indices) -> npt.NDArray[np.float64]:
    """(people,) rank-biased overlap of Webber, Moffat and Zobel 2010, cut off at k and made to reach 1.

    >>> rank_biased_overlap(np.array([[1, 2], [1, 2]]), np.array([[1, 2], [2, 1]])).round(3).tolist()
    [1.0, 0.474]
    """
    depths = np.arange(1, some.shape[1] + 1)
    agreement = np.stack([shared(some[:, :depth], others[:, :depth]) / depth for depth in depths], axis=1)
    weights = PERSISTENCE ** (depths - 1)
    return np.asarray(agreement @ weights / weights.sum())


def _lists(
    bundle: Bundle, interactions: Interactions, rows: npt.NDArray[np.int64], place: Mapping[str, int]
) -> Indices:
    """(rows, k) what the version shows, as places in the common catalogue."""
    histories = over_items_of(bundle, interactions)[rows].weighted(bundle.manifest.recency)
    places = np.array([*(place[item] for item in bundle.items.item_ids), -1], np.int32)
    batches = (histories[start : start + BATCH] for start in range(0, len(rows), BATCH))
    return np.vstack([places[recommend(bundle.model, bundle.popular, batch, K)[0]] for batch in batches])


def _attributes(bundle: Bundle) -> dict[str, Mapping[str, Any]]:
    return dict(zip(bundle.items.item_ids, bundle.items.attributes, strict=True))


def _item_changes(
    old: Indices, new: Indices, catalogue: list[str], attributes: Mapping[str, Mapping[str, Any]]
) -> tuple[ItemChange, ...]:
    before, after = (np.bincount(lists[lists >= 0], minlength=len(catalogue)) for lists in (old, new))
    order = np.lexsort((np.arange(len(catalogue)), before - after))
    changed = [index for index in order if before[index] != after[index]]
    return tuple(
        ItemChange(catalogue[index], attributes[catalogue[index]], int(before[index]), int(after[index]))
        for index in changed
    )
