"""The published model survives its way through bytes, and nothing but it does."""

import io
import pickle
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain, pairwise
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from training.algorithms.als import ALS
from training.algorithms.base import Algorithm
from training.algorithms.item_item import ItemItem
from training.algorithms.popularity import Popularity
from training.bundle import (
    FORMAT,
    Bundle,
    BundleError,
    History,
    Indices,
    Interaction,
    ItemTable,
    Manifest,
    Model,
    Scores,
    Snapshot,
    add_to_history,
    bundle_key,
    decode_history,
    decode_list,
    encode_history,
    encode_list,
    list_key,
    live_key,
    load,
    recommend,
)

ITEMS = 12
KINDS: dict[str, type[Algorithm]] = {"popularity": Popularity, "als": ALS, "item_item": ItemItem}


def user_items() -> sparse.csr_matrix:
    random = np.random.default_rng(3)
    return sparse.csr_matrix((random.random((40, ITEMS)) < 0.4).astype(np.float32))


def a_bundle(kind: str = "als", format_: int = FORMAT) -> Bundle:
    model = KINDS[kind]()
    model.fit(user_items())
    manifest = Manifest(
        format=format_,
        algorithm=model.name,
        parameters=model.parameters,
        domain="films",
        history_length=10,
        snapshot=Snapshot(version=3, digest="d", watermark={0: 7}, events=9, users=40),
        code="c0ffee",
        run_id="r1",
        trained_at=datetime(2024, 1, 1, tzinfo=UTC),
        metrics={"ndcg_at_10": 0.5},
    )
    popularity = np.asarray(user_items().sum(axis=0)).ravel().astype(np.float32)
    items = ItemTable(
        tuple(f"m{i:02}" for i in range(ITEMS)), tuple({"title": f"Film {i}"} for i in range(ITEMS)), popularity
    )
    return Bundle(manifest, items, model, model.arrays())


def liked(*items: int) -> History:
    return {f"m{item:02}": Interaction(item, 1.0) for item in items}


def altered(value: bytes, name: str, content: bytes) -> bytes:
    """The zip file with one member replaced."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(value)) as old, zipfile.ZipFile(buffer, "w") as new:
        for member in old.namelist():
            new.writestr(member, content if member == name else old.read(member))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_recommends_the_same_after_its_way_through_bytes(kind: str) -> None:
    bundle = a_bundle(kind)
    again = load(bundle.dump())
    histories = [liked(1, 2, 3), liked(7), {}, {"unknown": Interaction(1, 1.0)}]
    for one, two in zip(bundle.recommend(histories, 5), again.recommend(histories, 5), strict=True):
        assert one.tolist() == two.tolist()
    assert again.manifest == bundle.manifest
    assert again.items.item_ids == bundle.items.item_ids
    assert again.items.attributes == bundle.items.attributes
    assert again.digest() == bundle.digest()
    assert again.dump() == bundle.dump()


def test_an_altered_byte_anywhere_in_the_content_is_found() -> None:
    value = a_bundle().dump()
    with zipfile.ZipFile(io.BytesIO(value)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    for name, content in members.items():
        if name != "manifest.json":
            changed = bytes([content[0] ^ 1]) + content[1:]
            with pytest.raises(BundleError, match=name):
                load(altered(value, name, changed))


@pytest.mark.parametrize("value", [b"", b"not a zip file", a_bundle().dump()[:-30]])
def test_bytes_that_are_no_bundle_are_refused(value: bytes) -> None:
    with pytest.raises(BundleError):
        load(value)


def test_a_missing_or_an_added_member_is_refused() -> None:
    value = a_bundle().dump()
    buffer = io.BytesIO(value)
    with zipfile.ZipFile(buffer, "a") as file:
        file.writestr("arrays/more.npy", b"")
    with pytest.raises(BundleError, match="more"):
        load(buffer.getvalue())


def test_a_format_of_the_future_is_refused_with_what_to_do() -> None:
    with pytest.raises(BundleError, match=f"format 99, this code reads format {FORMAT}"):
        load(a_bundle(format_=99).dump())


def test_a_pickled_array_is_refused_even_when_its_digest_is_right() -> None:
    """Nothing in a bundle is executed when it is read."""
    bundle = a_bundle("popularity")
    with pytest.raises(ValueError, match="pickle"):
        Bundle(bundle.manifest, bundle.items, bundle.model, {"popularity": np.array([{}], dtype=object)}).dump()
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.array([{}], dtype=object), allow_pickle=True)
    assert pickle.dumps({})[:2] in buffer.getvalue()
    with pytest.raises(BundleError):
        load(altered(bundle.dump(), "popularity.npy", buffer.getvalue()))


def _otherwise_after_a_byte_changed(value: bytes, places: Iterable[int]) -> list[int]:
    """Places where a changed byte gives a bundle that loads, and is another one."""
    digest, otherwise = load(value).digest(), []
    for place in places:
        changed = bytearray(value)
        changed[place] ^= 0x55
        with suppress(BundleError):
            if load(bytes(changed)).digest() != digest:
                otherwise.append(place)
    return otherwise


def test_a_byte_that_is_altered_anywhere_is_noticed_or_changes_nothing() -> None:
    """And whatever the byte, a `BundleError` is all that is raised."""
    value = a_bundle("popularity").dump()
    assert _otherwise_after_a_byte_changed(value, range(len(value))) == []


def test_without_its_digests_an_altered_bundle_would_be_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above finds it: a number changed, and the archive's own checksum with it."""
    bundle = a_bundle("popularity")
    other = Bundle(
        bundle.manifest, bundle.items, bundle.model, {name: each + 1 for name, each in bundle.arrays.items()}
    )
    with zipfile.ZipFile(io.BytesIO(other.dump())) as file:
        value = altered(bundle.dump(), "arrays/popularity.npy", file.read("arrays/popularity.npy"))
    with pytest.raises(BundleError):
        load(value)
    monkeypatch.setattr("training.bundle._check", lambda *_: None)
    assert load(value).digest() != bundle.digest()


