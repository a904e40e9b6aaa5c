"""What every algorithm must do, on data whose answer is known."""

import json
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import sparse
from threadpoolctl import threadpool_info, threadpool_limits

from training.algorithms import ALGORITHMS, algorithm_named
from training.algorithms.base import Algorithm
from training.bundle import Bundle, ItemTable, Manifest, Snapshot

PARTS = [
    {"algorithm": "ease", "parameters": {"regularization": 1.0}, "weight": 1.0},
    {"algorithm": "als", "parameters": {"factors": 8, "regularization": 1.0}, "weight": 0.5},
    {"algorithm": "popularity", "parameters": {}, "weight": 0.1},
]
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "popularity": ("popularity", {}),
    "als": ("als", {"factors": 8, "regularization": 1.0}),
    "cosine": ("item_item", {"weighting": "cosine"}),
    "tfidf": ("item_item", {"weighting": "tfidf", "neighbours": 30}),
    "bm25": ("item_item", {"weighting": "bm25", "activity": 0.0}),
    "ials": ("ials", {"factors": 8, "regularization": 0.01}),
    "ials_wide": ("ials", {"factors": 40, "regularization": 0.1, "nu": 0.5}),
    "ease": ("ease", {"regularization": 1.0}),
    "gf_cf": ("gf_cf", {"factors": 2, "neighbours": 40}),
    "blend": ("blend", {"parts": PARTS}),
    "ranked": ("blend", {"parts": PARTS, "normalisation": "ranked"}),
}
every_algorithm = pytest.mark.parametrize("setting", SETTINGS)
personal = pytest.mark.parametrize("setting", [name for name in SETTINGS if name != "popularity"])
linear = pytest.mark.parametrize("setting", ["als", "cosine", "tfidf", "bm25", "ials", "ials_wide", "ease", "gf_cf"])
in_rounds = pytest.mark.parametrize("setting", ["als", "ials"])


def unfitted(setting: str) -> Algorithm:
    name, parameters = SETTINGS[setting]
    return algorithm_named(name)(**parameters)


def fitted(setting: str, user_items: sparse.csr_matrix) -> Algorithm:
    algorithm = unfitted(setting)
    algorithm.fit(user_items)
    return algorithm


@cache
def known(setting: str) -> Algorithm:
    """Fitted on `scattered()`."""
    return fitted(setting, scattered())


def checkerboard(size: int = 50) -> sparse.csr_matrix:
    """Even people have even items, odd people odd ones; each lacks the one item of its own number."""
    rows, columns = np.indices((size, size))
    board = (rows % 2 == columns % 2) & (rows != columns)
    return sparse.csr_matrix(board.astype(np.float32))


def scattered(seed: int = 1, people: int = 80, items: int = 60) -> sparse.csr_matrix:
    """Interactions of random weights, as histories have them."""
    random = np.random.default_rng(seed)
    held = random.random((people, items)) < 0.1
    return sparse.csr_matrix(np.where(held, random.choice([1.0, 1.5, 2.0], held.shape), 0).astype(np.float32))


def nobody(items: int) -> sparse.csr_matrix:
    return sparse.csr_matrix(np.zeros((0, items), np.float32))


def reloaded(algorithm: Algorithm) -> Algorithm:
    arrays = {name: array.copy() for name, array in algorithm.arrays().items()}
    return type(algorithm).from_arrays(algorithm.parameters, arrays)


def test_every_algorithm_is_found_by_its_own_name() -> None:
    assert {algorithm_named(name).name for name in ALGORITHMS} == set(ALGORITHMS)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'oracle'; there are popularity, als, item_item, ials, ease, gf_cf, blend"):
        algorithm_named("oracle")


@personal
def test_on_the_checkerboard_everyone_gets_the_one_item_they_lack(setting: str) -> None:
    board = checkerboard()
    indices, _ = fitted(setting, board).recommend(board, 1)
    assert indices[:, 0].tolist() == list(range(50))


@personal
def test_on_the_checkerboard_similar_items_are_of_the_same_colour(setting: str) -> None:
    algorithm = fitted(setting, checkerboard())
    for item in range(50):
        indices, scores = algorithm.similar_items(item, 10)
        assert len(indices) == 10
        assert item not in indices
        assert all(indices % 2 == item % 2)
        assert (np.diff(scores) <= 0).all()


