"""The home page: its rows, what stands in them, and what never does."""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from infra.online_store import OnlineStore, connect
from training.bundle import (
    EXPIRING,
    HIDDEN,
    TRENDING,
    Bundle,
    History,
    Interaction,
    ItemTable,
    encode_history,
    encode_list,
    history_key,
    list_key,
    live_key,
)

Publish = Callable[[OnlineStore, int, Bundle], None]
Page = list[dict[str, Any]]

PLAY, COMPLETE, THUMBS_DOWN = 1.0, 1.5, 0.0
WAR, HORROR, NOIR = range(34, 44), range(44, 52), range(52, 57)


@pytest.fixture
def published(serving: Any, store: OnlineStore, cinema: Bundle, publish: Publish) -> Any:
    """The app with 60 items of 6 categories."""
    publish(store, 1, cinema)
    return serving


def _knows(store: OnlineStore, history: Mapping[int, float], listed: Sequence[int] = ()) -> None:
    """Ann's history (item → weight, the newest last) and her live list."""
    seen: History = {f"f{item:02}": Interaction(1000 + at, weight) for at, (item, weight) in enumerate(history.items())}
    store.set(history_key("ann"), encode_history(seen))
    if listed:
        store.set(live_key(1, "ann"), encode_list(np.array(listed)))


def _page(serving: Any, query: str = "", user: str = "ann") -> Page:
    serving.watch.poll()
    answer = serving.get(f"/v1/users/{user}/home{query}")
    assert answer.status_code == 200, answer.text
    rows: Page = answer.json()["rows"]
    return rows


def _ids(row: Mapping[str, Any]) -> list[str]:
    return [item["item_id"] for item in row["items"]]


def _films(items: Sequence[int]) -> list[str]:
    return [f"f{item:02}" for item in items]


def _row(page: Page, kind: str) -> dict[str, Any]:
    return next(row for row in page if row["row"] == kind)


# --- rows ------------------------------------------------------------------------------------------------------------


def test_a_page_has_its_rows_in_order(published: Any, store: OnlineStore) -> None:
    """Begun, top picks, like the newest two items, trending, categories."""
    _knows(store, {34: COMPLETE, 44: PLAY}, [0, 1, 2, 20, 21, 22])
    store.zadd(TRENDING, {"f10": 3.0, "f11": 2.0, "f12": 1.0})
    page = _page(published, "?k=4&rows=7")
    kinds = ["continue", "top_picks", "because_you_watched", "because_you_watched", "trending", "category", "category"]
    assert [row["row"] for row in page] == kinds
    assert [row["tier"] for row in page[:5]] == ["live", "live", "live", "live", "popular"]


def test_what_was_begun_is_continued_newest_first(published: Any, store: OnlineStore) -> None:
    """A play is begun; what was completed or disliked since, or never begun, is not."""
    _knows(store, {34: PLAY, 35: COMPLETE, 36: THUMBS_DOWN, 44: PLAY})
    assert _ids(_row(_page(published), "continue")) == ["f44", "f34"]


def test_items_like_the_newest_ones_are_a_row_that_names_its_item(published: Any, store: OnlineStore) -> None:
    """The newest first, two at most, and none for what was disliked."""
    _knows(store, {52: COMPLETE, 34: COMPLETE, 44: COMPLETE, 20: THUMBS_DOWN}, [0, 1, 2])
    rows = [row for row in _page(published, "?k=5") if row["row"] == "because_you_watched"]
    assert [row["because_of"]["item_id"] for row in rows] == ["f44", "f34"]
    assert rows[0]["because_of"]["title"] == "Film 44"
    assert set(_ids(rows[0])) < set(_films(HORROR))
    assert set(_ids(rows[1])) < set(_films(WAR))


def test_categories_are_those_of_the_persons_list(published: Any, store: OnlineStore) -> None:
    """The category that the list holds most comes first, with the list's own items before popular ones."""
    _knows(store, {}, [43, 42, 41, 40, 39, 38, 51, 50, 49, 48])
    picks, *rows = _page(published, "?k=3&rows=4")
    assert [row["category"] for row in rows] == ["War", "Horror", "Drama"]
    own = [item for item in ("f43", "f42", "f41", "f40", "f39", "f38") if item not in _ids(picks)]
    assert _ids(rows[0]) == own[:3]
    assert rows[0]["tier"] == "live"
    assert rows[2]["tier"] == "popular"


