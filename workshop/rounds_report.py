"""What came of the closed loop: figures with intervals over worlds, as a table, a result file and a plot."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from rich.table import Table
from scipy.special import stdtrit

from training.bootstrap import Figure
from workshop.world import Floats, Plan

LEVEL = 0.95
COLOURS = {"popularity": "#767676", "stale": "#b35900", "nearline": "#0f7b6c", "fresh": "#1f5aa6", "oracle": "#7a3b8f"}
MARKS = {"popularity": "s", "stale": "v", "nearline": "^", "fresh": "o", "oracle": "D"}
INK = "#333333"
PAIRS = (
    ("stale", "popularity"),
    ("nearline", "popularity"),
    ("fresh", "popularity"),
    ("nearline", "stale"),
    ("fresh", "nearline"),
    ("oracle", "popularity"),
    ("oracle", "fresh"),
)


@dataclass(frozen=True)
class Played:
    """Worlds that were played to their end.

    Attributes:
        command: that played them.
        plan: of the worlds.
        arms: names, in order.
        rates: (worlds, arms, rounds) watch rates; the worlds' seeds run from 1 on.
    """

    command: str
    plan: Plan
    arms: tuple[str, ...]
    rates: Floats

    def by_round(self) -> Mapping[str, Sequence[Figure]]:
        """Arm → a figure a round."""
        return {arm: [mean(values) for values in self.rates[:, row].T] for row, arm in enumerate(self.arms)}

    def overall(self) -> Mapping[str, Figure]:
        """Arm → its mean over all rounds."""
        return {arm: mean(self._of(arm)) for arm in self.arms}

    def difference(self, arm: str, other: str) -> Figure:
        """What an arm's mean over all rounds is above another's, world by world: both had the same viewers and dice."""
        return mean(self._of(arm) - self._of(other))

    def result(self) -> dict[str, Any]:
        """All of it, for the result file; the same worlds give the same."""
        return {
            "command": self.command,
            "world": asdict(self.plan),
            "seeds": list(range(1, len(self.rates) + 1)),
            "interval": f"{LEVEL:.0%} over worlds, Student's t; differences are paired",
            "watch_rate": {arm: _plain(figure) for arm, figure in self.overall().items()},
            "difference": {f"{a} - {b}": _plain(self.difference(a, b)) for a, b in PAIRS},
            "watch_rate_by_round": {arm: [_plain(one) for one in row] for arm, row in self.by_round().items()},
        }

    def write(self, path: Path) -> Path:
        """Write the result file, and the plot beside it, whose path is returned."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps(self.result(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        picture = path.with_suffix(".svg")
        plot(self, picture)
        return picture

    def table(self) -> Table:
        """The figures, for the terminal."""
        title = f"Watched from, of the places shown: mean of {len(self.rates)} worlds ± half the {LEVEL:.0%} interval"
        table = Table("arm", "first round", "last round", "all rounds", "beyond popularity", title=title)
        for arm, row in self.by_round().items():
            gained = self.difference(arm, "popularity")
            more = "" if arm == "popularity" else _shown(gained, "+")
            table.add_row(arm, _shown(row[0]), _shown(row[-1]), _shown(self.overall()[arm]), more)
        return table

    def _of(self, arm: str) -> Floats:
        """(worlds,) an arm's means over the rounds."""
        return np.asarray(self.rates[:, self.arms.index(arm)].mean(axis=1))


def mean(values: Floats) -> Figure:
    """The mean of (worlds,) and its interval, by Student's t; of one world it is not known: NaN.

    >>> [round(number, 2) for number in mean(np.array([1.0, 2.0, 3.0]))]
    [2.0, -0.48, 4.48]
    """
    middle, worlds = float(values.mean()), len(values)
    if worlds < 2:
        return Figure(middle, np.nan, np.nan)
    half = float(stdtrit(worlds - 1, (1 + LEVEL) / 2) * values.std(ddof=1) / np.sqrt(worlds))
    return Figure(middle, middle - half, middle + half)


def plot(played: Played, path: Path) -> None:
    """Watch rate by round, a line and its interval an arm. The same worlds give the same file."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import MaxNLocator

    with rc_context({"svg.hashsalt": "marquee", "svg.fonttype": "none", "font.family": "sans-serif"}):
        canvas = Canvas(figsize=(7.6, 4.4), layout="constrained", facecolor="white")
        axes = canvas.add_subplot()
        by_round = played.by_round()
        heights = _apart({arm: row[-1].value for arm, row in by_round.items()})
        for arm, row in by_round.items():
            rounds = np.arange(1, len(row) + 1)
            low, high = ([getattr(one, side) for one in row] for side in ("low", "high"))
            axes.fill_between(rounds, low, high, color=COLOURS[arm], alpha=0.2, linewidth=0)
            axes.plot(rounds, [one.value for one in row], color=COLOURS[arm], marker=MARKS[arm], markersize=4)
            end = (rounds[-1], heights[arm])
            axes.annotate(arm, end, (7, 0), textcoords="offset points", va="center", color=COLOURS[arm])
        axes.set_title(
            f"Watch rate by round, mean of {len(played.rates)} worlds and {LEVEL:.0%} interval",
            loc="left",
            color=INK,
            fontsize=11,
        )
        axes.set_xlabel("round", color=INK)
        axes.set_ylabel("share of the places shown that was watched from", color=INK)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(colors=INK)
        axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        canvas.savefig(path, metadata={"Date": None})


def _apart(heights: Mapping[str, float]) -> dict[str, float]:
    """Where names stand beside the ends of their lines, from the lowest up, so that none covers another."""
    apart, least = max(heights.values(), default=0.0) / 20, -np.inf
    placed = {}
    for arm, height in sorted(heights.items(), key=lambda one: one[1]):
        placed[arm] = least = max(height, least + apart)
    return placed


def _plain(figure: Figure) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else round(value, 5) for name, value in figure._asdict().items()}


def _shown(figure: Figure, sign: str = "") -> str:
    value = f"{figure.value:{sign}.3f}"
    return value if np.isnan(figure.high) else f"{value} ± {figure.high - figure.value:.3f}"
