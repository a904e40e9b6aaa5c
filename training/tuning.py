"""Which recipe to train: the best that is found on a validation hold-out within a time.

1. One recipe of each algorithm is judged, with the parameters that the shape of the data suggests.
2. How much the newer items of a history should weigh is found for the best one; the others are asked so too.
3. Those that come near the best take turns: next is the one that has had the least time, and Optuna says what to try.
4. The best of each algorithm are blended, where that is worth it.

All are fitted on `split.train` and compared on the same people.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from training.algorithms.base import AfterRound, Algorithm, CatalogueTooLarge
from training.blending import MARGIN, best_weights, score
from training.evaluation import fit
from training.panel import GLANCE, gain, judge, sample
from training.ranking import Floats
from training.recency import UNWEIGHTED, Recency
from training.recipe import Recipe
from training.search_bar import SearchBar
from training.search_space import Space, default_recipes, shape_of, spaces, suggested
from training.split import Split

if TYPE_CHECKING:
    from optuna import Trial as Suggestions

    from training.study import Study

SEARCHING = 0.7
"""Share of the time that goes to trials; the rest is for the recency and the blend of the best."""
NEAR = 0.85
"""Algorithms whose best reaches this share of the best of all are searched further."""
BLENDED = 0.6
"""Likewise, to be a part of blends."""
MOST_BLENDED = 4
NO_PARTS = {"blend", "item_item"}
"""Not parts of blends: `gf_cf` is already neighbours and a filter. With them apart, weights chosen on Gowalla's valid
rows gave all to neighbours and none to the filter, 5 % better there and 10 % worse on test: `docs/log.md`.
"""
LOOKS = (2, 4, 8)
"""Rounds of fitting after which a trial may be ended early."""
BOOSTS = (2.0, 4.0, 8.0, 16.0)
NOT_SEARCHED = Space({}, {})
HALF_LIVES = (0.1, 0.2, 0.4)


class Trial(NamedTuple):
    """A recipe that was tried, and what came of it.

    Attributes:
        ndcg: fresh nDCG@10 on the validation hold-out; of a pruned trial, when it was ended; NaN of a failed one.
        state: complete, pruned or failed.
    """

    recipe: Recipe
    ndcg: float
    seconds: float
    state: str


OnTrial = Callable[[Trial], None]


class Best(NamedTuple):
    """The best of an algorithm so far. The model is None where it was fitted in an earlier run."""

    trial: Trial
    model: Algorithm | None


def select(
    split: Split,
    *,
    seconds: float = 0.0,
    first: Sequence[Recipe] = (),
    storage: Path | None = None,
    on_trial: OnTrial | None = None,
) -> Recipe:
    """The recipe whose fresh nDCG@10 is highest, of two as good the first.

    Args:
        split: to judge on.
        seconds: how long to look, about. The default recipes are judged however long they take; 0: nothing else is,
            and nothing is blended.
        first: recipes to judge before the default ones.
        storage: file that keeps the trials. A search on the same hold-out goes on where the last one with this file
            ended; None: kept nowhere.
        on_trial: told each trial, those of earlier searches first.
    """
    from training.study import Study

    shape = shape_of(split.train.positives)
    with SearchBar(seconds) as bar:
        search = Search(split, Study(split, storage), bar, on_trial)
        search.judge_all([*first, *default_recipes(shape)])
        search.weigh()
        search.take_turns(search.started + SEARCHING * seconds)
        return search.blend() if seconds else search.best_recipe()


class Search:
    """A search that is under way.

    Args:
        split: to judge on.
        study: what was tried before, and what is tried now.
        bar: shows how far it is.
        on_trial: told each trial.
    """

    def __init__(self, split: Split, study: "Study", bar: SearchBar, on_trial: OnTrial | None) -> None:
        self.started = time.monotonic()
        self._train = split.train
        self._split = sample(split)
        self._glance = sample(self._split, GLANCE)
        self._spaces = spaces(shape_of(split.train.positives))
        self._study = study
        self._bar = bar
        self._on_trial = on_trial
        self._best: dict[str, Best] = {}
        self._seconds: dict[str, list[float]] = {}
        for trial in study.trials():
            self._keep(trial, None)

    def judge_all(self, recipes: Sequence[Recipe]) -> None:
        """Judge these, but for those that have been."""
        from training.study import key

        known = {key(trial.recipe) for trial in self._study.trials()}
        for recipe in recipes:
            if key(recipe) not in known:
                self._remember(*self._judged(recipe.whole(), None))
                known.add(key(recipe))

    def take_turns(self, end: float) -> None:
        """Let the algorithms that are near the best try what Optuna suggests, until the monotonic clock says `end`."""
        recency = self.best_recipe().recency
        while algorithm := self._next(end - time.monotonic()):
            asked = self._study.ask()
            recipe = suggested(asked, algorithm, self._spaces[algorithm]).whole()._replace(recency=recency)
            trial, model = self._judged(recipe, self._watch(asked, recipe, end))
            self._study.tell(asked, trial)
            self._keep(trial, model)

    def weigh(self) -> None:
        """Find what the newer items of a history should weigh, and judge the best of each algorithm that way."""
        recency = self._found_recency()
        for trial, model in self._parts():
            recipe = trial.recipe._replace(recency=recency)
            if model is not None and recipe != trial.recipe:
                start = time.monotonic()
                ndcg = float(judge(model, self._split, recency).mean())
                self._remember(Trial(recipe, ndcg, time.monotonic() - start, "complete"), model)

    def blend(self) -> Recipe:
        """The best single recipe, or a blend of the best ones where that is better; it has the recency of the best."""
        recency = self.best_recipe().recency
        parts = self._parts()
        models = [best.model or fit(best.trial.recipe, self._train) for best in parts]
        start = time.monotonic()
        scored = score(models, self._split, recency)
        weights = best_weights(scored)
        recipes = [best.trial.recipe._replace(recency=recency) for best in parts]
        chosen = [(recipe, weight) for recipe, weight in zip(recipes, weights, strict=True) if weight]
        recipe = chosen[0][0] if len(chosen) == 1 else blended(chosen)
        trial = Trial(recipe, float(scored.ndcg(weights).mean()), time.monotonic() - start, "complete")
        self._tell(trial)
        # The best may itself be a blend, of an earlier search.
        return max(trial, self._leader().trial, key=lambda one: one.ndcg).recipe

    def best_recipe(self) -> Recipe:
        """Of single ones."""
        return self._leader().trial.recipe

    def _judged(self, recipe: Recipe, watch: AfterRound | None) -> tuple[Trial, Algorithm | None]:
        from optuna import TrialPruned

        start = time.monotonic()
        self._bar.trying(recipe)
        try:
            model = fit(recipe, self._train, watch)
            ndcg = float(judge(model, self._split, recipe.recency).mean())
        except TrialPruned as pruned:
            return Trial(recipe, float(pruned.args[0]), time.monotonic() - start, "pruned"), None
        except (CatalogueTooLarge, np.linalg.LinAlgError):
            return Trial(recipe, np.nan, time.monotonic() - start, "failed"), None
        return Trial(recipe, ndcg, time.monotonic() - start, "complete"), model

    def _watch(self, asked: "Suggestions", recipe: Recipe, end: float) -> AfterRound:
        """Ends the fitting where it promises nothing, or takes too long."""
        from optuna import TrialPruned

        def look(model: Algorithm, rounds: int) -> None:
            late = time.monotonic() > end
            if rounds in LOOKS or late:
                ndcg = float(judge(model, self._glance, recipe.recency).mean())
                asked.report(ndcg, rounds)
                if late or asked.should_prune():
                    raise TrialPruned(ndcg)

        return look

    def _next(self, seconds: float) -> str | None:
        """Whose turn it is: of those who are near the best and can be done in time, who has had the least of it."""
        lowest = NEAR * self._leader().trial.ndcg
        near = [
            name
            for name, best in self._best.items()
            if self._spaces.get(name, NOT_SEARCHED).ranges
            and best.trial.ndcg >= lowest
            and max(self._seconds[name][-2:]) <= seconds
        ]
        return min(near, key=lambda name: sum(self._seconds[name]), default=None)

    def _found_recency(self) -> Recency:
        """What suits the best recipe; unweighted unless another is surely better."""
        trial, model = self._leader()
        model = model or fit(trial.recipe, self._train)
        figures = {form: self._asked(trial.recipe, model, form) for form in (UNWEIGHTED, trial.recipe.recency)}
        probes = [Recency(boost=BOOSTS[0], half_life=half_life) for half_life in HALF_LIVES]
        figures |= {form: self._asked(trial.recipe, model, form) for form in probes}
        closest = max(probes, key=lambda form: figures[form].mean())
        if figures[closest].mean() > figures[UNWEIGHTED].mean():
            stronger = [closest.model_copy(update={"boost": boost}) for boost in BOOSTS[1:]]
            figures |= {form: self._asked(trial.recipe, model, form) for form in stronger}
        best, plain = max(figures, key=lambda form: figures[form].mean()), figures[UNWEIGHTED]
        return best if worth_it(figures[best], plain) else UNWEIGHTED

    def _remember(self, trial: Trial, model: Algorithm | None) -> None:
        self._study.remember(trial, self._spaces.get(trial.recipe.algorithm, NOT_SEARCHED))
        self._keep(trial, model)

    def _keep(self, trial: Trial, model: Algorithm | None) -> None:
        name = trial.recipe.algorithm
        self._seconds.setdefault(name, []).append(trial.seconds)
        known = self._best.get(name)
        if trial.state == "complete" and (known is None or trial.ndcg > known.trial.ndcg):
            self._best[name] = Best(trial, model)
        self._tell(trial)

    def _tell(self, trial: Trial) -> None:
        self._bar.tried(trial.recipe, trial.ndcg)
        if self._on_trial is not None:
            self._on_trial(trial)

    def _leader(self) -> Best:
        return max(self._best.values(), key=lambda best: best.trial.ndcg)

    def _parts(self) -> list[Best]:
        """The best of each algorithm, as far as they are good enough for a blend, the best first."""
        lowest = BLENDED * self._leader().trial.ndcg
        ordered = sorted(self._best.items(), key=lambda one: -one[1].trial.ndcg)
        return [best for name, best in ordered if name not in NO_PARTS and best.trial.ndcg >= lowest][:MOST_BLENDED]

    def _asked(self, recipe: Recipe, model: Algorithm, recency: Recency) -> Floats:
        start = time.monotonic()
        figures = judge(model, self._split, recency)
        if recency != recipe.recency:
            trial = Trial(recipe._replace(recency=recency), float(figures.mean()), time.monotonic() - start, "complete")
            self._tell(trial)
        return figures


def worth_it(of: Floats, over: Floats) -> bool:
    """Whether what is more complicated is better by more than chance, and by enough to be worth it."""
    gained = gain(of, over)
    return gained.certain and gained.mean > MARGIN * float(over.mean())


def blended(parts: Sequence[tuple[Recipe, float]]) -> Recipe:
    """The blend of recipes with these weights, and their recency."""
    named = [{"algorithm": one.algorithm, "parameters": one.parameters, "weight": weight} for one, weight in parts]
    return Recipe("blend", {"parts": named}, parts[0][0].recency).whole()
