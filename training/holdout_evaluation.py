"""What models are worth on three files: one is chosen on valid, and then all are judged on test, once."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import structlog
from scipy import sparse

from training.algorithms.base import CatalogueTooLarge
from training.bootstrap import Figure, figures
from training.bundle import Indices, Scores
from training.comparison import POPULARITY
from training.evaluation import fit, judge, lists
from training.holdout_files import HoldOut, notes_on
from training.recipe import Recipe
from training.search import search
from training.split import Split


@dataclass(frozen=True)
class Judged:
    """One model on test.

    Attributes:
        recipe: what it was made from.
        figures: as `training.bootstrap.figures` names them.
        stale: the same, had valid not been told to it; None where the model was fitted on valid.
        seconds: fitting and asking.
    """

    recipe: Recipe
    figures: Mapping[str, Figure]
    stale: Mapping[str, Figure] | None
    seconds: float


@dataclass(frozen=True)
class Report:
    """What came out.

    Attributes:
        selected: the one that was best on valid.
        popularity: the same list for everybody.
        others: of each other algorithm the one that was best on valid, the best first.
        recommendations: user_id, rank, item_id, score: the selected model's lists for everybody in test.
        notes: how what is odd in the files was counted, and which algorithm was left out, in sentences.
    """

    selected: Judged
    popularity: Judged
    others: tuple[Judged, ...]
    recommendations: pl.DataFrame
    notes: tuple[str, ...]


def evaluate_hold_out(
    hold_out: HoldOut, *, budget_seconds: float, ks: Sequence[int] = (10, 20), refit: bool = True
) -> Report:
    """Choose a recipe on valid alone, then judge it on test, beside popularity and each algorithm.

    Args:
        hold_out: the files.
        budget_seconds: for choosing; what follows, a fit of each algorithm, comes on top.
        ks: list lengths.
        refit: fit again on train and valid. False: as production does between two retrainings, the models stay fitted
            on train and valid arrives as newer history; beside it the same models with the histories of train alone.

    Raises:
        training.algorithms.base.CatalogueTooLarge: with valid there are too many items for the chosen recipe.
    """
    log = structlog.get_logger(__name__)
    log.info("choosing on valid", seconds=budget_seconds)
    chosen, others = _choose(hold_out.selection(refit), budget_seconds)
    split = hold_out.refitted() if refit else hold_out.arrived()
    notes = [*hold_out.notes, *notes_on(split, "test")]
    log.info("chosen, judging it on test", algorithm=chosen.algorithm)
    selected, indices, scores = _judge(chosen, split, ks)
    rows = hold_out.recommendations(split, indices, scores)
    judged = []
    for recipe in (POPULARITY, *others):
        log.info("judging on test", algorithm=recipe.algorithm)
        try:
            judged.append(_judge(recipe, split, ks)[0])
        except CatalogueTooLarge as error:
            notes.append(f"{recipe.algorithm} is left out: {error}")
    return Report(selected, judged[0], tuple(judged[1:]), rows, tuple(notes))


def _choose(selection: Split, budget_seconds: float) -> tuple[Recipe, list[Recipe]]:
    """The recipe that is best on valid, and the best of each other algorithm but popularity."""
    found = search(selection, budget_seconds)
    best: dict[str, Recipe] = {}
    for trial in found.best:
        best.setdefault(trial.recipe.algorithm, trial.recipe)
    passed = {found.recipe.algorithm, POPULARITY.algorithm}
    return found.recipe, [recipe for algorithm, recipe in best.items() if algorithm not in passed]


def _judge(recipe: Recipe, split: Split, ks: Sequence[int]) -> tuple[Judged, Indices, Scores]:
    """Fit and ask, with the fresh histories and, where those are others, the stale ones; with the former's lists."""
    start = time.monotonic()
    model = fit(recipe, split.train)
    indices, scores = lists(model, split, split.fresh.weighted(recipe.recency), max(ks))
    seconds = time.monotonic() - start
    stale = None
    if split.stale is not split.fresh:
        told = unlisted(split.stale.weighted(recipe.recency), split.fresh.user_items)
        stale = figures(judge(lists(model, split, told, max(ks))[0], split), ks)
    return Judged(recipe.whole(), figures(judge(indices, split), ks), stale, seconds), indices, scores


def unlisted(histories: sparse.csr_matrix, held: sparse.csr_matrix) -> sparse.csr_matrix:
    """The histories, with explicit zeros for what else people hold by now: not listed, and speaking for nothing.

    Published protocols mask all that a person had before test, whatever the model was told of it.

    Args:
        histories: (people, items) CSR.
        held: (people, items) CSR, with all that is in `histories`.
    """
    all_held, told = (
        np.repeat(np.arange(m.shape[0], dtype=np.int64) * m.shape[1], np.diff(m.indptr)) + m.indices
        for m in (held, histories)
    )
    values = np.zeros(held.nnz, np.float32)
    values[np.searchsorted(all_held, told)] = histories.data
    return sparse.csr_matrix((values, held.indices, held.indptr), shape=held.shape)
