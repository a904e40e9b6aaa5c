"""Metrics worked out by hand, and the same numbers from two evaluation libraries on random data."""

import numpy as np
import pytest
from scipy import sparse

from training.algorithms.base import best
from training.ranking import (
    Ranking,
    average_precision,
    capped_recall,
    coverage,
    exposure,
    gini,
    hit_matrix,
    mean_of_listed,
    ndcg,
    recall,
    reciprocal_rank,
    surprise,
)

LOG2_3 = float(np.log2(3))
HITS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0], [1, 0, 1]], bool)
WANTED = np.array([1, 1, 1, 3, 2, 2])
PEOPLE, ITEMS = 300, 80


def csr(rows: list[list[float]]) -> sparse.csr_matrix:
    return sparse.csr_matrix(np.array(rows, np.float32))


@pytest.fixture(scope="module")
def random_scores() -> np.ndarray:
    """(people, items), no two the same in a row."""
    random = np.random.default_rng(3)
    return np.stack([random.permutation(ITEMS) for _ in range(PEOPLE)]).astype(np.float32)


@pytest.fixture(scope="module")
def held() -> sparse.csr_matrix:
    """What each person has: two items in five."""
    return sparse.csr_matrix((np.random.default_rng(1).random((PEOPLE, ITEMS)) < 0.4).astype(np.float32))


@pytest.fixture(scope="module")
def held_out(held: sparse.csr_matrix) -> sparse.csr_matrix:
    """Between one and about thirty others: for some fewer than a list has places, for others more."""
    random = np.random.default_rng(2)
    wanted = random.random((PEOPLE, ITEMS)) < random.random((PEOPLE, 1)) * 0.7
    wanted &= held.toarray() == 0
    wanted[np.arange(PEOPLE), held.toarray().argmin(axis=1)] = True
    return sparse.csr_matrix(wanted.astype(np.float32))


@pytest.fixture(scope="module")
def ranking(random_scores: np.ndarray, held: sparse.csr_matrix, held_out: sparse.csr_matrix) -> Ranking:
    """The 20 best of what each does not have."""
    lists = best(random_scores.copy(), held, 20)[0]
    popularity = np.asarray(held.sum(axis=0), np.float32).ravel()
    return Ranking(lists, hit_matrix(lists, held_out), np.diff(held_out.indptr), popularity, PEOPLE)


def test_ndcg_by_hand() -> None:
    """A hit in place 1 counts 1, in place 2 1/log2(3), in place 3 1/2; the best list has all wanted items first."""
    expected = [1, 1 / LOG2_3, 0.5, 1, 0, 1.5 / (1 + 1 / LOG2_3)]
    assert ndcg(HITS, WANTED).tolist() == pytest.approx(expected)


def test_the_best_list_is_no_longer_than_the_places() -> None:
    assert ndcg(np.array([[True, True]]), np.array([50])).tolist() == [1.0]
    assert average_precision(np.array([[True, True]]), np.array([50])).tolist() == [1.0]
    assert capped_recall(np.array([[True, True]]), np.array([50])).tolist() == [1.0]


def test_recall_in_both_conventions_by_hand() -> None:
    """Of eight wanted items two places can hold two: a quarter of what was held out, all that was possible."""
    hits = np.array([[True, False], [True, True], [True, False]])
    wanted = np.array([1, 8, 8])
    assert recall(hits, wanted).tolist() == [1.0, 0.25, 0.125]
    assert capped_recall(hits, wanted).tolist() == [1.0, 1.0, 0.5]


def test_average_precision_by_hand() -> None:
    """The last has hits in places 1 and 3, where precision is 1 and 2/3, and wants two."""
    assert average_precision(HITS, WANTED).tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1, 0, (1 + 2 / 3) / 2])


def test_reciprocal_rank_by_hand() -> None:
    assert reciprocal_rank(HITS).tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1, 0, 1])


def test_hits_are_found_and_padding_is_none() -> None:
    lists = np.array([[2, 0, -1], [3, 4, 0]], np.int32)
    assert hit_matrix(lists, csr([[1, 0, 0, 0, 0], [0, 0, 0, 1, 1]])).tolist() == [
        [False, True, False],
        [True, True, False],
    ]


def test_padding_is_no_hit_even_beside_the_last_item_of_the_person_before() -> None:
    lists = np.array([[0, -1], [0, -1]], np.int32)
    assert not hit_matrix(lists, csr([[0, 0, 1], [0, 0, 1]])).any()


