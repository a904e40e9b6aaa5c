"""Generated viewers are the same for the same seed, are as many as asked, and can be learnt."""

from datetime import UTC, datetime

import numpy as np
import pytest
from implicit.als import AlternatingLeastSquares
from scipy import sparse
from threadpoolctl import threadpool_limits

from workshop.datasets import ACTS, Dataset, DatasetError
from workshop.invented import generate

END = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_the_same_seed_generates_the_same_data_and_another_seed_other_data() -> None:
    first, same, other = (generate(30, 60, 400, seed, END) for seed in (1, 1, 2))
    assert first.items == same.items
    assert first.acts.equals(same.acts)
    assert not first.acts.equals(other.acts)


def test_generated_acts_are_as_many_as_asked_in_the_last_sixty_days_and_never_the_same_pair() -> None:
    acts = generate(100, 90, 3000, seed=1, until=END).acts
    assert acts.schema == ACTS
    assert len(acts) == 3000
    assert acts["occurred_at"].is_sorted()
    assert acts["occurred_at"].is_between(datetime(2025, 12, 2, 12, tzinfo=UTC), END).all()
    assert not acts.select("user_id", "item_id").is_duplicated().any()
    assert set(acts["type"].unique()) == {"play", "complete", "thumbs_up", "thumbs_down"}


def test_generated_acts_end_at_the_present_moment() -> None:
    newest = generate(100, 90, 3000, seed=1).acts["occurred_at"].max()
    assert isinstance(newest, datetime)
    assert 0 <= (datetime.now(UTC) - newest).total_seconds() < 86400


def test_generated_films_have_titles_of_their_own() -> None:
    films = generate(2, 9000, 10, seed=1).items
    assert len({film.attributes["title"] for film in films}) == 9000
    assert all(film.attributes["genres"] for film in films)


def test_viewers_who_see_a_third_of_everything_are_possible_and_more_is_refused() -> None:
    assert len(generate(10, 30, 100, seed=1).acts) == 100
    with pytest.raises(DatasetError, match="at most a third"):
        generate(10, 30, 101, seed=1)


def test_no_generated_id_is_the_beginning_of_another() -> None:
    assert len({len(user) for user in generate(120, 60, 2000, seed=1).users}) == 1


def test_what_is_generated_can_be_learnt() -> None:
    """A model ranks what the viewers watch next clearly better than popularity does, even of so few viewers."""
    past, fresh, future = _split(generate(500, 300, 20_000, seed=1, until=END))
    with threadpool_limits(1):
        model = AlternatingLeastSquares(factors=64, alpha=3, regularization=10, random_state=1, num_threads=1)
        model.fit(past, show_progress=False)
        found, _ = model.recommend(np.arange(500), fresh, N=10, recalculate_user=True)
    popularity = np.where(fresh.toarray() > 0, -1.0, past.sum(0))
    popular = np.argsort(-popularity, axis=1)[:, :10]
    assert _ndcg(found, future) > 1.5 * _ndcg(popular, future)


def _split(dataset: Dataset) -> list[sparse.csr_matrix]:
    """(users, items) what is learnt from, what is recommended from, and what is judged by.

    The first 80 % of the acts are learnt from; of what a user did after them, the earlier half is history, too.
    """
    number = {name: n for n, name in enumerate([*dataset.users, *(item.item_id for item in dataset.items)])}
    parts: tuple[list[tuple[int, int]], ...] = ([], [], [])
    later: dict[str, list[str]] = {}
    for n, (user, item) in enumerate(dataset.acts.select("user_id", "item_id").iter_rows()):
        if n < 0.8 * len(dataset.acts):
            parts[0].append((number[user], number[item] - len(dataset.users)))
        else:
            later.setdefault(user, []).append(item)
    for user, items in later.items():
        for n, item in enumerate(items):
            parts[1 if n < len(items) // 2 else 2].append((number[user], number[item] - len(dataset.users)))
    shape = (len(dataset.users), len(dataset.items))
    return [_matrix(part, shape) for part in (parts[0], parts[0] + parts[1], parts[2])]


def _matrix(pairs: list[tuple[int, int]], shape: tuple[int, int]) -> sparse.csr_matrix:
    rows, columns = np.array(pairs).T
    return sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)


def _ndcg(ranked: np.ndarray, future: sparse.csr_matrix) -> float:
    """Mean nDCG@10 over the users who have a future."""
    discount = 1 / np.log2(np.arange(2, 12))
    hits = np.take_along_axis(future.toarray(), ranked, axis=1) @ discount
    ideal = np.cumsum(discount)[np.minimum(np.diff(future.indptr), 10) - 1]
    judged = np.diff(future.indptr) > 0
    return float((hits[judged] / ideal[judged]).mean())