@every_algorithm
def test_lists_have_their_shapes_and_types_and_fall_in_score(setting: str) -> None:
    user_items = scattered()
    indices, scores = known(setting).recommend(user_items, 7)
    assert indices.shape == scores.shape == (80, 7)
    assert indices.dtype == np.int32
    assert scores.dtype == np.float32
    real = indices >= 0
    assert all((np.diff(row[kept]) <= 0).all() for row, kept in zip(scores, real, strict=True))


@every_algorithm
def test_nobody_is_recommended_what_they_hold_and_the_rest_is_padding(setting: str) -> None:
    user_items = scattered()
    indices, scores = known(setting).recommend(user_items, 100)
    assert indices.shape == (80, 100)
    assert ((indices == -1) == np.isneginf(scores)).all()
    for row, held in zip(indices, user_items.toarray(), strict=True):
        listed = row[row >= 0].tolist()
        assert len(listed) == len(set(listed))
        assert not set(listed) & set(np.flatnonzero(held).tolist())
        assert (row[len(listed) :] == -1).all()


@every_algorithm
def test_a_row_that_holds_the_whole_catalogue_gets_padding_only(setting: str) -> None:
    indices, scores = known(setting).recommend(sparse.csr_matrix(np.ones((1, 60), np.float32)), 5)
    assert (indices == -1).all()
    assert np.isneginf(scores).all()


@every_algorithm
def test_people_and_items_without_interactions_do_no_harm(setting: str) -> None:
    board = checkerboard().toarray()
    board[[42, 49]] = 0
    board[:, [42, 49]] = 0
    algorithm = fitted(setting, sparse.csr_matrix(board))
    assert all(np.isfinite(array).all() for array in algorithm.arrays().values())
    assert all(not {42, 49} & set(algorithm.similar_items(item, 10)[0].tolist()) for item in range(40))
    assert algorithm.similar_items(42, 10)[0].tolist() == []
    assert algorithm.recommend(nobody(50), 3)[0].shape == (0, 3)


@personal
def test_who_has_only_what_nobody_else_has_gets_no_list_rather_than_any(setting: str) -> None:
    name, parameters = SETTINGS[setting]
    if name == "blend":
        parameters = {**parameters, "parts": PARTS[:2]}
    board = checkerboard().toarray()
    board[:, 42] = 0
    algorithm = algorithm_named(name)(**parameters)
    algorithm.fit(sparse.csr_matrix(board))
    history = sparse.csr_matrix(([1.0], [42], [0, 1]), shape=(1, 50), dtype=np.float32)
    assert algorithm.recommend(history, 5)[0].tolist() == [[-1] * 5]


@every_algorithm
@pytest.mark.parametrize("rows", [[[1, 1], [0, 1]], [[1, 0], [0, 1]], [[1, 1], [1, 1]]])
def test_two_people_and_two_items_are_enough_to_fit(setting: str, rows: list[list[int]]) -> None:
    algorithm = fitted(setting, sparse.csr_matrix(np.array(rows, np.float32)))
    assert all(np.isfinite(array).all() for array in algorithm.arrays().values())


@every_algorithm
def test_the_same_matrix_gives_the_same_arrays_bit_by_bit(setting: str) -> None:
    one, two = known(setting).arrays(), fitted(setting, scattered()).arrays()
    assert {name: array.tobytes() for name, array in one.items()} == {
        name: array.tobytes() for name, array in two.items()
    }


@every_algorithm
def test_fitting_again_starts_afresh(setting: str) -> None:
    algorithm = fitted(setting, scattered(seed=2))
    algorithm.fit(scattered())
    once = known(setting).arrays()
    assert all(array.tobytes() == once[name].tobytes() for name, array in algorithm.arrays().items())


@every_algorithm
def test_parameters_and_arrays_make_the_same_recommender_again(setting: str) -> None:
    user_items = scattered()
    algorithm = known(setting)
    again = reloaded(algorithm)
    assert again.parameters == algorithm.parameters
    for one, two in zip(algorithm.recommend(user_items, 10), again.recommend(user_items, 10), strict=True):
        assert one.tolist() == two.tolist()
    for one, two in zip(algorithm.similar_items(3, 5), again.similar_items(3, 5), strict=True):
        assert one.tolist() == two.tolist()