def test_a_stranger_has_top_picks_and_the_most_frequent_categories(published: Any) -> None:
    """Nothing is known of them, so nothing is said of what they watched."""
    page = _page(published, "?k=5&rows=4", "stranger")
    assert [(row["row"], row.get("category")) for row in page] == [
        ("top_picks", None),
        ("category", "Drama"),
        ("category", "Comedy"),
        ("category", "War"),
    ]
    assert {row["tier"] for row in page} == {"popular"}


def test_top_picks_are_spread_over_categories(published: Any, store: OnlineStore) -> None:
    """A list that begins with one category has another among the first on the page; the plain list stays as it is."""
    listed = [*range(10), 20, 34, 44]
    _knows(store, {}, listed)
    picks = _ids(_row(_page(published, "?k=6"), "top_picks"))
    assert picks[0] == "f00"
    assert set(picks) & {"f20", "f34", "f44"}
    plain = published.get("/v1/users/ann/recommendations?k=6").json()["items"]
    assert [item["item_id"] for item in plain] == _films(listed[:6])


def test_rows_with_too_few_items_are_left_out(published: Any, store: OnlineStore) -> None:
    """Two trending items are no row; one begun item is."""
    _knows(store, {0: PLAY})
    store.zadd(TRENDING, {"f10": 3.0, "f11": 2.0})
    page = _page(published, "?rows=20&k=4")
    assert _ids(_row(page, "continue")) == ["f00"]
    assert not {"f10", "f11"} & set(_ids(_row(page, "top_picks")))
    assert "trending" not in [row["row"] for row in page]


@pytest.fixture
def wide(serving: Any, store: OnlineStore, cinema: Bundle, publish: Publish) -> Any:
    """The app with 260 items: the most popular 100 are hits, the others are not."""
    table = ItemTable(
        tuple(f"f{item:02}" for item in range(260)),
        tuple({"genres": ["Hit" if item < 100 else "Rest"]} for item in range(260)),
        np.arange(260, 0, -1, dtype=np.float32),
    )
    publish(store, 1, replace(cinema, items=table))
    return serving


def test_a_strangers_categories_are_the_most_frequent_of_all_items(wide: Any) -> None:
    """Not of the popular list, which nobody chose."""
    assert [row["category"] for row in _page(wide, "?k=5", "stranger")[1:]] == ["Rest", "Hit"]


def test_who_has_seen_what_is_popular_has_top_picks_nevertheless(wide: Any, store: OnlineStore) -> None:
    """The popular list goes on where the history ends."""
    _knows(store, dict.fromkeys(range(110), THUMBS_DOWN))
    assert set(_ids(_row(_page(wide), "top_picks"))) <= set(_films(range(110, 200)))
    assert len(_ids(_row(_page(wide), "top_picks"))) == 20


# --- no repeats, nothing hidden --------------------------------------------------------------------------------------


def test_no_item_stands_twice_on_a_page(published: Any, store: OnlineStore) -> None:
    """Whatever the lengths and the number of rows, and though list, trending and categories hold the same items."""
    _knows(store, {34: PLAY, 44: COMPLETE, 20: PLAY}, [35, 36, 45, 46, 0, 1, 21, 22, 37])
    store.zadd(TRENDING, {f"f{item:02}": 60.0 - item for item in range(60)})
    for query in ("", "?k=1&rows=20", "?k=3&rows=20", "?k=40&rows=20", "?k=5&rows=8"):
        shown = [item for row in _page(published, query) for item in _ids(row)]
        assert shown
        assert len(shown) == len(set(shown)), query


def test_what_was_seen_stands_in_continue_only(published: Any, store: OnlineStore) -> None:
    """Popular, trending, likeness and a list older than the history hold seen items: all leave them out."""
    _knows(store, dict.fromkeys(range(8), COMPLETE) | {20: THUMBS_DOWN, 34: PLAY}, [0, 1, 2, 35, 36])
    store.zadd(TRENDING, {f"f{item:02}": 60.0 - item for item in range(30)})
    for query in ("", "?k=1"):
        page = _page(published, query)
        assert _ids(_row(page, "continue")) == ["f34"]
        shown = {item for row in page if row["row"] != "continue" for item in _ids(row)}
        assert not shown & {*_films(range(8)), "f20", "f34"}


