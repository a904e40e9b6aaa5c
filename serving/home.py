"""The home page: rows of a person's items, none of which stands in two of them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import orjson

from ingest.events import Domain
from serving.catalogue import Catalogue
from serving.diversity import category_vectors, spread
from serving.fallback import Ranked, Tier, ranked
from serving.filters import CATEGORY, LONGEST, Wanted, values_of
from serving.lineage import Kind, RecommendationIds
from serving.people import Person
from serving.similar import SimilarItems
from training.bundle import Bundle, History

DEFAULT_ROWS, MOST_ROWS = 8, 20
LONGEST_ROW = 40
LEAST = 3
"""Items without which a row beside the first two is no row."""

MOST_SEEDS, SEEDS_TRIED = 2, 6
"""Items of the history that get a row of what is like them, and how many are looked at for that."""

CATEGORIES_TRIED = 2 * MOST_ROWS


class Row(NamedTuple):
    """One row of the page.

    Attributes:
        kind: which sort of row.
        tier: where its items came from.
        indices: its items.
        because_of: the item that they are like, in such a row.
        category: which they are all of, in such a row.
    """

    kind: Kind
    tier: Tier
    indices: Sequence[int]
    because_of: int | None = None
    category: str | None = None


class Asked(NamedTuple):
    """What a page is made of.

    Attributes:
        wanted: items a row, and the filters that all rows pass.
        rows: most rows.
        person: whose page it is.
    """

    wanted: Wanted
    rows: int
    person: Person


class Page:
    """Rows as they are added: an item that stands in one is in none of those that follow.

    Args:
        catalogue: the version that is served.
        asked: what the page is made of.
    """

    def __init__(self, catalogue: Catalogue, asked: Asked) -> None:
        self.rows: list[Row] = []
        self._most, self._k = asked.rows, asked.wanted.k
        self._kept = catalogue.kept(asked.wanted)
        index_of = catalogue.items.index_of
        self._left_out = {index_of[item_id] for item_id in asked.wanted.exclude if item_id in index_of}

    @property
    def full(self) -> bool:
        """Whether there is no room for another row."""
        return len(self.rows) >= self._most

    def shows(self, item_index: int) -> bool:
        """Whether an item may stand on the page."""
        return bool(self._kept[item_index])

    def leave_out(self, indices: Iterable[int]) -> None:
        """Keep these out of the rows that follow."""
        self._left_out.update(indices)

    def left(self, indices: Iterable[int]) -> list[int]:
        """Those that may still be shown, each once."""
        return [index for index in dict.fromkeys(indices) if self._kept[index] and index not in self._left_out]

    def add(self, row: Row, least: int = LEAST) -> None:
        """Add a row of the first `k` of its items that are left, if there are `least` and there is room."""
        indices = self.left(row.indices)[: self._k]
        if not self.full and len(indices) >= min(least, self._k):
            self.rows.append(row._replace(indices=indices))
            self._left_out.update(indices)


def home(catalogue: Catalogue, asked: Asked, domain: Domain, similar: SimilarItems) -> list[Row]:
    """What was begun, the top picks, what is like the newest items, what is trending, and categories.

    Whatever is missing (history, lists, votes, the online store) leaves its rows out, and the others stand.

    Args:
        catalogue: the version that is served.
        asked: what the page is made of.
        domain: which acts begin an item, and whose values are categories.
        similar: items like an item.
    """
    page, history = Page(catalogue, asked), asked.person.history
    newest, begins = _newest(catalogue, history), domain.begins_weights
    begun = [index for index, weight in newest if weight in begins]
    page.add(Row(Kind.CONTINUE, Tier.LIVE, begun), least=1)
    page.leave_out(index for index, _ in newest)
    unseen = asked.wanted._replace(k=LONGEST, exclude=asked.wanted.exclude | history.keys())
    picks = ranked(catalogue, asked.person.stored, unseen)
    category = domain.items.category
    page.add(Row(Kind.TOP_PICKS, picks.tier, _spread(catalogue, picks.indices, asked.wanted.k, category)), least=1)
    if catalogue.bundle:
        liked = [index for index, weight in newest if weight > 0 and page.shows(index)]
        _add_like(page, catalogue.bundle, liked[:SEEDS_TRIED], similar)
    page.add(Row(Kind.TRENDING, Tier.POPULAR, catalogue.trending))
    _add_categories(page, catalogue, picks, asked.wanted, category)
    return page.rows


def render_page(catalogue: Catalogue, ids: RecommendationIds, rows: Sequence[Row]) -> bytes:
    """The page as JSON, each row with an id of its own."""
    rendered = (_rendered(catalogue, ids, row, position) for position, row in enumerate(rows, 1))
    return b'{"version":%d,"rows":[%b]}' % (catalogue.version, b",".join(rendered))


def _rendered(catalogue: Catalogue, ids: RecommendationIds, row: Row, position: int) -> bytes:
    signed = ids.sign_bytes(catalogue.version, row.tier, row.kind, position)
    about = b""
    if row.because_of is not None:
        about = b'"because_of":%b,' % catalogue.items.fragments[row.because_of]
    elif row.category is not None:
        about = b'"category":%b,' % orjson.dumps(row.category)
    head = (row.kind.label.encode(), signed, row.tier.label.encode(), about, catalogue.join(row.indices))
    return b'{"row":"%b","recommendation_id":"%b","tier":"%b",%b"items":[%b]}' % head


def _newest(catalogue: Catalogue, history: History) -> list[tuple[int, float]]:
    """(item_index, weight) of what this version knows of a history, newest first."""
    index_of = catalogue.items.index_of
    known = [(seen.at_ms, index_of[item_id], seen.weight) for item_id, seen in history.items() if item_id in index_of]
    return [(index, weight) for _, index, weight in sorted(known, reverse=True)]


def _spread(catalogue: Catalogue, indices: Sequence[int], k: int, category: str | None) -> Sequence[int]:
    """The first `k` in an order that is not all of one kind; as they are where nobody knows what they are."""
    if catalogue.bundle is None or category is None:
        return indices
    vectors = category_vectors([catalogue.bundle.items.attributes[index] for index in indices], category)
    return [indices[place] for place in spread(vectors, k)]


def _add_like(page: Page, bundle: Bundle, liked: Sequence[int], similar: SimilarItems) -> None:
    """A row for each of the newest items that has items like it, up to `MOST_SEEDS`."""
    most = len(page.rows) + MOST_SEEDS
    for seed in liked:
        if page.full or len(page.rows) >= most:
            break
        page.add(Row(Kind.BECAUSE_YOU_WATCHED, Tier.LIVE, similar.like(bundle, seed), because_of=seed))


def _add_categories(page: Page, catalogue: Catalogue, picks: Ranked, wanted: Wanted, category: str | None) -> None:
    """A row for each category that the person's list holds most of, then for the most frequent ones of all."""
    if category is None or CATEGORY in dict(wanted.filters):
        return
    names = dict.fromkeys([*_categories_of(catalogue, picks, category), *catalogue.categories])
    for name in list(names)[:CATEGORIES_TRIED]:
        if page.full:
            break
        of_category = wanted._replace(k=LONGEST, filters=tuple(sorted([*wanted.filters, (CATEGORY, name)])))
        kept = catalogue.kept(of_category)
        own = page.left(index for index in picks.indices if kept[index])
        tier = picks.tier if own or picks.tier is Tier.STATIC else Tier.POPULAR
        page.add(Row(Kind.CATEGORY, tier, [*own, *catalogue.popular_for(of_category)], category=name))


def _categories_of(catalogue: Catalogue, picks: Ranked, category: str) -> list[str]:
    """Those of a person's list, most frequent first; of a list that is everybody's none."""
    if catalogue.bundle is None or picks.tier not in (Tier.LIVE, Tier.PERSONAL):
        return []
    of_items = (catalogue.bundle.items.attributes[index] for index in picks.indices)
    counts = Counter(name for attributes in of_items for name in values_of(attributes.get(category)))
    return [name for name, _ in counts.most_common()]