@every_algorithm
def test_arrays_grow_with_the_items_and_never_with_the_people(setting: str) -> None:
    user_items = scattered()
    twice = sparse.csr_matrix(sparse.vstack([user_items, user_items]))
    shapes = [{name: a.shape for name, a in fitted(setting, m).arrays().items()} for m in (user_items, twice)]
    assert shapes[0] == shapes[1]


@every_algorithm
def test_lists_are_the_best_scores_of_what_is_not_held(setting: str) -> None:
    user_items = scattered()
    algorithm = known(setting)
    indices, listed = algorithm.recommend(user_items, 7)
    for row, scores in enumerate(algorithm.scores(user_items)):
        free = [i for i in range(60) if i not in user_items[row].indices and scores[i] > algorithm.least]
        best = sorted(free, key=lambda i: -scores[i])[:7] if scores[free].any() else []
        assert np.allclose(listed[row, : len(best)], scores[best], rtol=1e-4, atol=1e-6)
        assert np.allclose(scores[indices[row, : len(best)]], scores[best], rtol=1e-4, atol=1e-6)
        assert (indices[row, len(best) :] == -1).all()


@every_algorithm
def test_a_row_scores_the_same_alone_and_among_others(setting: str) -> None:
    user_items = scattered()
    algorithm = known(setting)
    together = algorithm.scores(user_items)
    assert together.shape == (80, 60)
    assert together.dtype == np.float32
    for row in range(80):
        assert np.allclose(algorithm.scores(user_items[row]), together[row], rtol=1e-4, atol=1e-6)


@every_algorithm
def test_asking_changes_neither_the_model_nor_the_histories(setting: str) -> None:
    user_items = scattered()
    algorithm = known(setting)
    first = algorithm.scores(user_items)
    algorithm.recommend(user_items, 5)
    algorithm.contributions(user_items[0], 3)
    algorithm.similar_items(3, 5)
    assert algorithm.scores(user_items).tolist() == first.tolist()
    assert (user_items != scattered()).nnz == 0


@every_algorithm
def test_contributions_stand_beside_the_items_of_the_history(setting: str) -> None:
    user_items = scattered()
    contributions = known(setting).contributions(user_items[5], 7)
    assert contributions.shape == (user_items[5].nnz,)
    assert contributions.dtype == np.float32
    assert contributions.any() == (setting != "popularity")


@linear
def test_contributions_sum_to_the_score(setting: str) -> None:
    user_items = scattered()
    algorithm = known(setting)
    scores = algorithm.scores(user_items)
    for row, item in ((0, 3), (5, 7), (42, 59)):
        assert algorithm.contributions(user_items[row], item).sum() == pytest.approx(scores[row, item], abs=1e-5)


@personal
def test_on_the_checkerboard_everything_that_is_held_speaks_for_the_item_that_is_lacking(setting: str) -> None:
    board = checkerboard()
    contributions = fitted(setting, board).contributions(board[0], 0)
    assert (contributions > 0).all()


@in_rounds
def test_after_each_round_the_algorithm_is_shown_as_it_is_then(setting: str) -> None:
    seen: list[tuple[int, np.ndarray[Any, Any]]] = []
    user_items = scattered()

    def after_round(algorithm: Algorithm, rounds: int) -> None:
        seen.append((rounds, algorithm.scores(user_items[:3])))

    name, parameters = SETTINGS[setting]
    algorithm = algorithm_named(name)(**parameters, iterations=4)
    algorithm.fit(user_items, after_round=after_round)
    assert [rounds for rounds, _ in seen] == [1, 2, 3, 4]
    assert np.allclose(seen[3][1], algorithm.scores(user_items[:3]), atol=1e-6)
    for rounds in (1, 2, 3):
        shorter = algorithm_named(name)(**parameters, iterations=rounds)
        shorter.fit(user_items)
        assert np.allclose(seen[rounds - 1][1], shorter.scores(user_items[:3]), atol=1e-6)
        assert not np.allclose(seen[rounds - 1][1], seen[rounds][1], atol=1e-6)