def test_nothing_hidden_or_expired_is_on_a_page(published: Any, store: OnlineStore) -> None:
    """Not as an item of any row, and not as the item that a row is about."""
    _knows(store, {34: PLAY, 44: PLAY, 45: PLAY}, [0, 1, 35, 36, 46])
    store.zadd(TRENDING, {f"f{item:02}": 60.0 - item for item in range(30)})
    store.sadd(HIDDEN, "f44", "f00", "f35")
    store.hset(EXPIRING, mapping={"f45": 1000, "f10": 1000, "f46": 1000})
    page = _page(published, "?rows=20&k=40")
    assert _ids(_row(page, "continue")) == ["f34"]
    assert not {"f44", "f00", "f35", "f45", "f10", "f46"} & {item for row in page for item in _ids(row)}
    assert [row["because_of"]["item_id"] for row in page if "because_of" in row] == ["f34"]


def test_filters_hold_for_every_row(published: Any, store: OnlineStore) -> None:
    """A page for a child: rated 6, in all rows; without what the caller excludes."""
    _knows(store, {34: PLAY, 35: PLAY, 44: COMPLETE}, [0, 1, 2, 3, 36, 37])
    store.zadd(TRENDING, {f"f{item:02}": 60.0 - item for item in range(30)})
    page = _page(published, "?max_age_rating=12&exclude=f02,f34&rows=20")
    rated = {item["age_rating"] for row in page for item in [*row["items"], *filter(None, [row.get("because_of")])]}
    assert rated == {6}
    assert not {"f02", "f34"} & {item for row in page for item in _ids(row)}
    war = _page(published, "?category=War")
    assert {tuple(item["genres"]) for row in war for item in row["items"]} == {("War",)}
    assert "category" not in [row["row"] for row in _page(published, "?category=War&k=3", "stranger")]


# --- form ------------------------------------------------------------------------------------------------------------


def test_each_row_has_a_lineage_of_its_own(published: Any, store: OnlineStore) -> None:
    """Version, tier, kind and position on the page, from 1 on."""
    _knows(store, {34: PLAY, 44: PLAY}, [0, 1, 2])
    page = _page(published)
    said = [published.ids.resolve(row["recommendation_id"]) for row in page]
    assert [lineage.position for lineage in said] == list(range(1, len(page) + 1))
    assert [(lineage.kind.label, lineage.tier.label) for lineage in said] == [(r["row"], r["tier"]) for r in page]
    assert {lineage.version for lineage in said} == {1}
    resolved = published.get(f"/v1/recommendations/{page[0]['recommendation_id']}").json()
    assert (resolved["row"], resolved["position"], resolved["model"]["run_id"]) == ("continue", 1, "run-1")


@pytest.mark.parametrize("query", ["k=0", "k=41", "rows=0", "rows=21", "k=x", "color=red", "explain=true", "rows="])
def test_parameters_have_bounds(published: Any, query: str) -> None:
    """Whatever is outside of them, or unknown, is refused."""
    assert published.get(f"/v1/users/ann/home?{query}").json()["code"] == "invalid_request"


def test_a_page_has_at_most_the_rows_and_items_that_were_asked_for(published: Any, store: OnlineStore) -> None:
    """One row: the first."""
    _knows(store, {34: PLAY, 44: PLAY}, [0, 1, 2])
    assert [(row["row"], len(row["items"])) for row in _page(published, "?k=1&rows=1")] == [("continue", 1)]


def test_a_person_may_have_a_slash_in_their_id(published: Any, store: OnlineStore) -> None:
    """It is sent as %2F."""
    store.set(history_key("a/b"), encode_history({"f34": Interaction(1000, PLAY)}))
    assert _ids(_row(_page(published, user="a%2Fb"), "continue")) == ["f34"]


# --- whatever is missing ---------------------------------------------------------------------------------------------


def test_before_the_first_version_a_page_is_empty(serving: Any) -> None:
    """No items, no rows, no error."""
    assert serving.get("/v1/users/ann/home").json() == {"version": 0, "rows": []}


@pytest.mark.parametrize("value", [b"\xff\x00", b"{}", b"[1]", b"[[1]]", b'[["a",1.0,"m"]]', b'[[1,"x","f34"]]', b"7"])
def test_a_history_that_cannot_be_read_is_none(published: Any, store: OnlineStore, value: bytes) -> None:
    """The other rows stand, and the metric counts it."""
    store.set(history_key("ann"), value)
    store.set(list_key(1, "ann"), encode_list(np.array([34, 35])))
    page = _page(published)
    assert (page[0]["row"], page[0]["tier"]) == ("top_picks", "personal")
    if value not in {b"{}"}:
        assert published.metrics.corrupt == 1