def test_held_out_items_that_training_never_met_stay_in_the_denominators() -> None:
    """The columns of the hold-out go on after the last item that a list can have."""
    lists = np.array([[0, 1]], np.int32)
    held_out = csr([[1, 0, 1, 1]])
    ranking = Ranking(lists, hit_matrix(lists, held_out), np.diff(held_out.indptr), np.ones(2, np.float32), 1)
    assert ranking.recall(2).tolist() == pytest.approx([1 / 3])
    assert ranking.ndcg(2).tolist() == pytest.approx([1 / (1 + 1 / LOG2_3)])


def test_coverage_is_the_share_of_the_catalogue_that_anybody_sees() -> None:
    assert coverage(exposure(np.array([[0, 1], [1, -1]], np.int32), 8)) == 0.25


def test_gini_by_hand() -> None:
    """Of shares 1/6, 2/6, 3/6: mean absolute difference 8/54 · 2 over twice the mean 1/3, so 2/9."""
    assert gini(np.array([3, 1, 2])) == pytest.approx(2 / 9)
    assert gini(np.array([7, 7, 7])) == 0
    assert gini(np.array([0, 0, 0, 0, 9])) == pytest.approx(0.8)
    assert gini(np.array([0, 0])) == 0


def test_novelty_is_the_mean_surprise_in_bits() -> None:
    popularity = np.array([7, 1, 0], np.float32)
    assert surprise(popularity, 7).tolist() == pytest.approx([0, 2, 3])
    lists = np.array([[0, 1], [2, -1]], np.int32)
    assert mean_of_listed(lists, surprise(popularity, 7)) == pytest.approx(5 / 3)
    assert mean_of_listed(np.array([[-1]], np.int32), surprise(popularity, 7)) == 0


def test_popularity_bias_is_the_mean_share_of_people_who_have_what_is_listed() -> None:
    lists = np.array([[0, 1], [2, -1]], np.int32)
    hits = np.zeros((2, 2), bool)
    ranking = Ranking(lists, hits, np.array([1, 1]), np.array([8, 4, 0], np.float32), 16)
    assert ranking.mean_popularity(2) == pytest.approx((1 / 2 + 1 / 4 + 0) / 3)
    assert ranking.mean_popularity(1) == pytest.approx((1 / 2 + 0) / 2)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_a_library_for_evaluation_finds_the_same(
    k: int,
    ranking: Ranking,
    random_scores: np.ndarray,
    held: sparse.csr_matrix,
    held_out: sparse.csr_matrix,
) -> None:
    """irspack ranks all items itself, and divides average precision by all held-out items, not by min(k, …)."""
    from irspack.evaluation import Evaluator

    options = {"masked_interactions": held, "n_threads": 1}
    theirs = Evaluator(held_out, **options).get_scores_from_score_matrix(random_scores.copy(), [k])
    capped = Evaluator(held_out, recall_with_cutoff=True, **options)
    theirs_capped = capped.get_scores_from_score_matrix(random_scores.copy(), [k])
    whole = ranking.average_precision(k) * np.minimum(ranking.wanted, k) / ranking.wanted
    ours = {
        "ndcg": ranking.ndcg(k).mean(),
        "recall": ranking.recall(k).mean(),
        "map": whole.mean(),
        "catalog_coverage": ranking.coverage(k),
        "gini_index": ranking.gini(k),
    }
    assert ours == pytest.approx({name: theirs[f"{name}@{k}"] for name in ours})
    assert ranking.capped_recall(k).mean() == pytest.approx(theirs_capped[f"recall@{k}"])


@pytest.mark.parametrize("k", [1, 5, 20])
def test_scikit_learn_finds_the_same_ndcg(
    k: int, ranking: Ranking, random_scores: np.ndarray, held: sparse.csr_matrix, held_out: sparse.csr_matrix
) -> None:
    from sklearn.metrics import ndcg_score

    scores = np.where(held.toarray() > 0, -1.0, random_scores)
    assert ranking.ndcg(k).mean() == pytest.approx(ndcg_score(held_out.toarray(), scores, k=k))


def test_scikit_learn_finds_the_same_reciprocal_rank(random_scores: np.ndarray) -> None:
    """With one wanted item and every place looked at, label ranking average precision is 1 / its place."""
    from sklearn.metrics import label_ranking_average_precision_score

    wanted = sparse.csr_matrix(np.eye(PEOPLE, ITEMS, dtype=np.float32)[np.arange(PEOPLE) % ITEMS])
    lists = best(random_scores.copy(), sparse.csr_matrix((PEOPLE, ITEMS), dtype=np.float32), ITEMS)[0]
    hits = hit_matrix(lists, wanted)
    theirs = label_ranking_average_precision_score(wanted.toarray(), random_scores)
    assert reciprocal_rank(hits).mean() == pytest.approx(theirs)
    assert average_precision(hits, np.ones(PEOPLE, np.int64)).mean() == pytest.approx(theirs)