@in_rounds
def test_what_is_raised_after_a_round_ends_the_fitting(setting: str) -> None:
    rounds: list[int] = []

    class EnoughError(Exception):
        pass

    def after_round(_: Algorithm, round_: int) -> None:
        rounds.append(round_)
        if round_ == 2:
            raise EnoughError

    with pytest.raises(EnoughError):
        unfitted(setting).fit(scattered(), after_round=after_round)
    assert rounds == [1, 2]


@every_algorithm
def test_ages_may_be_given(setting: str) -> None:
    algorithm = unfitted(setting)
    algorithm.fit(scattered(), np.ones(scattered().nnz, np.float32))
    once = known(setting).arrays()
    assert all(array.tobytes() == once[name].tobytes() for name, array in algorithm.arrays().items())


@personal
def test_viewers_with_a_taste_get_what_is_to_their_taste(setting: str, viewers: Callable[..., pl.DataFrame]) -> None:
    acts = viewers()
    items = sorted(acts["item_id"].unique())
    people = sorted(acts["user_id"].unique())
    rows = [people.index(user) for user in acts["user_id"]]
    columns = [items.index(item) for item in acts["item_id"]]
    user_items = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(60, len(items)))
    lists, _ = fitted(setting, user_items).recommend(user_items, 4)
    to_taste = [items[i].startswith(f"m{person % 4}-") for person, row in enumerate(lists) for i in row]
    assert np.mean(to_taste) >= 0.95


THREADED = """
import json, sys
from hashlib import sha256
import numpy as np
from scipy import sparse
from training.algorithms import algorithm_named

random = np.random.default_rng(7)
held = random.random((700, 500)) < 0.1
user_items = sparse.csr_matrix(np.where(held, random.choice([1.0, 1.5, 2.0], held.shape), 0).astype(np.float32))
for name, parameters in json.loads(sys.argv[1]):
    algorithm = algorithm_named(name)(**parameters)
    algorithm.fit(user_items)
    digest = sha256(b"".join(array.tobytes() for _, array in sorted(algorithm.arrays().items())))
    print(name, digest.hexdigest())
"""
"""Of a size from which on BLAS takes several threads where it may."""


