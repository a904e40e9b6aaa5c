"""The report of `marquee evaluate`: what was chosen, and a table of every metric of every model with its interval."""

from collections.abc import Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from training.bootstrap import LEVEL, RESAMPLES, Figure
from training.holdout_evaluation import Judged, Report
from training.run_record import describe

METRICS: Mapping[str, str] = {
    "ndcg": "1: what was held out stands first; the lower, the less",
    "recall": "hits / held-out items",
    "capped_recall": "hits / min(k, held-out items)",
    "map": "mean average precision, over min(k, held-out items)",
    "mrr": "mean of 1 / place of the first hit",
    "coverage": "share of the items that are in anybody's list",
    "gini": "how unequally places are shared out among items: 0 evenly, 1 all to one",
    "novelty": "mean of -log2(share of people who have the item), in bits",
    "mean_popularity": "mean share of people who have the item: the popularity bias",
}
"""Metric → what it says, in the order of the table."""


def report_on(report: Report, ks: Sequence[int]) -> list[RenderableType]:
    """Notes, recipes, figures, and what the figures mean."""
    interval = f"[low, high] is the {LEVEL:.0%} interval over people, of {RESAMPLES} bootstrap draws."
    ranked = "All items are ranked but those that a person has in train and valid."
    meanings = [f"  {metric}: {meaning}" for metric, meaning in METRICS.items()]
    lines = [Text(line) for line in (f"{interval} {ranked}", *meanings)]
    return [*map(Text, report.notes), _recipes(report), _figures(report, ks), *lines]


def _models(report: Report) -> dict[str, Judged]:
    named = {f"{report.selected.recipe.algorithm} (selected)": report.selected, "popularity": report.popularity}
    return named | {one.recipe.algorithm: one for one in report.others}


def _recipes(report: Report) -> Table:
    table = Table("model", "made from", "seconds", box=None, title="Models", title_justify="left")
    for name, one in _models(report).items():
        table.add_row(name, Text(describe(one.recipe)), f"{one.seconds:.1f}")
    return table


def _figures(report: Report, ks: Sequence[int]) -> Table:
    rows = [row for name, one in _models(report).items() for row in _rows(name, one)]
    table = Table("metric", "model", *(f"@{k}" for k in ks), box=None, title="On test", title_justify="left")
    for metric in METRICS:
        for place, (name, figures) in enumerate(rows):
            cells = (_cell(figures[f"{metric}@{k}"]) for k in ks)
            table.add_row("" if place else metric, name, *cells)
    return table


def _rows(name: str, one: Judged) -> list[tuple[str, Mapping[str, Figure]]]:
    if one.stale is None or one.stale == one.figures:
        return [(name, one.figures)]
    return [(name, one.figures), (f"{name}, stale history", one.stale)]


def _cell(figure: Figure) -> Text:
    return Text(f"{figure.value:.4f} [{figure.low:.4f}, {figure.high:.4f}]")
