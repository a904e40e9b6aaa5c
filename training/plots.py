"""The plots of a model card, as PNG: who is served well, what is shown, and how versions have done."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from training.bundle import Scores
from training.comparison import Comparison
from training.ranking import Floats, K
from training.run_record import Point
from training.split import Split

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EDGES = (0, 5, 10, 20, 50, 100, 200, 500)
"""Lengths of histories at which a new group of people begins."""
FEWEST = 5
"""People in a group: of fewer the mean says nothing."""
COLOURS = {"challenger": "#1f5a8a", "champion": "#d98a2b", "popularity": "#9a9a9a", "taken up": "#4a8f5c"}
GROUPS = 10
INK = "#333333"
SIZE = (7.0, 3.8)


def plot_activity(comparison: Comparison, split: Split) -> bytes:
    """nDCG@10 by the length of people's histories, with two standard errors."""
    groups = activity_groups(np.diff(split.fresh.user_items.indptr))
    with _figure("nDCG@10 by how much a person has done", "items in the history", "nDCG@10") as (axes, content):
        models = comparison.by_name()
        width = 0.8 / len(models)
        for number, (name, evaluation) in enumerate(models.items()):
            values = [evaluation.fresh.ndcg()[people] for people in groups.values()]
            places = np.arange(len(groups)) + (number - (len(models) - 1) / 2) * width
            errors = [2 * one.std() / np.sqrt(len(one)) for one in values]
            means = [one.mean() for one in values]
            # An error bar below zero says nothing: nDCG has no such values.
            below = np.minimum(means, errors)
            axes.bar(places, means, width * 0.9, color=COLOURS[name], label=name)
            axes.errorbar(places, means, [below, errors], fmt="none", ecolor=INK, elinewidth=0.8, capsize=2)
        labels = [f"{name}\n{len(people)} people" for name, people in groups.items()]
        axes.set_xticks(np.arange(len(groups)), labels)
    return content.getvalue()


def plot_popularity(comparison: Comparison, split: Split) -> bytes:
    """Share of the lists, and of what people took up, by popularity: each group of items has a tenth of all acts."""
    groups = popularity_groups(comparison.challenger.fresh.popularity)
    known = split.held_out.indices[split.held_out.indices < len(groups)]
    series = {"taken up": _shares(groups[known])}
    for name, evaluation in comparison.by_name().items():
        listed = evaluation.fresh.lists[:, :K]
        series[name] = _shares(groups[listed[listed >= 0]])
    across = "items in tenths of all interactions, the most popular first, and how many they are"
    with _figure("What is shown, and what people took up", across, "share") as (axes, content):
        width = 0.8 / len(series)
        for number, (name, shares) in enumerate(series.items()):
            places = np.arange(1, GROUPS + 1) + (number - (len(series) - 1) / 2) * width
            axes.bar(places, shares, width * 0.9, color=COLOURS[name], label=name)
        labels = [f"{group + 1}\n{int((groups == group).sum())}" for group in range(GROUPS)]
        axes.set_xticks(range(1, GROUPS + 1), labels)
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    return content.getvalue()


def plot_history(points: Sequence[Point]) -> bytes:
    """nDCG@10 of the versions, each on the hold-out of its own time, beside the popular list's on the same."""
    with _figure("nDCG@10 of the versions, each on its own hold-out", "version", "nDCG@10") as (axes, content):
        versions = [point.version for point in points]
        axes.plot(
            versions,
            [point.popularity for point in points],
            color=COLOURS["popularity"],
            label="popularity",
            marker=".",
        )
        axes.plot(versions, [point.ndcg for point in points], color=COLOURS["challenger"], label="version")
        for let_in, face, label in ((True, COLOURS["challenger"], "let in"), (False, "white", "refused")):
            some = [point for point in points if point.let_in is let_in]
            if some:
                axes.scatter(
                    [point.version for point in some],
                    [point.ndcg for point in some],
                    s=36,
                    color=face,
                    edgecolor=COLOURS["challenger"],
                    zorder=3,
                    label=label,
                )
        axes.set_xlim(min(versions) - 0.5, max(versions) + 0.5)
        axes.set_ylim(0, 1.15 * max(max(point.ndcg, point.popularity) for point in points) or 1)
        axes.set_xticks(sorted({*versions[:: max(1, len(versions) // 10)], versions[-1]}))
    return content.getvalue()


def activity_groups(lengths: npt.NDArray[np.integer]) -> Mapping[str, npt.NDArray[np.int64]]:
    """Range of lengths → people in it; a group of few people is put together with the next.

    >>> {name: len(people) for name, people in activity_groups(np.array([1] * 6 + [7] * 2 + [12] * 9)).items()}
    {'1 to 4': 6, '5 to 12': 11}
    """
    bounds = [*EDGES, int(lengths.max()) + 1]
    groups: dict[str, npt.NDArray[np.int64]] = {}
    start = max(EDGES[0], int(lengths.min()))
    for end in [bound for bound in bounds[1:] if bound > start]:
        people = np.flatnonzero((lengths >= start) & (lengths < min(end, bounds[-1])))
        left = int((lengths >= end).sum())
        if left and (len(people) < FEWEST or left < FEWEST):
            continue
        last = min(end, bounds[-1]) - 1
        groups[f"{start} to {last}" if last > start else f"{start}"] = people
        start = end
        if not left:
            break
    return groups


def popularity_groups(popularity: Scores) -> npt.NDArray[np.int64]:
    """(items,) the group of each item: 0 the most popular items, which together have a tenth of all interactions.

    >>> popularity_groups(np.array([0, 5, 1, 4], np.float32)).tolist()
    [9, 2, 9, 7]
    """
    order = np.lexsort((np.arange(len(popularity)), -popularity))
    ordered = popularity[order].astype(np.float64)
    middles = np.cumsum(ordered) - ordered / 2
    groups = np.empty(len(popularity), np.int64)
    groups[order] = np.minimum(GROUPS - 1, middles * GROUPS // max(1.0, ordered.sum()))
    groups[popularity == 0] = GROUPS - 1
    return groups


def _shares(groups: npt.NDArray[np.int64]) -> Floats:
    return np.bincount(groups, minlength=GROUPS) / max(1, len(groups))


@contextmanager
def _figure(title: str, across: str, up: str) -> Iterator[tuple["Axes", io.BytesIO]]:
    """Axes to draw on, and what holds the PNG when the block has ended."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    content = io.BytesIO()
    yield axes, content
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(across, color=INK, fontsize=9)
    axes.set_ylabel(up, color=INK, fontsize=9)
    axes.tick_params(colors=INK, labelsize=8)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=4)
    figure.savefig(content, format="png", metadata={"Software": ""})