def test_a_fit_is_the_same_on_one_thread_and_on_two() -> None:
    larger = [
        ("als", {"factors": 64}),
        ("ials", {"factors": 64, "iterations": 4}),
        ("ease", {}),
        ("gf_cf", {"factors": 64}),
        ("item_item", {}),
    ]
    said = [
        subprocess.run(
            [sys.executable, "-c", THREADED, json.dumps(larger)],
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for threads in (1, 2)
    ]
    assert said[0].count("\n") == len(larger)
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("setting", "solver"),
    [
        ("ease", "training.algorithms.ease.linalg.inv"),
        ("gf_cf", "training.algorithms.gf_cf.svds"),
        ("ials", "training.algorithms.fold_in.np.linalg.eigh"),
    ],
)
def test_blas_has_one_thread_where_more_would_sum_in_another_order(
    setting: str, solver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()
    real = pkgutil.resolve_name(solver)

    def watched(*arguments: Any, **words: Any) -> Any:
        threads.update(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")
        return real(*arguments, **words)

    monkeypatch.setattr(solver, watched)
    with threadpool_limits(2, user_api="blas"):
        fitted(setting, scattered())
    assert threads == {1}


WITHOUT_TRAINING = """
import sys
from pathlib import Path

for heavy in ("irspack", "optuna", "pandas", "sklearn", "matplotlib"):
    sys.modules[heavy] = None  # an import of it raises
from training.bundle import Interaction, load

for path in map(Path, sys.argv[1:]):
    bundle = load(path.read_bytes())
    indices, _ = bundle.recommend([{"m01": Interaction(1, 1.0), "m07": Interaction(2, 1.5)}], 5)
    bundle.model.similar_items(1, 5)
    print(path.stem, *indices[0].tolist())
"""


def test_bundles_are_served_without_what_only_training_needs(tmp_path: Path) -> None:
    expected = ""
    for setting in SETTINGS:
        algorithm = known(setting)
        path = tmp_path / setting
        path.write_bytes(bundled(algorithm).dump())
        history = sparse.csr_matrix(([1.0, 1.5], [1, 7], [0, 2]), shape=(1, 60), dtype=np.float32)
        lists = algorithm.recommend(history, 5)[0]
        expected += f"{setting} {' '.join(map(str, lists[0].tolist()))}\n"
    command = [sys.executable, "-c", WITHOUT_TRAINING, *(str(tmp_path / setting) for setting in SETTINGS)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == expected


def bundled(algorithm: Algorithm) -> Bundle:
    """A bundle of sixty items."""
    manifest = Manifest(
        algorithm=algorithm.name,
        parameters=algorithm.parameters,
        domain="films",
        history_length=10,
        snapshot=Snapshot(version=3, digest="d", watermark={0: 7}, events=9, users=80),
        code="c0ffee",
        run_id="r1",
        trained_at=datetime(2024, 1, 1, tzinfo=UTC),
        metrics={},
    )
    items = ItemTable(tuple(f"m{i:02}" for i in range(60)), ({},) * 60, np.ones(60, np.float32))
    return Bundle(manifest, items, algorithm, algorithm.arrays())


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("popularity", {"half_life_days": 0}, "half_life_days must be a number above 0, not 0"),
        ("als", {"factors": 0}, "factors must be a whole number from 1 on, not 0"),
        ("als", {"iterations": 2.5}, "iterations must be a whole number from 1 on, not 2.5"),
        ("als", {"regularization": 0}, "regularization must be a number above 0, not 0"),
        ("als", {"alpha": -1}, "alpha must be a number above 0, not -1"),
        ("als", {"seed": -1}, "seed must be a whole number from 0 on, not -1"),
        ("item_item", {"weighting": "jaccard"}, "weighting must be one of cosine, tfidf, bm25, not 'jaccard'"),
        ("item_item", {"neighbours": 0}, "neighbours must be a whole number from 1 on, not 0"),
        ("item_item", {"activity": -0.1}, "activity must be a number from 0 on, not -0.1"),
        ("ials", {"factors": True}, "factors must be a whole number from 1 on, not True"),
        ("ials", {"alpha0": 0.0}, "alpha0 must be a number above 0, not 0.0"),
        ("ials", {"regularization": "high"}, "regularization must be a number above 0, not 'high'"),
        ("ials", {"nu": float("nan")}, "nu must be a number from 0 on, not nan"),
        ("ials", {"activity": float("inf")}, "activity must be a number from 0 on, not inf"),
        ("ials", {"iterations": 0}, "iterations must be a whole number from 1 on, not 0"),
        ("ials", {"seed": 0.5}, "seed must be a whole number from 0 on, not 0.5"),
        ("ease", {"regularization": 0.0}, "regularization must be a number above 0, not 0.0"),
        ("ease", {"denoising": -1}, "denoising must be a number from 0 on, not -1"),
        ("ease", {"activity": -1}, "activity must be a number from 0 on, not -1"),
        ("ease", {"max_items": 0}, "max_items must be a whole number from 1 on, not 0"),
        ("gf_cf", {"factors": 0}, "factors must be a whole number from 1 on, not 0"),
        ("gf_cf", {"neighbours": 0}, "neighbours must be a whole number from 1 on, not 0"),
        ("gf_cf", {"weight": -0.3}, "weight must be a number from 0 on, not -0.3"),
        ("gf_cf", {"seed": -1}, "seed must be a whole number from 0 on, not -1"),
        ("blend", {"parts": []}, "a blend needs parts: name at least one algorithm"),
        (
            "blend",
            {"parts": PARTS, "normalisation": "none"},
            "normalisation must be one of standardised, ranked, not 'none'",
        ),
        (
            "blend",
            {"parts": [{"algorithm": "als"}]},
            "a part of a blend has algorithm, parameters, weight, not algorithm",
        ),
        ("blend", {"parts": [{}]}, "a part of a blend has algorithm, parameters, weight, not nothing"),
        ("blend", {"parts": [{**PARTS[0], "weight": 0}]}, "weight must be a number above 0, not 0"),
        ("blend", {"parts": [{**PARTS[0], "algorithm": "oracle"}]}, "no algorithm is called 'oracle'"),
        (
            "blend",
            {"parts": [{"algorithm": "blend", "parameters": {"parts": PARTS}, "weight": 1.0}]},
            "a blend has no blend among its parts: name that one's parts instead",
        ),
    ],
)
def test_a_parameter_that_cannot_be_is_refused_at_once(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        algorithm_named(name)(**parameters)
