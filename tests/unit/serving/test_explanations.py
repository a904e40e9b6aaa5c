"""Why an item is in a list."""

from collections.abc import Mapping

import numpy as np
import orjson
import pytest
from scipy import sparse

from ingest.events import ItemRules
from serving.catalogue import Catalogue, Votes
from serving.explanations import Because, Reason, explain, render_explained
from serving.fallback import Tier
from training.bundle import Bundle, History, Indices, Interaction, Scores
from training.recency import Recency

RULES = ItemRules(attributes={"title": "string", "genres": "strings", "age_rating": "integer"}, name="title")


class Told:
    """A model that says of each item of the history what it was told to say."""

    def __init__(self, says: Mapping[int, float]) -> None:
        self._says = says

    def contributions(self, user_items: sparse.csr_matrix, item_index: int) -> Scores:
        """What it was told, times the weight."""
        told = [self._says.get(int(index), 0.0) for index in user_items.indices]
        return np.asarray(np.array(told) * user_items.data, np.float32)

    def recommend(self, user_items: sparse.csr_matrix, k: int) -> tuple[Indices, Scores]:
        """Not asked here."""
        raise NotImplementedError

    def similar_items(self, item_index: int, k: int) -> tuple[Indices, Scores]:
        """Not asked here."""
        raise NotImplementedError


def _catalogue(bundle: Bundle, says: Mapping[int, float] | None = None) -> Catalogue:
    model = bundle.model if says is None else Told(says)
    return Catalogue.of(1, Bundle(bundle.manifest, bundle.items, model, bundle.arrays), RULES)


def _history(weights: Mapping[int, float]) -> History:
    return {f"f{item:02}": Interaction(1000 + at, weight) for at, (item, weight) in enumerate(weights.items())}


def test_an_item_owes_its_place_to_what_is_like_it(cinema: Bundle) -> None:
    """The model's own account: a war film to the war films, a horror film to the horror film."""
    reasons = explain(_catalogue(cinema), _history({34: 1.0, 35: 1.0, 44: 1.0, 20: 0.0}), Tier.LIVE, [37, 46])
    assert [because.reason for because in reasons] == [Reason.HISTORY, Reason.HISTORY]
    assert set(reasons[0].shares) == {34, 35}
    assert reasons[1].shares == {44: 1.0}
    assert sum(reasons[0].shares.values()) == pytest.approx(1, abs=0.002)


def test_three_items_are_named_the_largest_share_first(cinema: Bundle) -> None:
    """A share is of all that speaks for the item, named or not; what speaks against it is no part of that."""
    catalogue = _catalogue(cinema, {1: 1.0, 2: 4.0, 3: 2.0, 4: 3.0, 5: -50.0})
    [because] = explain(catalogue, _history(dict.fromkeys(range(1, 7), 1.0)), Tier.PERSONAL, [50])
    assert list(because.shares.items()) == [(2, 0.4), (4, 0.3), (3, 0.2)]


def test_weights_and_recency_count_as_they_do_for_the_list(cinema: Bundle) -> None:
    """A heavier act says more, and so does a newer one where the recipe weighs it so."""
    catalogue = _catalogue(cinema, {1: 1.0, 2: 1.0})
    [because] = explain(catalogue, _history({1: 3.0, 2: 1.0}), Tier.LIVE, [50])
    assert because.shares == {1: 0.75, 2: 0.25}
    newest = cinema.manifest.model_copy(update={"recency": Recency(boost=3.0, half_life=0.001)})
    catalogue = _catalogue(Bundle(newest, cinema.items, cinema.model, cinema.arrays), {1: 1.0, 2: 1.0})
    [because] = explain(catalogue, _history({1: 1.0, 2: 1.0}), Tier.LIVE, [50])
    assert because.shares == {2: 0.8, 1: 0.2}


def test_what_nothing_speaks_for_is_popular_or_trending(cinema: Bundle) -> None:
    """It filled up the list. Trending is what is watched now and not among the 100 most popular."""
    catalogue = _catalogue(cinema, {1: -1.0})
    reasons = explain(catalogue, _history({1: 1.0}), Tier.LIVE, [50])
    assert reasons == [Because(Reason.POPULAR, {})]
    many = Bundle(
        cinema.manifest,
        cinema.items._replace(
            item_ids=tuple(f"i{item:03}" for item in range(180)),
            attributes=({},) * 180,
            popularity=np.arange(180, 0, -1, dtype=np.float32),
        ),
        Told({}),
        {},
    )
    rising = Catalogue.of(1, many, RULES).showing(frozenset(), Votes(trending=("i000", "i150", "i160")))
    assert [because.reason for because in explain(rising, {}, Tier.POPULAR, [0, 150, 170])] == [
        Reason.POPULAR,
        Reason.TRENDING,
        Reason.POPULAR,
    ]


@pytest.mark.parametrize("tier", [Tier.POPULAR, Tier.STATIC])
def test_a_list_that_is_everybodys_is_not_explained_by_a_history(cinema: Bundle, tier: Tier) -> None:
    """Though there is one, and the model would have something to say."""
    assert explain(_catalogue(cinema, {1: 1.0}), _history({1: 1.0}), tier, [50]) == [Because(Reason.POPULAR, {})]


@pytest.mark.parametrize("history", [{}, {20: 0.0}])
def test_a_personal_list_whose_history_is_gone_says_no_more_than_that(
    cinema: Bundle, history: Mapping[int, float]
) -> None:
    """It was made from a history; nothing else is claimed."""
    assert explain(_catalogue(cinema), _history(history), Tier.PERSONAL, [37, 38]) == [Because(Reason.HISTORY, {})] * 2


def test_a_hidden_item_counts_but_is_not_named(cinema: Bundle) -> None:
    """Its share stays its own: the others are not made to look larger."""
    catalogue = _catalogue(cinema, {1: 3.0, 2: 1.0}).showing(frozenset({"f01"}), Votes())
    [because] = explain(catalogue, _history({1: 1.0, 2: 1.0}), Tier.LIVE, [50])
    assert because.shares == {2: 0.25}


def test_an_explained_item_is_the_item_and_its_reason(cinema: Bundle) -> None:
    """What is named has its id, what people call it, and its share."""
    catalogue = _catalogue(cinema)
    items = render_explained(catalogue, [37], [Because(Reason.HISTORY, {34: 0.6, 35: 0.4})], RULES)
    [item] = orjson.loads(b"[%b]" % items)
    assert item["because"] == {
        "reason": "history",
        "items": [
            {"item_id": "f34", "title": "Film 34", "share": 0.6},
            {"item_id": "f35", "title": "Film 35", "share": 0.4},
        ],
    }
    assert {name: item[name] for name in ("item_id", "title", "genres")} == {
        "item_id": "f37",
        "title": "Film 37",
        "genres": ["War"],
    }


def test_names_are_left_out_where_the_domain_has_none(cinema: Bundle) -> None:
    """An id is enough then."""
    rules = ItemRules(attributes={"title": "string"})
    items = render_explained(_catalogue(cinema), [37], [Because(Reason.HISTORY, {34: 1.0})], rules)
    assert orjson.loads(items)["because"]["items"] == [{"item_id": "f34", "share": 1.0}]
