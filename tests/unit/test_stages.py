"""Each process loads what its stage needs and no more: an image carries one stage."""

import subprocess
import sys

import pytest

LAKE = {"deltalake", "polars"}
LEDGER = {"sqlalchemy", "psycopg"}
MODEL = {"implicit", "scipy"}
REGISTRY = {"mlflow", "alembic"}


@pytest.mark.parametrize(
    ("stage", "never"),
    [("serving", LAKE | LEDGER | REGISTRY), ("ingest", MODEL | REGISTRY), ("training", LEDGER - {"sqlalchemy"})],
)
def test_a_stage_imports_no_library_of_another(stage: str, never: set[str]) -> None:
    code = f"import sys, {stage}.main; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert never & set(loaded) == set()
