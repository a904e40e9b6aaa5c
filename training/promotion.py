"""The gate between a trained model and the people. Four rules, all on one hold-out that nothing was chosen on.

1. Popularity: at least `GAIN` better than the same list for everybody.
2. Champion: shown not to be worse. People are drawn again and again with replacement (a paired bootstrap: Efron and
   Tibshirani 1993; Koehn 2004), both models are judged on the same draws, and in 95 of 100 draws the challenger is at
   most `MARGIN` below the champion. The fewer people there are, the wider the draws spread, and the more a challenger
   has to be better by to pass. The champion's own recipe has nothing to show: it differs from itself in no draw. So on
   a small hold-out a new recipe rarely passes, the job then fits the champion's recipe to the newer events, and people
   are neither left with an old model nor handed a worse one.
3. Coverage: the lists are not the same for everybody.
4. Stability: lists keep something of what the champion showed, unless the challenger is shown to be better.

The champion is judged by its recipe (algorithm, parameters, recency), fitted on the same events from before the cut.
Its published bundle has been fitted on events that are held out here, and would look twice as good as it is; its lists
are older than the challenger's by all that happened since, so that no challenger would resemble them after a while.
"""

from typing import NamedTuple

import numpy as np

from training.algorithms.base import CatalogueTooLarge
from training.comparison import Comparison, compare
from training.engine import Engine
from training.list_diff import shared
from training.ranking import Floats, K
from training.recipe import Recipe
from training.split import Split
from training.verdict import Verdict, all_passed, percent

GAIN = 0.05
"""How much better than popularity a model has to be, relative."""
MARGIN = 0.05
"""How much worse than the champion it may be, relative."""
OWED = Verdict(
    "erasure",
    True,
    "people were erased since the champion was trained, so it is replaced whatever the other rules say: by its own "
    "recipe, or where that is not known by the challenger",
)
LEVEL = 0.95
"""Share of the draws in which it may not be worse than that."""
DRAWS = 2000
LEAST_COVERAGE = 0.5
"""Share of the champion's coverage that it has to reach."""
WIDER = 2.0
"""How much more of the catalogue than the popular list it has to show. Half of what is possible is always enough."""
LEAST_KEPT = 0.2
"""Share of the champion's first ten that has to stay, on average."""
MOST = 10.0
"""A relative difference goes no further: it has to be a number where the champion is right nowhere."""
NO_CHAMPION = "there is no champion to compare with"


class Standing(NamedTuple):
    """The challenger beside the champion, on the same people.

    Attributes:
        difference: of nDCG@10, relative to the champion's.
        low: what it is at least in 95 of 100 draws of people.
        kept: mean share of the champion's first ten that are among the challenger's.
        same: whether both are of one recipe.
        people: judged.
    """

    difference: float
    low: float
    kept: float
    same: bool
    people: int

    def figures(self) -> dict[str, float]:
        """By name, for the registry."""
        return {"champion_difference": self.difference, "champion_difference_low": self.low, "champion_kept": self.kept}


class SetAside(NamedTuple):
    """A challenger that failed where the champion's own recipe passed, and why."""

    recipe: Recipe
    why: str


class Contest(NamedTuple):
    """What was compared and what the gate said.

    Attributes:
        comparison: of the challenger.
        standing: beside the champion; None where there is none.
        verdicts: on the challenger.
        set_aside: what was to be the challenger, where the champion's own recipe took its place.
        owed: it is let in though a rule fails, since the champion may not stay.
    """

    comparison: Comparison
    standing: Standing | None
    verdicts: tuple[Verdict, ...]
    set_aside: SetAside | None = None
    owed: bool = False

    @property
    def passed(self) -> bool:
        """Whether the challenger may become the champion."""
        return self.owed or all_passed(self.verdicts)

    @property
    def reasons(self) -> tuple[str, ...]:
        """One sentence a rule."""
        said = tuple(str(one) for one in self.verdicts)
        if self.set_aside is None:
            return said
        return (*said, f"set aside {self.set_aside.recipe.algorithm}: {self.set_aside.why}")

    def figures(self) -> dict[str, float]:
        """By name, for the registry."""
        people = {"people_judged": float(len(self.comparison.challenger.fresh.lists))}
        return self.comparison.metrics() | people | ({} if self.standing is None else self.standing.figures())


def hold_contest(
    split: Split,
    challenger: Recipe,
    champion: Recipe | None,
    absent: str = NO_CHAMPION,
    owed: bool = False,
    *,
    engine: Engine | None = None,
) -> Contest:
    """Judge the challenger; where it fails and the champion's own recipe does not, that takes its place.

    Args:
        split: that none of them was chosen on.
        challenger: the new recipe.
        champion: the champion's; None when there is none to compare with.
        absent: why there is none.
        owed: the champion was trained on events of people who were erased since, so something has to replace it: where
            the challenger fails, the champion's own recipe, whatever the rules say of that.
        engine: fits the recipes; None: this process.
    """
    try:
        comparison = compare(split, challenger, champion, engine)
    except CatalogueTooLarge as error:
        if champion is None:
            raise
        # Not the challenger: it was chosen on the same catalogue.
        absent = f"the champion's recipe cannot be fitted any more: {error}"
        return hold_contest(split, challenger, None, absent, owed, engine=engine)
    contest = _contest(comparison, absent)
    if not contest.passed and champion is not None and not (contest.standing is not None and contest.standing.same):
        contest = _champions_instead(contest, champion, absent, owed)
    if owed and not contest.passed:
        return contest._replace(verdicts=(*contest.verdicts, OWED), owed=True)
    return contest