def test_the_digest_is_of_what_the_model_does_and_not_of_its_run() -> None:
    bundle = a_bundle()
    other_run = bundle.manifest.model_copy(update={"run_id": "r2", "trained_at": datetime(2025, 1, 1, tzinfo=UTC)})
    assert Bundle(other_run, bundle.items, bundle.model, bundle.arrays).digest() == bundle.digest()
    moved = {name: array + 1 for name, array in bundle.arrays.items()}
    assert Bundle(bundle.manifest, bundle.items, bundle.model, moved).digest() != bundle.digest()


def test_a_history_that_says_nothing_gets_the_popular_without_what_it_holds() -> None:
    bundle = a_bundle()
    favourite = int(bundle.popular[0])
    disliked = {f"m{favourite:02}": Interaction(1, 0.0)}
    indices, _ = bundle.recommend([{}, disliked, {"unknown": Interaction(1, 1.0)}], 3)
    assert indices.tolist() == [bundle.popular[:3].tolist(), bundle.popular[1:4].tolist(), bundle.popular[:3].tolist()]


@pytest.mark.parametrize("kind", KINDS)
def test_items_seen_with_weight_zero_are_left_out_though_the_model_never_hears_of_them(kind: str) -> None:
    bundle = a_bundle(kind)
    plain, _ = bundle.recommend([liked(1, 2)], 4)
    seen = liked(1, 2) | {f"m{plain[0][0]:02}": Interaction(9, 0.0)}
    indices, _ = bundle.recommend([seen, liked(1, 2)], 3)
    assert indices.tolist() == [plain[0][1:4].tolist(), plain[0][:3].tolist()]


