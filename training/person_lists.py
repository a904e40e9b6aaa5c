"""What versions would recommend to one person today, side by side."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from infra.model_registry import ModelRegistry, check_there
from infra.online_store import OnlineStore
from training.bundle import Bundle, decode_history, history_key, load
from training.messages import ItemMessage, PersonLists, VersionList
from training.publish import current

MOST_VERSIONS = 4
"""Compared at once, and held in memory: bundles may be large."""


class Bundles:
    """Bundles of the registry, the last few that were asked for in memory. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[int, Bundle] = OrderedDict()

    def of(self, registry: ModelRegistry, version: int) -> Bundle:
        """A version's bundle.

        Raises:
            infra.model_registry.NoSuchVersion, infra.model_registry.VersionPurged, BundleError: see there.
        """
        check_there(registry.version(version))  # What is purged is not shown from memory either.
        with self._lock:
            if version not in self._held:
                self._held[version] = load(registry.bundle(version))
            self._held.move_to_end(version)
            while len(self._held) > MOST_VERSIONS:
                self._held.popitem(last=False)
            return self._held[version]


def lists_of(
    store: OnlineStore, bundle_of: Callable[[int], Bundle], user_id: str, versions: Sequence[int], k: int
) -> PersonLists:
    """A person's lists, by the same history, before hidden items are left out.

    Args:
        store: holds the history that nearline keeps.
        bundle_of: gives a version's bundle.
        user_id: the person; without a history, the lists are of what is popular.
        versions: to ask; none: the one that is served.
        k: length of the lists.

    Raises:
        Exception: what `bundle_of` and the store raise.
    """
    served = current(store)
    asked = list(dict.fromkeys(versions)) or ([] if served is None else [served])
    history = decode_history(cast("bytes | None", store.get(history_key(user_id))))
    known: dict[str, Mapping[str, Any]] = {}
    lists = []
    for version in asked:
        bundle = bundle_of(version)
        indices, _ = bundle.recommend([history], k)
        items = [_item(bundle, index) for index in indices[0].tolist() if index >= 0]
        lists.append(VersionList(version=version, served=version == served, items=items))
        places = bundle.item_index
        known |= {item: bundle.items.attributes[places[item]] for item in history if item in places}
    newest_first = sorted(history, key=lambda item: history[item].at_ms, reverse=True)
    return PersonLists(
        user_id=user_id, history=[ItemMessage.of(item, known.get(item, {})) for item in newest_first], lists=lists
    )


def _item(bundle: Bundle, index: int) -> ItemMessage:
    return ItemMessage.of(bundle.items.item_ids[index], bundle.items.attributes[index])
