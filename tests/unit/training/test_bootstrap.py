"""Intervals: what they are laid around, that they are as wide as figures really spread, and that a seed fixes them."""

import numpy as np
import pytest

from training.bootstrap import Figure, figures
from training.ranking import Ranking

ITEMS, K = 300, 10


def ranking(people: int, seed: int = 0) -> Ranking:
    """People who are all shown something else, some items more often than others; some take more of it up."""
    random = np.random.default_rng(seed)
    chance = random.gumbel(size=(people, ITEMS)) - 1.2 * np.log(np.arange(1, ITEMS + 1))
    lists = np.argsort(-chance, axis=1)[:, :K].astype(np.int32)
    hits = random.random((people, K)) < random.beta(1, 6, people)[:, None]
    wanted = np.maximum(hits.sum(axis=1), random.integers(1, 15, people))
    return Ranking(lists, hits, wanted, np.linspace(200, 1, ITEMS).astype(np.float32), 250)


@pytest.fixture(scope="module")
def found() -> dict[str, Figure]:
    """Of two hundred people, at two lengths."""
    return figures(ranking(200), (5, 10))


def test_every_figure_is_what_the_ranking_says(found: dict[str, Figure]) -> None:
    whole = ranking(200)
    for k in (5, 10):
        expected = {
            f"ndcg@{k}": whole.ndcg(k).mean(),
            f"recall@{k}": whole.recall(k).mean(),
            f"capped_recall@{k}": whole.capped_recall(k).mean(),
            f"map@{k}": whole.average_precision(k).mean(),
            f"mrr@{k}": whole.reciprocal_rank(k).mean(),
            f"coverage@{k}": whole.coverage(k),
            f"gini@{k}": whole.gini(k),
            f"novelty@{k}": whole.novelty(k),
            f"mean_popularity@{k}": whole.mean_popularity(k),
        }
        assert {name: found[name].value for name in expected} == pytest.approx(expected)
    assert len(found) == 18


def test_an_interval_holds_its_figure(found: dict[str, Figure]) -> None:
    """Also of coverage and the Gini index, which are lower and higher in every draw, since a draw repeats people."""
    assert all(one.low < one.value < one.high for one in found.values())


def test_an_interval_is_as_wide_as_the_figure_spreads_among_other_people() -> None:
    """Its width is that of a normal distribution with the spread that was seen: 2 · 1.96 standard deviations."""
    many = [figures(ranking(200, seed), (K,), resamples=200) for seed in range(60)]
    for name in many[0]:
        spread = np.std([one[name].value for one in many], ddof=1)
        width = np.mean([one[name].high - one[name].low for one in many])
        assert width == pytest.approx(2 * 1.96 * spread, rel=0.35), name


@pytest.mark.parametrize(("level", "deviations"), [(0.95, 1.96), (0.68, 0.994)])
def test_the_interval_of_a_mean_is_that_of_its_standard_error(level: float, deviations: float) -> None:
    whole = ranking(400)
    one = figures(whole, (K,), resamples=2000, level=level)["ndcg@10"]
    error = whole.ndcg(K).std() / np.sqrt(400)
    assert (one.high - one.low) / (2 * error) == pytest.approx(deviations, rel=0.06)


def test_of_four_times_the_people_the_interval_is_half_as_wide(found: dict[str, Figure]) -> None:
    more = figures(ranking(800), (K,))["ndcg@10"]
    assert more.high - more.low == pytest.approx((found["ndcg@10"].high - found["ndcg@10"].low) / 2, rel=0.25)


def test_a_seed_fixes_the_draws() -> None:
    one, two, other = (figures(ranking(50), (K,), resamples=50, seed=seed) for seed in (1, 1, 2))
    assert one == two != other


def test_draws_do_not_depend_on_how_many_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = figures(ranking(50), (K,), resamples=30)
    monkeypatch.setattr("training.bootstrap.CELLS", 7 * ITEMS)
    some_at_a_time = figures(ranking(50), (K,), resamples=30)
    assert {n: tuple(f) for n, f in at_once.items()} == {n: pytest.approx(f) for n, f in some_at_a_time.items()}


def test_people_who_are_shown_nothing_have_figures_too() -> None:
    nothing = Ranking(np.full((3, 2), -1, np.int32), np.zeros((3, 2), bool), np.ones(3, np.int64), np.ones(4), 3)
    assert {tuple(one) for one in figures(nothing, (2,), resamples=10).values()} == {(0.0, 0.0, 0.0)}


def test_an_interval_ends_where_its_metric_does() -> None:
    """Coverage of everything has no room above; laid around the figure alone, its interval would lie beyond."""
    random = np.random.default_rng(0)
    lists = np.array([random.permutation(12)[:4] for _ in range(30)], np.int32)
    ranking = Ranking(lists, lists < 2, np.full(30, 2), np.ones(12, np.float32), 30)
    for name, (value, low, high) in figures(ranking, [4]).items():
        assert 0 <= low <= value <= high
        assert high <= 1 or name.startswith("novelty")