def test_popular_items_fill_up_what_the_model_leaves_empty() -> None:
    bundle = a_bundle()

    class Brief:
        """A model that knows two items."""

        def recommend(self, user_items: sparse.csr_matrix, k: int) -> tuple[Indices, Scores]:
            """The two, and no more."""
            found = np.full((user_items.shape[0], k), -1, np.int32)
            found[:, :2] = bundle.popular[[4, 1]]
            return found, np.where(found >= 0, np.float32(0.5), np.float32(-np.inf))

        def similar_items(self, item_index: int, k: int) -> tuple[Indices, Scores]:
            """Never asked."""
            raise AssertionError

        def contributions(self, user_items: sparse.csr_matrix, item_index: int) -> Scores:
            """Never asked."""
            raise AssertionError

    held = liked(int(bundle.popular[0])) | {f"m{int(bundle.popular[2]):02}": Interaction(1, 0.0)}
    indices, scores = recommend(Brief(), bundle.popular, bundle.rows([held]).user_items, 5)
    assert indices.tolist() == [bundle.popular[[4, 1, 3, 5, 6]].tolist()]
    assert scores.tolist() == [[0.5, 0.5, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_history_of_the_whole_catalogue_gets_padding(kind: str) -> None:
    everything = liked(*range(ITEMS))
    nothing_liked = {item: Interaction(1, 0.0) for item in everything}
    indices, scores = a_bundle(kind).recommend([everything, nothing_liked], 4)
    assert indices.tolist() == [[-1] * 4] * 2
    assert np.isneginf(scores).all()


def test_more_places_than_items_are_padded() -> None:
    indices, _ = a_bundle("als").recommend([liked(0), {}], 50)
    assert indices.shape == (2, 50)
    assert sorted(indices[0][indices[0] >= 0].tolist()) == list(range(1, ITEMS))
    assert sorted(indices[1][indices[1] >= 0].tolist()) == list(range(ITEMS))


def test_no_histories_make_no_lists() -> None:
    indices, scores = a_bundle().recommend([], 5)
    assert indices.shape == scores.shape == (0, 5)


def test_lists_do_not_depend_on_who_else_is_asked_for() -> None:
    bundle = a_bundle()
    histories = [liked(1, 2, 3), {}, liked(4) | {"m05": Interaction(1, 0.0)}, liked(8, 9)]
    together, _ = bundle.recommend(histories, 5)
    alone = [bundle.recommend([history], 5)[0][0].tolist() for history in histories]
    assert together.tolist() == alone


def test_recommending_leaves_the_histories_as_they_are() -> None:
    bundle = a_bundle()
    rows = bundle.rows([liked(1) | {"m02": Interaction(1, 0.0)}])
    recommend(bundle.model, bundle.popular, rows.user_items, 3)
    assert rows.user_items.data.tolist() == [1.0, 0.0]


class Fixed:
    """A model whose lists are given."""

    def __init__(self, lists: list[list[int]]) -> None:
        self.lists = lists

    def recommend(self, user_items: sparse.csr_matrix, k: int) -> tuple[Indices, Scores]:
        assert (user_items.data > 0).all()
        lists = [
            [item for item in given if item not in set(row.indices)]
            for given, row in zip(self.lists, user_items, strict=True)
        ]
        padded = np.array([(items + [-1] * k)[:k] for items in lists], np.int32).reshape(-1, k)
        return padded, np.where(padded < 0, -np.inf, padded * 10.0).astype(np.float32)


@given(
    histories=st.lists(
        st.lists(st.sampled_from([None, None, 0.0, 1.0]), min_size=7, max_size=7), min_size=1, max_size=5
    ),
    k=st.integers(1, 9),
    data=st.data(),
)
def test_lists_are_the_models_without_what_was_seen_then_the_popular(
    histories: list[list[float | None]], k: int, data: st.DataObject
) -> None:
    """Against the same, one by one."""
    rankings = st.permutations(range(7)).flatmap(lambda items: st.integers(0, 7).map(lambda length: items[:length]))
    given_lists = [data.draw(rankings) for history in histories if 1.0 in history]
    popular = np.array(data.draw(st.permutations(range(7))), np.int32)
    held = [[item for item, weight in enumerate(history) if weight is not None] for history in histories]
    weights = [weight for history in histories for weight in history if weight is not None]
    indptr = np.cumsum([0, *map(len, held)])
    values = (np.array(weights, np.float32), np.array([*chain(*held)], np.int32), indptr)
    indices, scores = recommend(
        cast("Model", Fixed(given_lists)), popular, sparse.csr_matrix(values, (len(held), 7)), k
    )
    left = iter(given_lists)
    for row, history in enumerate(histories):
        found = [item for item in (next(left) if 1.0 in history else []) if item not in held[row]]
        filling = [item for item in popular.tolist() if item not in held[row] and item not in found]
        expected = [*((item, item * 10.0) for item in found), *((item, 0.0) for item in filling)][:k]
        expected += [(-1, -np.inf)] * (k - len(expected))
        assert list(zip(indices[row].tolist(), scores[row].tolist(), strict=True)) == expected


@given(st.lists(st.integers(0, 2**32 - 1), max_size=50))
def test_a_list_survives_packing_without_its_padding(items: list[int]) -> None:
    padded = np.array([*items, -1, -1], np.int64)
    assert decode_list(encode_list(padded)).tolist() == items


Acts = list[tuple[str, int, float]]
acts = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 5), st.sampled_from([0.0, 1.0, 1.5])), max_size=15)


def folded(interactions: Acts, length: int) -> History:
    history: History = {}
    for item, at, weight in interactions:
        add_to_history(history, item, Interaction(at, weight), length)
    return history


@given(acts, st.integers(1, 4), st.randoms())
def test_folding_in_any_order_and_any_number_of_times_gives_the_same_history(
    interactions: Acts, length: int, random: object
) -> None:
    shuffled = interactions + interactions[::2]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert folded(shuffled, length) == folded(interactions, length)


@given(acts, st.integers(1, 4))
def test_a_history_survives_its_form_in_redis_oldest_first(interactions: Acts, length: int) -> None:
    history = folded(interactions, length)
    assert decode_history(encode_history(history)) == history
    assert all(a <= b for a, b in pairwise(decode_history(encode_history(history)).values()))


def test_no_value_is_an_empty_history() -> None:
    assert decode_history(None) == {}


def test_keys_tell_versions_and_people_apart() -> None:
    assert [bundle_key(3), list_key(3, "u:1"), live_key(3, "u:1")] == ["bundle:3", "list:3:{u:1}", "live:3:{u:1}"]
