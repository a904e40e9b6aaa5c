"""What the commands of training print, for people on a terminal."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import structlog
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from infra.model_registry import PURGED, ModelVersion
from infra.runs import Run
from training.job import Outcome
from training.list_diff import ItemChange, K, ListDiff
from training.rollback import PROMOTED_AT, PROMOTED_BECAUSE, PROMOTED_BY
from training.run_record import CHECK, FORCED, GATE, describe, figure
from training.tuning import Trial
from training.verdict import percent

STATUS = ("version", "registered", "algorithm", "nDCG@10", "recall@20", "stale", "popular", "gate", "")
FIGURES = ("ndcg_at_10", "recall_at_20", "stale_ndcg_at_10", "popularity_ndcg_at_10")
MODELS = ("version", "registered", "recipe", "nDCG@10", "champion", "popular", "gate", "digest", "")
BESIDE = ("ndcg_at_10", "champion_ndcg_at_10", "popularity_ndcg_at_10")
LINEAGE = ("algorithm", "recipe", "digest", "snapshot_version", "snapshot_digest", "watermark", "receipts", "code")
WIDTH = 160
"""Columns where nobody looks at a terminal."""
DIGEST_SHOWN = 10
ITEMS_SHOWN = 10
TRIALS_SHOWN = 10


def show(*things: RenderableType) -> None:
    """Print, as wide as the terminal; where there is none, wide enough for the tables."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    for thing in things:
        console.print(thing)


def show_outcome(outcome: Outcome) -> None:
    """For people on a terminal, else as one line of JSON: the schedule reads it."""
    if outcome.result != "published":
        structlog.get_logger(__name__).warning("the champion keeps serving", result=outcome.result, why=outcome.reasons)
    if not sys.stdout.isatty():
        sys.stdout.write(outcome.model_dump_json() + "\n")
        return
    what = "no version" if outcome.version is None else f"version {outcome.version} ({outcome.algorithm})"
    lines = (f"{what}: {outcome.result.replace('_', ' ')}", *(f"  {reason}" for reason in outcome.reasons))
    show(*map(Text, lines), f"lists published: {outcome.users_published}")


def status_table(versions: Iterable[ModelVersion], served: int | None) -> Table:
    """The versions with their figures."""
    table = Table(*STATUS, box=None, caption="stale and popular: nDCG@10 with old histories, and of the popular list")
    for one in versions:
        algorithm = one.tags.get("algorithm", "")
        table.add_row(*_when(one), algorithm, *_metrics(one, FIGURES), one.tags.get("verdict", ""), _roles(one, served))
    return table


def models_table(versions: Iterable[ModelVersion], served: int | None) -> Table:
    """The versions with what they are, beside champion and popular list on the same people."""
    table = Table(*MODELS, box=None, caption="champion and popular: their nDCG@10 on the hold-out of that version")
    for one in versions:
        table.add_row(
            *_when(one),
            one.tags.get("recipe", one.tags.get("algorithm", "")),
            *_metrics(one, BESIDE),
            one.tags.get("verdict", ""),
            one.tags.get("digest", "")[:DIGEST_SHOWN],
            _roles(one, served),
        )
    return table


def model_tables(one: ModelVersion, run: Run, served: int | None) -> list[Table]:
    """One version in full: its lineage, every verdict, all figures and parameters."""
    return [
        _pairs(f"Version {one.version}", _about(one, run, served)),
        _pairs("Gate", _of_prefix(one.tags, GATE) | _optional(one.tags, {"set_aside": "set aside"})),
        _pairs("Data", _of_prefix(one.tags, CHECK) | _optional(one.tags, {"accepted_data": "accepted because"})),
        _pairs("Parameters", run.parameters),
        _pairs("Figures", {name: figure(value) for name, value in sorted(run.metrics.items())}),
    ]


def diff_tables(versions: tuple[int, int], diff: ListDiff, name: str | None) -> list[Table]:
    """Whose lists change, by how much, and which items gain and lose most.

    Args:
        versions: before and after.
        diff: between them.
        name: attribute that people know items by; None: their ids.
    """
    before, after = versions
    figures = {
        "people compared, with the same histories": f"{diff.people:,}",
        f"whose first {K} change": f"{percent(diff.changed)}",
        "items that stay, on average": f"{percent(diff.kept)}",
        "rank-biased overlap, on average": f"{diff.overlap:.3f}",
    }
    kept = {f"keep {kept} of {K}": f"{people:,}" for kept, people in enumerate(diff.by_kept) if people}
    gaining = [one for one in diff.items if one.after > one.before][:ITEMS_SHOWN]
    losing = [one for one in reversed(diff.items) if one.after < one.before][:ITEMS_SHOWN]
    return [
        _pairs(f"Version {before} → {after}", figures),
        _pairs("People who", kept),
        _items("Items that gain most", gaining, name),
        _items("Items that lose most", losing, name),
    ]


def trials_table(trials: Sequence[Trial], of: int) -> Table:
    """The best trials of a search.

    Args:
        trials: the best first.
        of: how many there were.
    """
    table = Table("nDCG@10", "recipe", "seconds", title=f"The best of {of} trials", title_justify="left")
    for trial in trials[:TRIALS_SHOWN]:
        table.add_row(f"{trial.ndcg:.4f}", describe(trial.recipe), f"{trial.seconds:.1f}")
    return table


def _when(one: ModelVersion) -> tuple[str, str]:
    return str(one.version), f"{one.registered_at:%Y-%m-%d %H:%M}"


def _metrics(one: ModelVersion, names: Iterable[str]) -> list[str]:
    return [f"{one.metrics[name]:.4f}" if name in one.metrics else "" for name in names]


def _roles(one: ModelVersion, served: int | None) -> str:
    forced = FORCED in one.tags
    purged = PURGED in one.tags
    roles = (("served", one.version == served), ("champion", one.champion), ("by force", forced), ("purged", purged))
    return ", ".join(word for word, holds in roles if holds)


def _about(one: ModelVersion, run: Run, served: int | None) -> dict[str, str]:
    about = {"registered": f"{one.registered_at:%Y-%m-%d %H:%M:%S} UTC", "verdict": one.tags.get("verdict", "")}
    promoted = {PROMOTED_BY: "promoted by", PROMOTED_AT: "promoted at", PROMOTED_BECAUSE: "because"}
    place = f"{run.artifacts.removeprefix('file://')}"
    return (
        about
        | {"now": _roles(one, served) or "not served"}
        | _optional(one.tags, promoted | {PURGED: "purged"})
        | {name.replace("_", " "): one.tags[name] for name in LINEAGE if name in one.tags}
        | {"run": one.run_id, "model card": f"{place}/model_card.md"}
    )


def _of_prefix(tags: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {name.removeprefix(f"{prefix}."): said for name, said in tags.items() if name.startswith(f"{prefix}.")}


def _optional(tags: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    return {name: tags[tag] for tag, name in names.items() if tags.get(tag)}


def _pairs(title: str, pairs: Mapping[str, Any]) -> Table:
    table = Table("", "", title=title, title_justify="left", title_style="bold", show_header=False, box=None)
    for name, value in pairs.items():
        # As text: a reason may have brackets in it, which are markup to the console.
        table.add_row(Text(name), Text(str(value)))
    return table


def _items(title: str, items: Iterable[ItemChange], name: str | None) -> Table:
    table = Table("item", "lists before", "after", title=title, title_justify="left", box=None)
    for one in items:
        shown = one.item_id if name is None else one.attributes.get(name, one.item_id)
        table.add_row(Text(str(shown)), f"{one.before:,}", f"{one.after:,}")
    return table
