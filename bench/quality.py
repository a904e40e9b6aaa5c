"""How good the models are that the search finds, on data sets that papers report: choose on valid, judge on test.

    .venv/bin/python -m bench.quality ../shared/data/benchmarks [NAME …]

DATA/NAME/{train,valid,test}.parquet as `marquee evaluate` reads them. What differs between the sets is how test is
asked about, and which figures papers give. Writes bench/results/quality.json; sets that are not there are left as they
were. Each set has a process of its own, so that its peak memory is its own.
"""

import json
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from rich.console import Console

from training.comparison import POPULARITY
from training.evaluation import evaluate, fit, judge, lists
from training.holdout_evaluation import unlisted
from training.holdout_files import HoldOut, HoldOutFiles, read_hold_out
from training.ranking import Ranking
from training.recency import UNWEIGHTED
from training.recipe import Recipe
from training.search import search

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench/results/quality.json"


class Protocol(NamedTuple):
    """How a set is judged.

    Attributes:
        k: list length of the figures that are given.
        refit: fit on train and valid before test; False: stay fitted on train, and valid arrives as newer history.
        seconds: for choosing.
        seen_of_test: what was decided in the code after this set's test had been looked at; see docs/log.md.
    """

    k: int
    refit: bool
    seconds: float
    seen_of_test: str


PROTOCOLS = {
    "ml-1m": Protocol(10, True, 240, "nothing"),
    "ml-1m-chronological": Protocol(
        10,
        False,
        180,
        "recency in shares of the history, its grid, and to choose it as test is asked about: "
        "chosen on all of valid at once, it gave nDCG@10 .1524",
    ),
    "gowalla": Protocol(
        20,
        True,
        720,
        "that blends have no neighbours beside gf_cf: with them, what was best on valid gave nDCG@20 .1452, "
        "recall@20 .1787",
    ),
}


def main() -> None:
    """Measure the sets that are named, or all that are there, one process each."""
    data, *names = sys.argv[1:] or [str(ROOT / "../shared/data/benchmarks")]
    if names[:1] == ["--one"]:
        print(json.dumps(measured(Path(data) / names[1], PROTOCOLS[names[1]])))  # noqa: T201
        return
    names = names or [name for name in PROTOCOLS if (Path(data) / name).is_dir()]
    if not names:
        sys.exit(
            f"{data} has none of {', '.join(PROTOCOLS)}: name the folder that has them (make bench-quality DATA=…)"
        )
    for name in names:
        done = subprocess.run(
            [sys.executable, "-m", "bench.quality", data, "--one", name], stdout=subprocess.PIPE, check=True
        )
        results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        results[name] = json.loads(done.stdout) | {
            "command": shlex.join(["python", "-m", "bench.quality", "DATA", name]),
            "measured": datetime.now(UTC).date().isoformat(),
        }
        RESULT.write_text(json.dumps(results, indent=2) + "\n")
        Console().print_json(json.dumps({name: results[name]}))


def measured(folder: Path, protocol: Protocol) -> dict[str, Any]:
    """Choose, fit, and ask about test, once."""
    # Standard output is for the result.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    start = time.monotonic()
    hold_out = read_hold_out(HoldOutFiles(*(folder / f"{part}.parquet" for part in HoldOutFiles._fields)))
    found = search(hold_out.selection(protocol.refit), protocol.seconds)
    chosen = time.monotonic() - start
    figures = on_test(hold_out, found.recipe, protocol)
    return {
        **figures,
        "valid_ndcg@10": round(max(trial.ndcg for trial in found.best), 4),
        "recipe": {**found.recipe._asdict(), "recency": found.recipe.recency.model_dump()},
        "trials": len(found.trials),
        "budget_seconds": protocol.seconds,
        "seconds": {"choosing": round(chosen), "all": round(time.monotonic() - start)},
        "seen_of_test": protocol.seen_of_test,
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def on_test(hold_out: HoldOut, recipe: Recipe, protocol: Protocol) -> Mapping[str, float]:
    """The figures of the recipe and of popularity; where valid arrives, also without it (stale) and without recency."""
    split = hold_out.refitted() if protocol.refit else hold_out.arrived()
    popular = named(evaluate(POPULARITY, split).fresh, protocol.k, "popularity_")
    model = fit(recipe, split.train)

    def asked(histories: Any, prefix: str) -> dict[str, float]:
        return named(judge(lists(model, split, histories, protocol.k)[0], split), protocol.k, prefix)

    fresh = asked(split.fresh.weighted(recipe.recency), "") | popular
    if protocol.refit:
        return fresh
    # What arrived is not listed, whether it is told or not: published protocols do so.
    told = {
        "unweighted_": split.fresh.weighted(UNWEIGHTED),
        "stale_": unlisted(split.stale.weighted(UNWEIGHTED), split.fresh.user_items),
        "stale_weighted_": unlisted(split.stale.weighted(recipe.recency), split.fresh.user_items),
    }
    return fresh | {name: value for prefix, one in told.items() for name, value in asked(one, prefix).items()}


def named(ranking: Ranking, k: int, prefix: str) -> dict[str, float]:
    """nDCG and recall at k."""
    return {
        f"{prefix}ndcg@{k}": round(float(ranking.ndcg(k).mean()), 4),
        f"{prefix}recall@{k}": round(float(ranking.recall(k).mean()), 4),
    }


if __name__ == "__main__":
    main()
