"""Plans follow from the units and the load, and grow with both."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.conftest import ROOT
from workshop.capacity import RESULTS, Assumptions, Load, Plan, Units, UnitsMissing, plan, read_units
from workshop.capacity_report import in_words

UNITS = read_units()
LOADS = some.builds(
    Load,
    some.integers(1, 10**9),
    some.integers(1, 10**11),
    some.floats(0, 1e6),
    some.integers(1, 10**8),
)


def size_of(found: Plan) -> list[float]:
    """Everything that may only grow with a load."""
    parts = [(part.many, part.cores, part.memory_gb, part.disk_gb, part.used) for part in found.parts]
    return [found.machines, found.partitions, found.shards, found.training_hours, *(n for part in parts for n in part)]


@given(LOADS, some.integers(0, 3), some.floats(1, 100))
def test_a_larger_load_never_needs_less(load: Load, which: int, times: float) -> None:
    name = Load._fields[which]
    larger = load._replace(**{name: type(load[which])(load[which] * times)})
    assert all(a <= b for a, b in zip(size_of(plan(load, UNITS)), size_of(plan(larger, UNITS)), strict=True))


@given(LOADS)
def test_the_part_that_saturates_first_is_the_one_that_is_used_most(load: Load) -> None:
    found = plan(load, UNITS)
    used = {part.name: part.used for part in found.parts}
    assert used[found.first] == max(used.values())
    assert found.factor == pytest.approx(1 / used[found.first])
    assert f"{found.first}" in in_words(Assumptions(), found).lower()


def test_figures_are_those_of_the_result_files(tmp_path: Path) -> None:
    shutil.copytree(RESULTS, tmp_path / "results")
    serving = json.loads((RESULTS / "serving.json").read_text())
    serving["requests_per_second"]["ours"] /= 10
    (tmp_path / "results/serving.json").write_text(json.dumps(serving))
    load = Load(1000, 1000, 100_000, 1000)
    few, many = (plan(load, read_units(folder)).parts[-1].many for folder in (RESULTS, tmp_path / "results"))
    assert many in range(10 * (few - 1), 10 * few + 1)


def test_twice_the_headroom_is_half_the_processes() -> None:
    load = Load(1000, 10**11, 100_000, 1000)
    wide, narrow = (plan(load, UNITS, Assumptions(headroom=headroom)) for headroom in (0.8, 0.4))
    assert narrow.parts[0].used == pytest.approx(2 * wide.parts[0].used)


def test_units_that_are_missing_or_of_another_form_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnitsMissing, match=r"serving.json cannot be read .*make bench-serving"):
        read_units(tmp_path)
    shutil.copytree(RESULTS, tmp_path / "results")
    (tmp_path / "results/units.json").write_text("{}")
    with pytest.raises(UnitsMissing, match="another form"):
        read_units(tmp_path / "results")


@pytest.mark.parametrize("people", ["1M", "10M", "100M"])
def test_the_document_shows_what_the_command_prints(people: str) -> None:
    """docs/scaling.md quotes the sentence of each size."""
    document = (ROOT / "docs/scaling.md").read_text()
    times = {"1M": 1, "10M": 10, "100M": 100}[people]
    load = Load(1_000_000 * times, 10_000_000 * times, 500.0 * times, 50_000)
    assert in_words(Assumptions(), plan(load, UNITS)) in " ".join(document.split())


def test_units_are_all_above_zero() -> None:
    assert isinstance(UNITS, Units)
    assert all(unit > 0 for unit in UNITS)
