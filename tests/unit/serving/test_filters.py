"""What a request wants, and which items the filters keep."""

import pytest

from infra.http import Problem
from ingest.events import Domain, ItemFilter, ItemRules
from serving.filters import ItemFilters, Wanted, parse

FILMS = [
    {"genres": ["Comedy", "Drama"], "age_rating": 6, "year": 1990},
    {"genres": ["Drama", "Drama"], "age_rating": 16},
    {"genres": ["Drama"], "age_rating": "sixteen", "year": 2001},
    {},
]


def _kept(domain: Domain, *filters: tuple[str, str]) -> list[int]:
    return [int(index) for index in ItemFilters(FILMS, domain.items).mask(filters).nonzero()[0]]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (b"", Wanted(20)),
        (b"k=7", Wanted(7)),
        (b"k=7&explain=true", Wanted(7)),
        (b"category=Sci-Fi+%26+Fantasy&k=5", Wanted(5, (("category", "Sci-Fi & Fantasy"),))),
        (b"min_year=1990&category=%C3%A9", Wanted(20, (("category", "é"), ("min_year", "1990")))),
        (b"exclude=m1,m2&exclude=m3", Wanted(20, (), frozenset({"m1", "m2", "m1,m2", "m3"}))),
    ],
)
def test_a_query_says_what_is_wanted(domain: Domain, query: bytes, wanted: Wanted) -> None:
    """Length, filters sorted by name, items that are not wanted; `explain` is somebody else's."""
    assert parse(query, domain.items) == wanted


@pytest.mark.parametrize(
    "query",
    [
        b"catgory=Comedy",
        b"category=Comedy&category=Drama",
        b"category=",
        b"category=" + b"x" * 129,
        b"max_age_rating=teen",
        b"max_age_rating=nan",
        b"k=5&k=6",
        b"exclude=" + b",".join(b"m%d" % index for index in range(101)),
        b"exclude=" + b"x" * 129,
        b"&".join(b"x%d=1" % index for index in range(200)),
    ],
)
def test_what_is_not_understood_is_refused(domain: Domain, query: bytes) -> None:
    """A mistyped filter must not show what it was meant to keep out."""
    with pytest.raises(Problem) as refused:
        parse(query, domain.items)
    assert (refused.value.status, refused.value.code) == (422, "invalid_request")


def test_a_refusal_names_the_parameters_that_there_are(domain: Domain) -> None:
    """Those of the domain among them."""
    with pytest.raises(Problem, match="category, exclude, explain, k, max_age_rating, min_year"):
        parse(b"colour=red", domain.items)


def test_a_hundred_ids_may_be_excluded(domain: Domain) -> None:
    """As long as ids may be."""
    ids = [f"{index:03}" + "x" * 125 for index in range(100)]
    assert frozenset(ids) <= parse(b"exclude=" + ",".join(ids).encode(), domain.items).exclude


def test_a_domain_without_a_category_has_no_such_parameter() -> None:
    """The parameters are the domain's."""
    with pytest.raises(Problem):
        parse(b"category=Comedy", ItemRules(attributes={}))


def test_filters_keep_by_attribute(domain: Domain) -> None:
    """Items without the attribute, or with one of another kind, are not kept; all filters have to be passed."""
    assert _kept(domain) == [0, 1, 2, 3]
    assert _kept(domain, ("category", "Drama")) == [0, 1, 2]
    assert _kept(domain, ("category", "unknown")) == []
    assert _kept(domain, ("max_age_rating", "12")) == [0]
    assert _kept(domain, ("max_age_rating", "16")) == [0, 1]
    assert _kept(domain, ("min_year", "1990.5")) == [2]
    assert _kept(domain, ("category", "Drama"), ("min_year", "1980")) == [0, 2]


def test_is_compares_as_text() -> None:
    """Whole numbers, too."""
    rules = ItemRules(attributes={"disc": "integer"}, filters={"disc": ItemFilter(attribute="disc", keep="is")})
    assert ItemFilters([{"disc": 1}, {"disc": 2}], rules).mask((("disc", "2"),)).tolist() == [False, True]


def test_categories_are_the_items_own_most_frequent_first(domain: Domain) -> None:
    """An item that names a category twice counts once."""
    assert ItemFilters(FILMS, domain.items).categories == ("Drama", "Comedy")


def test_while_there_is_no_version_no_item_is_kept_and_no_filter_is_an_error() -> None:
    """The catalogue before the first version knows no rules."""
    nothing = ItemFilters((), ItemRules(attributes={}))
    assert nothing.mask((("category", "Drama"),)).tolist() == []