def _champions_instead(contest: Contest, champion: Recipe, absent: str, owed: bool) -> Contest:
    instead = _contest(contest.comparison.of_champion(champion), absent)
    if not (instead.passed or owed):
        return contest
    challenger = contest.comparison.recipe
    failed = "; ".join(f"{one.name}: {one.reason}" for one in contest.verdicts if not one.passed)
    return instead._replace(set_aside=SetAside(challenger.whole(), failed))


def _contest(comparison: Comparison, absent: str) -> Contest:
    standing = stand(comparison)
    return Contest(comparison, standing, judge(comparison, standing, absent))


def stand(comparison: Comparison, seed: int = 0) -> Standing | None:
    """Set the challenger beside the champion; None where there is none."""
    champion = comparison.champion
    if champion is None:
        return None
    ours, theirs = comparison.challenger.fresh, champion.fresh
    difference, low = paired(ours.ndcg(), theirs.ndcg(), seed)
    old, new = theirs.lists[:, :K], ours.lists[:, :K]
    kept = float((shared(old, new) / np.maximum(1, (old >= 0).sum(axis=1))).mean())
    return Standing(difference, low, kept, ours is theirs, len(ours.lists))


def paired(ours: Floats, theirs: Floats, seed: int = 0) -> tuple[float, float]:
    """The relative difference of two means over the same people, and the lower end of its one-sided interval.

    Args:
        ours: (people,) one figure each.
        theirs: (people,) the same people's.
        seed: of the draws.

    >>> paired(np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    (0.0, 0.0)
    """
    random = np.random.default_rng(seed)
    people = len(ours)
    draws = (random.integers(0, people, people) for _ in range(DRAWS))
    drawn = [_relative(float(ours[draw].mean()), float(theirs[draw].mean())) for draw in draws]
    return _relative(float(ours.mean()), float(theirs.mean())), float(np.quantile(drawn, 1 - LEVEL))


def _relative(ours: float, theirs: float) -> float:
    """How much larger the one is than the other. Beside nothing, anything is `MOST`."""
    if not theirs:
        return MOST if ours else 0.0
    return min(MOST, (ours - theirs) / theirs)


def judge(comparison: Comparison, standing: Standing | None, absent: str = NO_CHAMPION) -> tuple[Verdict, ...]:
    """The verdicts on the challenger."""
    if standing is None:
        beside = (Verdict("champion", True, absent), Verdict("stability", True, absent))
    else:
        beside = (judge_difference(standing), judge_stability(standing))
    return (judge_gain(comparison), judge_coverage(comparison), *beside)


def judge_gain(comparison: Comparison) -> Verdict:
    """It beats the popular list."""
    ours, popular = (float(one.fresh.ndcg().mean()) for one in (comparison.challenger, comparison.popularity))
    floor = popular * (1 + GAIN)
    people = len(comparison.challenger.fresh.lists)
    reason = f"nDCG@10 {ours:.4f} on {people} people, the popular list has {popular:.4f}"
    if ours > floor:
        return Verdict("popularity", True, reason)
    return Verdict("popularity", False, f"{reason}; it takes more than {floor:.4f}")


def judge_difference(standing: Standing) -> Verdict:
    """It is shown not to be worse than the champion."""
    if standing.same:
        return Verdict("champion", True, "it is the champion's own recipe, fitted to newer events")
    reason = (
        f"nDCG@10 {percent(standing.difference, '+')} against the champion on {standing.people} people, "
        f"in {percent(LEVEL)} of draws at least {percent(standing.low, '+')}"
    )
    if standing.low >= -MARGIN:
        return Verdict("champion", True, reason)
    return Verdict("champion", False, f"{reason}; it takes {percent(-MARGIN, '+')}")


def judge_coverage(comparison: Comparison) -> Verdict:
    """It shows enough of the catalogue."""
    ours, popular = comparison.challenger.fresh.coverage(), comparison.popularity.fresh.coverage()
    people, items = len(comparison.challenger.fresh.lists), len(comparison.challenger.fresh.popularity)
    floor = min(WIDER * popular, min(1.0, K * people / items) / 2)
    reason = f"{percent(ours)} of the catalogue is shown to {people} people, {percent(popular)} by the popular list"
    if comparison.champion is not None:
        champions = comparison.champion.fresh.coverage()
        # What covers as much as the champion passes: it may have been let in by hand.
        floor = min(champions, max(floor, LEAST_COVERAGE * champions))
        reason += f", {percent(champions)} by the champion"
    if ours >= floor:
        return Verdict("coverage", True, reason)
    return Verdict("coverage", False, f"{reason}; it takes {percent(floor)}")


def judge_stability(standing: Standing) -> Verdict:
    """It does not turn all lists over for nothing."""
    reason = f"{percent(standing.kept)} of the champion's first ten stay on average"
    if standing.kept >= LEAST_KEPT:
        return Verdict("stability", True, reason)
    if standing.low > 0:
        return Verdict("stability", True, f"{reason}: few, but the lists are shown to be better")
    return Verdict("stability", False, f"{reason}; it takes {percent(LEAST_KEPT)}, or better lists")
