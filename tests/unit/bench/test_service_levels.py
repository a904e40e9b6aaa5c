"""The levels judge as they say, and the document says what they are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.drill import DRILLS
from bench.injections import FAULTS
from bench.service_levels import BENCH_SERVING, GROUPS, LOADTEST, Level, broken

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs/service-levels.md").read_text()


def test_a_figure_holds_up_to_its_bound_and_is_broken_beyond_it() -> None:
    at_most, at_least = Level("a", "", 100), Level("b", "", 0.5, at_least=True)
    assert broken([at_most, at_least], {"a": 100, "b": 0.5}) == []
    assert broken([at_most, at_least], {"a": 100.1, "b": 0.49}) == ["a", "b"]


def test_what_was_not_measured_is_broken() -> None:
    assert broken(LOADTEST, {}) == [level.key for level in LOADTEST]


@pytest.mark.parametrize("group", GROUPS)
def test_the_document_has_every_level_as_it_is(group: str) -> None:
    for level in GROUPS[group]:
        assert f"| `{level.key}` | {level.text} | {level.promise} |" in DOCUMENT


def test_the_document_has_no_level_that_nobody_checks() -> None:
    levels = {f"| `{level.key}` | {level.text} |" for levels in GROUPS.values() for level in levels}
    rows = [line for line in DOCUMENT.splitlines() if line.startswith("| `") and line.count("|") == 4]
    assert [row for row in rows if not any(row.startswith(level) for level in levels)] == []


def test_the_document_has_every_drill_and_what_it_injects() -> None:
    for name, fault in FAULTS.items():
        assert f"| `{name}` | {fault.injected} |" in DOCUMENT
    assert all(f"| `{name}` |" in DOCUMENT for name in DRILLS)


@pytest.mark.parametrize(("bytes_per_user", "code"), [(620, 0), (621, 1)])
def test_the_verdict_over_a_result_file_is_the_exit_code(tmp_path: Path, bytes_per_user: int, code: int) -> None:
    figures = {level.key: level.bound for level in BENCH_SERVING} | {"bytes_per_user": bytes_per_user}
    (tmp_path / "serving.json").write_text(json.dumps(figures))
    command = [sys.executable, "-m", "bench.service_levels", str(tmp_path / "serving.json")]
    judged = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert judged.returncode == code
    assert ("broken" in judged.stdout) == bool(code)