def test_a_list_that_cannot_be_read_is_passed_over(published: Any, store: OnlineStore) -> None:
    """The popular one is in its place."""
    store.set(live_key(1, "ann"), b"abc")
    assert _page(published)[0]["tier"] == "popular"


def test_with_the_store_down_a_page_comes_from_memory(
    own_redis: Any, serve: Callable[[str, float], Any], cinema: Bundle, publish: Publish
) -> None:
    """Popular, trending and categories as they were last known; no row of the person's, no error; and back again."""
    store = connect(own_redis.url)
    publish(store, 1, cinema)
    store.zadd(TRENDING, {"f30": 3.0, "f31": 2.0, "f32": 1.0})
    _knows(store, {34: PLAY}, [35, 36, 37])
    serving = serve(own_redis.url, 0.2)
    assert _page(serving)[0]["row"] == "continue"
    own_redis.kill()
    for _ in range(3):
        page = _page(serving, "?k=5")
        assert [row["row"] for row in page] == ["top_picks", "trending", *["category"] * 6]
        assert {row["tier"] for row in page} == {"popular"}
    own_redis.start()
    for _ in range(100):
        if _page(serving)[0]["row"] == "continue":
            break
        serving.wait(0.1)
    assert _page(serving)[0]["row"] == "continue"
    store.close()


def test_a_silent_store_is_noticed_once_and_costs_one_wait(
    own_redis: Any,
    serve: Callable[[str, float], Any],
    cinema: Bundle,
    publish: Publish,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Many pages are being read when it falls silent: one line in the log, and the next pages do not ask."""
    store = connect(own_redis.url)
    publish(store, 1, cinema)
    _knows(store, {34: PLAY})
    serving = serve(own_redis.url, 0.2)
    assert _page(serving)
    own_redis.kill(signal.SIGSTOP)
    answers = serving.all(["/v1/users/ann/home"] * 20)
    failed = sum(serving.metrics.store_errors.values())
    answers += serving.all(["/v1/users/ann/home"] * 5)
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["rows"][0]["row"] for answer in answers} == {"top_picks"}
    assert sum(serving.metrics.store_errors.values()) == failed == 20
    assert capsys.readouterr().out.count("unreadable") == 1
    own_redis.kill(signal.SIGCONT)
    store.close()


def test_a_late_page_takes_no_list_from_anybody(
    own_redis: Any, serve: Callable[[str, float], Any], cinema: Bundle, publish: Publish
) -> None:
    """What reads for a page may fail by being late itself: the lists of the hot path are asked for all the same."""
    store = connect(own_redis.url)
    publish(store, 1, cinema)
    _knows(store, {}, [35, 36])
    serving = serve(own_redis.url, 0.2)
    assert _page(serving)[0]["tier"] == "live"
    own_redis.kill(signal.SIGSTOP)
    assert serving.get("/v1/users/ann/home").json()["rows"][0]["tier"] == "popular"
    own_redis.kill(signal.SIGCONT)
    assert serving.get("/v1/users/ann/recommendations").json()["tier"] == "live"
    store.close()


def test_a_process_that_starts_without_the_store_has_a_page(
    published: Any, serve: Callable[[str, float], Any], store: OnlineStore
) -> None:
    """Of the list that the last one left in a file: popular items and categories, and says so; sessions likewise."""
    store.sadd(HIDDEN, "f00")
    published.watch.poll()
    alone = serve("unix:///nowhere/redis.sock", 0.1)
    page = _page(alone, "?k=4")
    assert {row["row"] for row in page} <= {"top_picks", "category"}
    assert {row["tier"] for row in page} == {"static"}
    assert _ids(page[0]) == ["f01", "f02", "f03", "f04"]
    shown = [item for row in page for item in _ids(row)]
    assert len(shown) == len(set(shown))
    [answer] = alone.all(["/v1/recommendations"], method="POST", json={"history": [{"item_id": "f01"}], "k": 2})
    assert (answer.json()["tier"], _ids(answer.json())) == ("static", ["f02", "f03"])


def test_every_row_of_a_static_page_says_that_it_is(wide: Any, serve: Callable[[str, float], Any]) -> None:
    """Those of categories too that the first hundred items have none of."""
    wide.watch.poll()
    page = _page(serve("unix:///nowhere/redis.sock", 0.1), "?k=5")
    assert {row["tier"] for row in page} == {"static"}
    assert {row.get("category") for row in page} == {None, "Hit", "Rest"}
