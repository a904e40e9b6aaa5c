"""Draws latency by rate."""

from collections.abc import Mapping, Sequence
from pathlib import Path

LABELS = {
    "ours": "Marquee: key, one shared read, signed id",
    "bare": "bare ASGI: the same bytes for all",
    "plain": "FastAPI, one GET, json.dumps",
}


def plot(curves: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """One line a server: p99 (solid) and median (dashed) by rate.

    Args:
        curves: server → points with `rate` (requests/s), `p50_ms` and `p99_ms`.
        path: the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for number, (name, points) in enumerate(curves.items()):
        rates = [point["rate"] for point in points]
        colour = f"C{number}"
        axes.plot(rates, [point["p99_ms"] for point in points], "o-", color=colour, label=f"{LABELS[name]}: p99")
        axes.plot(rates, [point["p50_ms"] for point in points], ".--", color=colour, label="median", alpha=0.6)
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("requests a second, at a constant rate (one worker)")
    axes.set_ylabel("latency in ms, from when a request was due")
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)
