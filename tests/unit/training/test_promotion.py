"""The gate: each rule both ways, and that it neither stops every retraining nor lets a worse model through."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from training import promotion
from training.algorithms.base import CatalogueTooLarge
from training.comparison import POPULARITY, Comparison
from training.evaluation import Evaluation
from training.interactions import read_catalogue, read_events
from training.promotion import MARGIN, MOST, hold_contest, judge, paired, stand
from training.ranking import Ranking
from training.recipe import Recipe
from training.split import Split, split_by_time
from training.verdict import Verdict

ITEMS = 200
TFIDF = Recipe("item_item", {"weighting": "tfidf"})
COSINE = Recipe("item_item", {"weighting": "cosine", "neighbours": 3})

Viewers = Callable[..., pl.DataFrame]


@pytest.fixture(scope="module")
def split(viewers: Viewers) -> Split:
    """Sixty viewers with tastes."""
    events = read_events(viewers().lazy(), {"play": 1.0})
    return split_by_time(events, read_catalogue(None, events), 100)


def judged(right: npt.NDArray[np.bool_], *, spread: int = ITEMS, shift: int = 0) -> Evaluation:
    """A model that names the one held-out item first where `right`, and shows `spread` items from `shift` on."""
    people = len(right)
    lists = (np.arange(people)[:, None] * 10 + np.arange(10)) % spread + shift
    hits = np.zeros((people, 10), bool)
    hits[:, 0] = right
    ranking = Ranking(lists.astype(np.int32), hits, np.ones(people, np.int64), np.ones(ITEMS, np.float32), people)
    return Evaluation(ranking, ranking)


def share(part: float, people: int = 1000) -> npt.NDArray[np.bool_]:
    """Right for this share of the people, the first ones."""
    return np.arange(people) < part * people


def verdict(name: str, comparison: Comparison) -> Verdict:
    return next(one for one in judge(comparison, stand(comparison)) if one.name == name)


def against(challenger: Evaluation, champion: Evaluation | None, popularity: Evaluation | None = None) -> Comparison:
    return Comparison(TFIDF, challenger, popularity or judged(share(0.05), spread=20), champion)


@pytest.mark.parametrize(
    ("right", "passed"), [(0.20, True), (0.1, False), (0.05, False), (0.104, False), (0.107, True)]
)
def test_a_model_has_to_beat_the_popular_list_by_the_gain(right: float, passed: bool) -> None:
    found = verdict("popularity", against(judged(share(right)), None, judged(share(0.1), spread=20)))
    assert found.passed is passed
    assert f"nDCG@10 {right:.4f} on 1000 people, the popular list has 0.1000" in found.reason
    assert ("it takes more than 0.1050" in found.reason) is not passed


def test_where_nothing_is_right_anywhere_nothing_passes() -> None:
    nothing = judged(share(0.0))
    assert not verdict("popularity", against(nothing, nothing, nothing)).passed


@pytest.mark.parametrize(
    ("right", "passed"),
    [
        pytest.param(0.40, True, id="as good"),
        pytest.param(0.395, True, id="a little worse, and sure of it"),
        pytest.param(0.37, False, id="worse"),
        pytest.param(0.60, True, id="better"),
    ],
)
def test_a_challenger_may_not_be_worse_than_the_champion_by_more_than_the_margin(right: float, passed: bool) -> None:
    found = verdict("champion", against(judged(share(right)), judged(share(0.4))))
    assert found.passed is passed
    assert f"{100 * (right / 0.4 - 1):+.3g} %" in found.reason
    assert "on 1000 people, in 95 % of draws at least" in found.reason
    assert found.reason.endswith("it takes -5 %") is not passed


def test_a_difference_within_the_margin_passes_only_where_people_are_enough_to_show_it() -> None:
    """The same 2 % fewer hits, by other people each time: shown on 100,000 people, not on 200."""
    for people, passed in ((200, False), (100_000, True)):
        random = np.random.default_rng(0)
        champion = random.permutation(share(0.5, people))
        challenger = random.permutation(share(0.49, people))
        assert verdict("champion", against(judged(challenger), judged(champion))).passed is passed


@pytest.mark.parametrize(
    ("truly", "least", "most"), [(0.36, 0.0, 0.06), (0.4, 0.01, 0.3), (0.7, 0.9, 1.0)], ids=["worse", "equal", "better"]
)
def test_on_seventy_people_a_worse_model_hardly_ever_passes_and_a_much_better_one_nearly_always(
    truly: float, least: float, most: float
) -> None:
    """A hundred hold-outs; the champion is right about 40 of 100 people, the challenger about 36, 40 or 70."""
    random = np.random.default_rng(0)
    passed = []
    for number in range(100):
        champion, challenger = (1.0 * (random.random(70) < right) for right in (0.4, truly))
        passed.append(paired(challenger, champion, number)[1] >= -MARGIN)
    assert least <= np.mean(passed) <= most


def test_the_draws_are_seeded_and_pair_the_people() -> None:
    random = np.random.default_rng(0)
    champion = random.random(500)
    assert paired(champion * 1.2, champion, 1) == paired(champion * 1.2, champion, 1)
    assert paired(champion * 0.97, champion) == pytest.approx((-0.03, -0.03)), (
        "pairs differ all alike: no doubt is left"
    )
    assert paired(random.permutation(champion), champion)[1] < -0.02


def test_beside_a_champion_that_is_right_nowhere_a_difference_is_still_a_number() -> None:
    nothing, something = np.zeros(50), np.full(50, 0.5)
    assert paired(something, nothing) == (MOST, MOST)
    assert paired(nothing, nothing) == (0.0, 0.0)


def test_without_a_champion_there_is_nothing_to_compare_with() -> None:
    found = judge(against(judged(share(0.2)), None), None)
    assert [one.name for one in found] == ["popularity", "coverage", "champion", "stability"]
    assert [one.reason for one in found[2:]] == ["there is no champion to compare with"] * 2


@pytest.mark.parametrize(("spread", "passed"), [(200, True), (41, True), (39, False), (10, False)])
def test_a_first_model_has_to_show_twice_what_the_popular_list_shows(spread: int, passed: bool) -> None:
    found = verdict("coverage", against(judged(share(0.5), spread=spread), None, judged(share(0.1), spread=20)))
    assert found.passed is passed
    assert f"{spread / 2:.3g} % of the catalogue is shown to 1000 people, 10 % by the popular list" in found.reason
    assert found.reason.endswith("it takes 20 %") is not passed


def test_half_of_what_is_possible_is_always_coverage_enough() -> None:
    """The popular list of few people with long histories may show three quarters of a small catalogue."""
    for spread, passed in ((105, True), (95, False)):
        found = verdict("coverage", against(judged(share(0.5), spread=spread), None, judged(share(0.1), spread=150)))
        assert found.passed is passed


@pytest.mark.parametrize(("spread", "passed"), [(180, True), (100, True), (80, False)])
def test_a_challenger_has_to_show_half_of_what_the_champion_shows(spread: int, passed: bool) -> None:
    found = verdict("coverage", against(judged(share(0.5), spread=spread), judged(share(0.5), spread=190)))
    assert found.passed is passed
    assert "95 % by the champion" in found.reason


def test_what_shows_as_much_as_a_champion_let_in_by_hand_passes() -> None:
    narrow = judged(share(0.5), spread=20)
    assert verdict("coverage", against(narrow, narrow)).passed
    assert not verdict("coverage", against(narrow, judged(share(0.5), spread=21))).passed


@pytest.mark.parametrize(("shift", "passed"), [(0, True), (8, True), (9, False)])
def test_two_of_the_champions_first_ten_have_to_stay(shift: int, passed: bool) -> None:
    champion = judged(share(0.5), spread=10)
    found = verdict("stability", against(judged(share(0.5), spread=10, shift=shift), champion))
    assert found.passed is passed
    assert f"{100 - 10 * shift} % of the champion's first ten stay" in found.reason
    assert found.reason.endswith("it takes 20 %, or better lists") is not passed


def test_all_lists_may_turn_over_where_they_are_shown_to_be_better() -> None:
    champion = judged(share(0.4), spread=10)
    for right, passed in ((0.41, True), (0.4, False)):
        assert verdict("stability", against(judged(share(right), spread=10, shift=50), champion)).passed is passed


def test_a_better_recipe_takes_the_champions_place(split: Split) -> None:
    contest = hold_contest(split, TFIDF, POPULARITY)
    assert (contest.passed, contest.set_aside, contest.comparison.recipe) == (True, None, TFIDF.whole())
    assert contest.figures()["champion_difference"] > 0.5
    assert contest.figures()["people_judged"] == len(split.fresh)


def test_a_recipe_that_cannot_be_shown_to_be_as_good_is_set_aside_for_the_champions_own(split: Split) -> None:
    contest = hold_contest(split, POPULARITY, TFIDF)
    assert contest.passed
    assert contest.comparison.recipe == TFIDF.whole()
    assert contest.comparison.challenger is contest.comparison.champion
    assert contest.set_aside is not None
    assert contest.set_aside.recipe == POPULARITY.whole()
    assert "champion: nDCG@10 -" in contest.set_aside.why
    assert contest.reasons[-1].startswith("set aside popularity: ")
    assert "the champion's own recipe" in contest.reasons[2]


def test_where_the_champions_recipe_fails_too_the_challenger_is_refused(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "GAIN", 100.0)
    contest = hold_contest(split, COSINE, TFIDF)
    assert (contest.passed, contest.set_aside, contest.comparison.recipe) == (False, None, COSINE.whole())
    assert not hold_contest(split, TFIDF, TFIDF).passed


def test_a_champion_whose_algorithm_refuses_the_catalogue_by_now_stops_nobody(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = promotion.compare

    def refusing(split: Split, challenger: Recipe, champion: Recipe | None, engine: object) -> Comparison:
        if champion is not None:
            raise CatalogueTooLarge("61 items are too many")
        return real(split, challenger, champion)

    monkeypatch.setattr(promotion, "compare", refusing)
    contest = hold_contest(split, TFIDF, COSINE)
    assert contest.passed
    assert contest.verdicts[2].reason == "the champion's recipe cannot be fitted any more: 61 items are too many"
