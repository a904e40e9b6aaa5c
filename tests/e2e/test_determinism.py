"""The same snapshot gives the same bundle, bit by bit, on one thread and on two."""

import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from infra.lake import EVENTS, TABLES, Lake, Span
from infra.model_registry import ModelRegistry
from infra.online_store import OnlineStore
from ingest.events import CONSENT_HEAD, PERSONALIZATION, Consent, consent_key, subject
from workshop.invented import generate

pytestmark = [pytest.mark.e2e]

ROOT = Path(__file__).parents[2]
SECRET = "a secret of the tests"
USERS, ITEMS, ACTS = 500, 400, 30_000


@pytest.fixture
def lake(tmp_path: Path, store: OnlineStore) -> str:
    """Invented viewers, all of whom allow it, landed in three appends."""
    acts = generate(USERS, ITEMS, ACTS, seed=7).acts
    rows = acts.with_row_index("offset").with_columns(
        pl.format("e{}", "offset").alias("event_id"),
        pl.col("occurred_at").alias("accepted_at"),
        pl.lit(date(2024, 1, 1)).alias("day"),
        recommendation_id=None,
        receipt=1,
        partition=0,
    )
    rows = rows.select(pl.col(name).cast(kind) for name, kind in TABLES[EVENTS].items())
    for start in range(0, ACTS, 10_000):
        Lake(str(tmp_path / "lake")).append(EVENTS, rows[start : start + 10_000], {0: Span(start, start + 10_000)})
    store.set(CONSENT_HEAD, 1)
    for user in rows["user_id"].unique():
        store.set(consent_key(subject(user, SECRET)), Consent(1, 0, frozenset({PERSONALIZATION})).encode())
    return str(tmp_path / "lake")


def test_two_platforms_on_one_lake_train_the_same_model_whatever_the_number_of_threads(
    lake: str, tmp_path: Path, redis_url: str
) -> None:
    """Every figure of the search is the same too: else another recipe might be chosen some day."""
    one, two = (trained(tmp_path / threads, lake, redis_url, threads) for threads in ("1", "2"))
    assert one == two


def test_every_algorithm_learns_the_same_whatever_the_number_of_threads(lake: str, redis_url: str) -> None:
    code = (
        "import hashlib\n"
        "from pathlib import Path\n"
        "from infra.lake import Lake\n"
        "from infra.online_store import connect\n"
        "from ingest.events import ConsentProjection, read_domain\n"
        "from training.evaluation import fit\n"
        "from training.search_space import default_recipes, shape_of\n"
        "from training.snapshot import read_lake\n"
        f"consents = ConsentProjection(connect({redis_url!r}), {SECRET!r})\n"
        f"interactions = read_lake(Lake({lake!r}), consents, read_domain(Path('domain.toml'))).histories()\n"
        "for recipe in default_recipes(shape_of(interactions.positives)):\n"
        "    arrays = fit(recipe, interactions).arrays()\n"
        "    learnt = b''.join(arrays[name].tobytes() for name in sorted(arrays))\n"
        "    print(recipe.algorithm, hashlib.sha256(learnt).hexdigest())\n"
    )
    one, two = (run([sys.executable, "-c", code], threads) for threads in ("1", "2"))
    assert len(one.splitlines()) >= 6
    assert one == two


def trained(data: Path, lake: str, redis_url: str, threads: str) -> tuple[list[str], set[tuple[str, float]]]:
    """What a version that was trained by a process of its own is, and the trials that led to it."""
    own = {"MARQUEE_DATA": str(data), "MARQUEE_LAKE": lake, "MARQUEE_REDIS": redis_url, "MARQUEE_SECRET": SECRET}
    data.mkdir()
    run([sys.executable, "-m", "marquee", "train"], threads, own | {"MARQUEE_TUNE_SECONDS": "0"})
    registry = ModelRegistry(f"sqlite:///{data / 'registry.db'}", data / "artifacts", "films")
    version = registry.version(1)
    trials = {(trial.tags["recipe"], trial.metrics["ndcg_at_10"]) for trial in registry.runs.below(version.run_id)}
    return [version.tags[name] for name in ("digest", "snapshot_digest", "recipe")], trials


def run(command: list[str], threads: str, settings: Mapping[str, str] | None = None) -> str:
    """What a process with so many threads prints."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MARQUEE_")}
    numbers = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), threads)
    environment = {**clean, **numbers, **(settings or {})}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout
