"""Items like an item, as the served model knows them; the last ones asked for are kept."""

from collections.abc import Callable, Sequence
from functools import lru_cache

from training.bundle import Bundle

MOST_KEPT = 4096
LIKE_EACH = 300
"""Items that are kept of each: the longest list, and room for what is hidden or was seen."""


class SimilarItems:
    """Asks the model of whatever version is served. Safe to share between threads."""

    def __init__(self) -> None:
        self._of: tuple[Bundle | None, Callable[[int], Sequence[int]]] = (None, lambda _: ())

    def like(self, bundle: Bundle, item_index: int) -> Sequence[int]:
        """Item indices, most alike first, whether or not they may be shown.

        Args:
            bundle: of the version that is asked.
            item_index: the item.
        """
        asked, like = self._of
        if asked is not bundle:
            like = _kept(bundle)
            self._of = (bundle, like)
        return like(item_index)


def _kept(bundle: Bundle) -> Callable[[int], Sequence[int]]:
    @lru_cache(MOST_KEPT)
    def like(item_index: int) -> Sequence[int]:
        wanted = min(LIKE_EACH, len(bundle.items.item_ids))
        found: Sequence[int] = bundle.model.similar_items(item_index, wanted)[0].tolist()
        return found

    return like
