"""The model card (Mitchell et al. 2019): what a version is, what it was made from, how good it is, and for whom.

Markdown with plots beside it, made by the run itself; no person is in it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from training.bundle import Bundle, Manifest
from training.data_checks import Checked
from training.list_diff import ListDiff
from training.plots import plot_activity, plot_history, plot_popularity
from training.promotion import Contest
from training.ranking import Ranking
from training.recipe import Recipe
from training.run_record import Point, describe, figure, parameters_of
from training.search import Found
from training.split import Split
from training.verdict import Verdict, percent

CARD = "model_card.md"
BEST_TRIALS = 10


class Facts(NamedTuple):
    """What a card is made from.

    Attributes:
        bundle: the model.
        contest: its hold-out and the gate.
        split: the hold-out.
        data: what was said of it.
        found: by the search.
        change: against the lists that are served now; None where none are.
        figures: seconds of the phases so far, and memory.
    """

    bundle: Bundle
    contest: Contest
    split: Split
    data: Checked
    found: Found
    change: ListDiff | None
    figures: Mapping[str, float]


def files(version: int, facts: Facts, history: Sequence[Point]) -> dict[str, bytes]:
    """The card and its plots, by file name.

    Args:
        version: the number that the model got.
        facts: about it.
        history: of the versions so far, the oldest first, this one included.
    """
    return {
        CARD: card(version, facts).encode(),
        "activity.png": plot_activity(facts.contest.comparison, facts.split),
        "popularity.png": plot_popularity(facts.contest.comparison, facts.split),
        "history.png": plot_history(history),
    }


def card(version: int, facts: Facts) -> str:
    """The card's text."""
    manifest = facts.bundle.manifest
    sections = (
        [f"# {manifest.domain}, version {version}", _summary(facts)],
        ["## Recipe", _table(("parameter", "value"), parameters_of(_recipe(manifest)).items())],
        ["## Data", _data(manifest, facts), *_verdicts(facts.data.verdicts), *_accepted(facts.data.accepted)],
        ["## Hold-out", _hold_out(facts), "![nDCG@10 by how much a person has done](activity.png)"],
        ["![What is shown, and what people took up](popularity.png)"],
        ["## Gate", *_verdicts(facts.contest.verdicts), *_set_aside(facts.contest)],
        ["## What changes for people", _change(facts.change)],
        ["## Search", _search(facts.found)],
        ["## Versions so far", "![nDCG@10 of the versions](history.png)"],
        ["## Run", _table(("", ""), [(name, figure(value)) for name, value in facts.figures.items()])],
    )
    return "\n\n".join(part for section in sections for part in section) + "\n"


def _summary(facts: Facts) -> str:
    manifest, passed = facts.bundle.manifest, facts.contest.passed
    return (
        f"{describe(_recipe(manifest))}, trained {manifest.trained_at:%Y-%m-%d %H:%M} UTC by run `{manifest.run_id}`. "
        f"The gate {'let it pass' if passed else 'refused it'}. The bundle holds items only, no person; "
        f"its digest is `{facts.bundle.digest()}`."
    )


def _data(manifest: Manifest, facts: Facts) -> str:
    snapshot = manifest.snapshot
    seen = ", ".join(f"{partition}: {offset}" for partition, offset in sorted(snapshot.watermark.items()))
    return (
        f"{snapshot.events:,} events of {snapshot.users:,} people who allow it, about "
        f"{len(facts.bundle.items.item_ids):,} items. Version {snapshot.version} of the lake's table, content "
        f"`{snapshot.digest}`, log up to ({seen}). Code `{manifest.code}`."
    )


def _hold_out(facts: Facts) -> str:
    comparison = facts.contest.comparison
    rows = [
        (f"{name}, {when} histories", *_figures(ranking))
        for name, evaluation in comparison.by_name().items()
        for when, ranking in (("fresh", evaluation.fresh), ("stale", evaluation.stale))
    ]
    people = len(comparison.challenger.fresh.lists)
    return (
        f"The newest events of {people:,} people, which none of the models was fitted to or chosen on. Fresh histories "
        "have in them what had arrived when the person asked, stale ones end where training ended.\n\n"
        + _table(("", "nDCG@10", "recall@20", "coverage@10", "novelty@10"), rows)
    )


def _figures(ranking: Ranking) -> tuple[str, ...]:
    return tuple(f"{value:.4f}" for value in ranking.figures().values())


def _verdicts(verdicts: Iterable[Verdict]) -> list[str]:
    return [_table(("rule", "", "figures"), [(one.name, one.word, one.reason) for one in verdicts])]


def _accepted(reason: str | None) -> list[str]:
    return [] if reason is None else [f"A rule had failed; the data was accepted by hand: {reason}"]


def _set_aside(contest: Contest) -> list[str]:
    if contest.set_aside is None:
        return []
    recipe, why = contest.set_aside
    return [f"The search had found {describe(recipe)}. It was set aside ({why}) for the champion's own recipe."]


def _change(change: ListDiff | None) -> str:
    if change is None:
        return "Nothing was served before."
    return (
        f"Against the version that was served, over {change.people:,} people with the same histories: "
        f"{percent(change.changed)} of the first tens change in items or order, {percent(change.kept)} of their items "
        f"stay, rank-biased overlap is {change.overlap:.2f}."
    )


def _search(found: Found) -> str:
    if not found.trials:
        return "Nothing was tried: there was too little to choose on."
    rows = [(describe(one.recipe), f"{one.ndcg:.4f}", f"{one.seconds:.1f}") for one in found.best[:BEST_TRIALS]]
    intro = f"The best of {len(found.trials)} trials, on a hold-out of their own from before the gate's:"
    return f"{intro}\n\n{_table(('recipe', 'nDCG@10', 'seconds'), rows)}"


def _recipe(manifest: Manifest) -> Recipe:
    return Recipe(manifest.algorithm, manifest.parameters, manifest.recency)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    r"""A table in markdown.

    >>> print(_table(("a", "b"), [("x|y", 1)]))
    | a | b |
    |---|---|
    | x\|y | 1 |
    """
    lines = [list(head), *(list(row) for row in rows)]
    text = ["| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines]
    return "\n".join([text[0], "|" + "---|" * len(head), *text[1:]])


def _cell(value: Any) -> str:
    plain = value if isinstance(value, str) else orjson.dumps(value).decode()
    return plain.replace("|", r"\|").replace("\n", " ")
