"""The challenger, popularity and the champion on one hold-out that none of them was chosen on."""

from functools import partial
from typing import NamedTuple

from training.engine import Engine, OneProcess
from training.evaluation import Evaluation, evaluate
from training.recipe import Recipe
from training.split import Split

POPULARITY = Recipe("popularity", {})


class Comparison(NamedTuple):
    """Models on one hold-out, all fitted on what happened before its cut.

    Attributes:
        recipe: the challenger's.
        challenger: what it is worth.
        popularity: the same list for everybody.
        champion: of the champion's recipe; None when there is no champion.
    """

    recipe: Recipe
    challenger: Evaluation
    popularity: Evaluation
    champion: Evaluation | None

    def metrics(self) -> dict[str, float]:
        """All figures by name; without a prefix: the challenger with fresh histories."""
        return {
            name: value
            for who, evaluation in self.by_name().items()
            for when, ranking in (("", evaluation.fresh), ("stale_", evaluation.stale))
            for name, value in ranking.figures(f"{'' if who == 'challenger' else f'{who}_'}{when}").items()
        }

    def by_name(self) -> dict[str, Evaluation]:
        """challenger, champion where there is one, and popularity."""
        champion = {} if self.champion is None else {"champion": self.champion}
        return {"challenger": self.challenger, **champion, "popularity": self.popularity}

    def of_champion(self, champion: Recipe) -> "Comparison":
        """The same, with the champion's recipe in the challenger's place.

        Args:
            champion: the recipe of `self.champion`, which has to be there.
        """
        assert self.champion is not None
        return Comparison(champion.whole(), self.champion, self.popularity, self.champion)


def compare(split: Split, challenger: Recipe, champion: Recipe | None, engine: Engine | None = None) -> Comparison:
    """Fit and judge the challenger's recipe, popularity and the champion's recipe; engine None: in this process."""
    judge = partial(evaluate, split=split, fit_it=(engine or OneProcess()).fit)
    judged = {"challenger": judge(challenger), "popularity": judge(POPULARITY)}
    if champion is None:
        return Comparison(challenger.whole(), champion=None, **judged)
    if champion.whole() == challenger.whole():
        return Comparison(challenger.whole(), champion=judged["challenger"], **judged)
    return Comparison(challenger.whole(), champion=judge(champion), **judged)
