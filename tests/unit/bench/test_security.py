"""What `make security` finds in the source and in the lock, and that it does not pass what it could not do."""

import re
from pathlib import Path
from typing import Any

import pytest

from bench import security
from bench.security import LOCK, ROOT, SOURCE, audit, bandit


def test_bandit_finds_nothing_serious() -> None:
    assert bandit(*SOURCE)["failures"] == []


def test_bandit_would_find_a_pickle(tmp_path: Path) -> None:
    (tmp_path / "mutant.py").write_text("import pickle\n\n\ndef load(value):\n    return pickle.loads(value)\n")
    (failure,) = bandit(str(tmp_path))["failures"]
    assert "B301" in failure


def test_whoever_passes_bandit_over_says_what_and_why() -> None:
    marked = [line for path in _modules() for line in path.read_text().splitlines() if re.search(r"#.*\bnosec\b", line)]
    assert marked
    assert all(re.search(r"# nosec B\d{3} - \w", line) for line in marked)


def test_an_audit_that_no_index_answers_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "_audited", lambda *_: [])
    assert audit(LOCK)["verdict"] == "SKIPPED"


def test_an_audit_of_which_some_is_not_known_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    some = [{"name": "one", "vulns": []}, {"name": "other", "skip_reason": "not there"}]
    monkeypatch.setattr(security, "_audited", lambda *words: some if "--require-hashes" in words else some[:1])
    assert audit(LOCK) == {"verdict": "SKIPPED", "reason": "the index tells nothing of other", "failures": []}


def test_a_package_with_a_known_hole_fails_the_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    packages: list[dict[str, Any]] = [{"name": "one", "vulns": [{"id": "CVE-1"}]}, {"name": "other", "vulns": []}]
    monkeypatch.setattr(security, "_audited", lambda *_: packages)
    assert audit(LOCK)["failures"] == ["one: CVE-1"]
    assert audit(LOCK)["verdict"] == "vulnerable"


def _modules() -> list[Path]:
    return [
        path for part in SOURCE for path in ((ROOT / part).rglob("*.py") if (ROOT / part).is_dir() else [ROOT / part])
    ]
