"""Why an item is in a list: what it owes to the person's history, or what most people watch."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
from scipy import sparse

from ingest.events import ItemRules
from serving.catalogue import Catalogue
from serving.fallback import Tier
from serving.filters import LONGEST, Wanted
from training.bundle import Bundle, History, Model

MOST_NAMED = 3
LEAST_SHARE = 0.005
"""Less than half a per cent is rounded away, and explains nothing."""


class Reason(StrEnum):
    """Why an item is in a list. The words never change: clients choose their own sentences by them."""

    HISTORY = "history"
    POPULAR = "popular"
    TRENDING = "trending"


class Because(NamedTuple):
    """The reason of one item.

    Attributes:
        reason: in a word.
        shares: item_index in the history → its share of what speaks for the item, the largest first. None with other
            reasons than the history, and none where the history is not there any more.
    """

    reason: Reason
    shares: Mapping[int, float]


def explain(catalogue: Catalogue, history: History, tier: Tier, indices: Sequence[int]) -> list[Because]:
    """Why each item is in a person's list.

    What an item of the history contributes is the model's own account of its score; of negative contributions (it
    speaks against) nothing is said. Where nothing speaks for an item it filled up the list: it is popular or trending.

    Args:
        catalogue: the version that made the list.
        history: the person's, as it stands now.
        tier: where the list came from.
        indices: the list.
    """
    bundle = catalogue.bundle
    if bundle is None or tier not in (Tier.LIVE, Tier.PERSONAL):
        return _by_votes(catalogue, indices)
    row = bundle.rows([history]).weighted(bundle.manifest.recency).copy()
    row.eliminate_zeros()
    if not row.nnz:
        return [Because(Reason.HISTORY, {})] * len(indices)
    told = _told(catalogue, bundle, row)
    others = _by_votes(catalogue, indices)
    shares = [_shares(bundle.model, row, index, told) for index in indices]
    return [other if of is None else Because(Reason.HISTORY, of) for of, other in zip(shares, others, strict=True)]


def render_explained(
    catalogue: Catalogue, indices: Sequence[int], reasons: Sequence[Because], rules: ItemRules
) -> bytes:
    """The items' JSON joined by commas, each with its `because`.

    Args:
        catalogue: the version that made the list.
        indices: the list.
        reasons: one an item.
        rules: which attribute items are called by.
    """
    fragments = catalogue.items.fragments
    parts = [
        b'%b,"because":%b}' % (fragments[index][:-1], _because(catalogue, because, rules))
        for index, because in zip(indices, reasons, strict=True)
    ]
    return b",".join(parts)


def _told(catalogue: Catalogue, bundle: Bundle, row: sparse.csr_matrix) -> npt.NDArray[np.bool_]:
    """(nnz,) which items of the history may be named: a hidden one counts, but is not shown here either."""
    kept = catalogue.kept(Wanted())
    return np.array([kept[index] == 1 for index in row.indices], np.bool_)


def _shares(
    model: Model, row: sparse.csr_matrix, item_index: int, told: npt.NDArray[np.bool_]
) -> dict[int, float] | None:
    """None where nothing of the history speaks for the item."""
    speaks = np.maximum(model.contributions(row, item_index).astype(np.float64), 0)
    total = speaks.sum()
    if not total > 0:
        return None
    shares = np.where(told, speaks / total, 0)
    largest = np.argsort(-shares, kind="stable")[:MOST_NAMED]
    return {int(row.indices[at]): round(float(shares[at]), 3) for at in largest if shares[at] >= LEAST_SHARE}


def _by_votes(catalogue: Catalogue, indices: Sequence[int]) -> list[Because]:
    popular = set(catalogue.popular_for(Wanted(LONGEST)))
    rising = set(catalogue.trending[:LONGEST]) - popular
    return [Because(Reason.TRENDING if index in rising else Reason.POPULAR, {}) for index in indices]


def _because(catalogue: Catalogue, because: Because, rules: ItemRules) -> bytes:
    named = [{**_called(catalogue, index, rules), "share": share} for index, share in because.shares.items()]
    return orjson.dumps({"reason": because.reason, "items": named})


def _called(catalogue: Catalogue, index: int, rules: ItemRules) -> dict[str, Any]:
    of_item = orjson.loads(catalogue.items.fragments[index])
    return {name: of_item[name] for name in ("item_id", rules.name) if name is not None and name in of_item}
