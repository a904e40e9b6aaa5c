"""What a request wants of a list: its length, the filters that items have to pass, and the items it does not want."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt

from infra.http import Problem
from ingest.events import MAX_ID_BYTES, ItemRules

LONGEST = 100
"""Items in the longest list that is served."""

DEFAULT_K = 20
MOST_EXCLUDED = 100
CATEGORY = "category"
_LENGTHS = {str(k): k for k in range(1, LONGEST + 1)}
_MOST_PARAMETERS = 128

Filters = tuple[tuple[str, str], ...]
Mask = npt.NDArray[np.bool_]


class Wanted(NamedTuple):
    """What a request asks for.

    Attributes:
        k: longest list wanted, 1 to 100.
        filters: name of the filter → its value, sorted by name.
        exclude: ids of items that the caller does not want.
    """

    k: int = DEFAULT_K
    filters: Filters = ()
    exclude: frozenset[str] = frozenset()


USUAL_QUERIES = {b"": Wanted()} | {b"k=%d" % k: Wanted(k) for k in range(1, LONGEST + 1)}


def parse(query: bytes, items: ItemRules) -> Wanted:
    """What a query string wants. `explain` is for the caller to read.

    Args:
        query: as it was sent.
        items: which filters there are.

    Raises:
        Problem: 422 `invalid_request` when a parameter is unknown, given twice, or has a value outside its bounds: a
            filter that was mistyped must not show what it was meant to keep out.
    """
    if usual := USUAL_QUERIES.get(query):
        return usual
    known = {"k", "exclude", "explain", *_filter_names(items)}
    given: dict[str, str] = {}
    exclude: list[str] = []
    for name, value in _parameters(query):
        if name not in known:
            raise _invalid(f"A parameter is one of: {', '.join(sorted(known))}.")
        if name == "exclude":
            exclude.append(value)
        elif name in given:
            raise _invalid(f"{name} is given more than once.")
        else:
            given[name] = value
    given.pop("explain", None)
    return Wanted(_k(given.pop("k", str(DEFAULT_K))), filters_of(given, items), _excluded(exclude))


def _parameters(query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        raise _invalid(f"There are more than {_MOST_PARAMETERS} parameters.") from None


def _filter_names(items: ItemRules) -> set[str]:
    return {*items.filters} | ({CATEGORY} if items.category else set())


def _k(value: str) -> int:
    if k := _LENGTHS.get(value):
        return k
    raise _invalid(f"k is a whole number from 1 to {LONGEST}.")


def filters_of(given: Mapping[str, str], items: ItemRules) -> Filters:
    """Filters and their values in the form that a catalogue takes.

    Args:
        given: name → value, as it was sent.
        items: which filters there are.

    Raises:
        Problem: 422 `invalid_request`, as `parse`.
    """
    if not given.keys() <= (names := _filter_names(items)):
        raise _invalid(f"A filter is one of: {', '.join(sorted(names))}.")
    for name, value in given.items():
        if not value or len(value.encode()) > MAX_ID_BYTES:
            raise _invalid(f"{name} is 1 to {MAX_ID_BYTES} bytes of UTF-8.")
        if name != CATEGORY and items.filters[name].keep != "is" and not math.isfinite(_number(value)):
            raise _invalid(f"{name} is a number.")
    return tuple(sorted(given.items()))


def _excluded(values: list[str]) -> frozenset[str]:
    item_ids = [item_id for value in values for item_id in value.split(",")]
    if len(item_ids) > MOST_EXCLUDED or any(len(item_id.encode()) > MAX_ID_BYTES for item_id in item_ids):
        raise _invalid(f"exclude is at most {MOST_EXCLUDED} item ids, joined by commas or one a parameter.")
    return frozenset((*item_ids, *values))  # the values too: an id may hold a comma


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


def _invalid(detail: str) -> Problem:
    return Problem(422, "invalid_request", detail)


class ItemFilters:
    """Which items of one version the filters keep. Looked up, not searched: a filter's value comes from the caller.

    Args:
        attributes: (items,) what was said of each item.
        rules: which filters there are.
    """

    def __init__(self, attributes: Sequence[Mapping[str, Any]], rules: ItemRules) -> None:
        self._length = len(attributes)
        self._keep: dict[str, Callable[[str], Mask]] = {}
        categories: dict[str, list[int]] = {}
        if rules.category:
            categories = _items_by_value(attributes, rules.category)
            self._keep[CATEGORY] = self._keep_those_of(categories)
        for name, rule in rules.filters.items():
            if rule.keep == "is":
                self._keep[name] = self._keep_those_of(_items_by_value(attributes, rule.attribute))
            else:
                self._keep[name] = _keep_numbers(attributes, rule.attribute, at_most=rule.keep == "at_most")
        sizes = Counter({category: len(of) for category, of in categories.items()})
        self.categories = tuple(sorted(sizes, key=lambda category: (-sizes[category], category)))
        """Those of the items, most frequent first."""

    def mask(self, filters: Filters) -> Mask:
        """(items,) whether an item passes all of `filters`."""
        kept = np.ones(self._length, np.bool_)
        for name, value in filters:
            keep = self._keep.get(name)  # without a version, nothing is known of the domain's filters, nor any item
            kept &= keep(value) if keep else np.False_
        return kept

    def _keep_those_of(self, items: Mapping[str, list[int]]) -> Callable[[str], Mask]:
        def keep(value: str) -> Mask:
            kept = np.zeros(self._length, np.bool_)
            kept[items.get(value, [])] = True
            return kept

        return keep


def _items_by_value(attributes: Sequence[Mapping[str, Any]], name: str) -> dict[str, list[int]]:
    items: dict[str, list[int]] = {}
    for index, of_item in enumerate(attributes):
        for value in values_of(of_item.get(name)):
            items.setdefault(value, []).append(index)
    return items


def values_of(value: Any) -> Iterable[str]:
    """What an attribute says, each once: of a kind that holds several, or of one that holds one."""
    if value is None:
        return ()
    return dict.fromkeys(value) if isinstance(value, list) else (str(value),)


def _keep_numbers(attributes: Sequence[Mapping[str, Any]], name: str, *, at_most: bool) -> Callable[[str], Mask]:
    values = (of_item.get(name) for of_item in attributes)
    column = np.array([value if isinstance(value, int | float) else math.nan for value in values], np.float64)

    def keep(value: str) -> Mask:
        kept: Mask = column <= float(value) if at_most else column >= float(value)
        return kept

    return keep
