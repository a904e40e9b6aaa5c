"""`make security`: the APIs against their documents, the source against bandit, the lock against what is known of it.

    .venv/bin/python -m bench.security [--examples N]

Writes bench/results/security.json and the bill of materials, var/sbom.json. Exits with 1 on any failure; what could not
be done is SKIPPED, with the reason, and not passed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import sbom
from bench.editions import edition, put
from bench.fuzzing import PASSES, Fuzzed, fuzz
from bench.own_platform import OwnPlatform
from infra.key_file import KeyFile, KeyScope
from infra.model_registry import ModelRegistry
from training.bundle import SCHEDULE
from training.run_record import PASSED, TRAINING

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench/results/security.json"
BILL = ROOT / "var/sbom.json"
LOCK = ROOT / "requirements.lock"
SOURCE = ("ingest", "training", "serving", "infra", "workshop", "marquee.py")
EXAMPLES = 1000
AUDIT_SECONDS = 600
SCOPES = {
    "ingest": (KeyScope.EVENTS, KeyScope.ITEMS, KeyScope.PEOPLE, KeyScope.OPERATE),
    "serve": (KeyScope.RECOMMENDATIONS, KeyScope.OPERATE),
    "operate": (KeyScope.OPERATE,),
}


def fuzz_platform(examples: int, passes: Sequence[Sequence[str]] = PASSES) -> dict[str, Fuzzed]:
    """The APIs of a platform of its own, each with a key of the scopes it needs, a served version and a viewer."""
    with OwnPlatform(("ingest", "land", "nearline", "serve", "operate"), proxied=False) as platform:
        put(platform.store, 1, ["u-42"])
        _register(platform.folder, 2)
        platform.store.set(SCHEDULE, 1)  # None is there; what is asked of it is to be answered as if one were.
        keys = KeyFile(platform.folder / "keys.json")
        made = {stage: keys.create(f"fuzz {stage}", scopes) for stage, scopes in SCOPES.items()}
        platform.call("ingest", "PUT", "/v1/users/u-42/consent", {"purposes": ["personalization"]})
        return {stage: fuzz(platform.url(stage), key, examples, passes) for stage, key in made.items()}


def _register(folder: Path, versions: int) -> None:
    """Make a registry that holds so many versions, all of which passed."""
    registry = ModelRegistry(f"sqlite:///{folder / 'registry.db'}", folder / "artifacts", "films")
    for version in range(1, versions + 1):
        with registry.runs.run(TRAINING) as run_id:
            registry.register(run_id, edition(version).dump(), {"verdict": PASSED})


def bandit(*paths: str) -> dict[str, Any]:
    """What bandit finds, by severity; findings of low severity are counted and do not fail."""
    command = [sys.executable, "-m", "bandit", "-q", "-r", *paths, "-f", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    found = Counter(each["issue_severity"].lower() for each in report["results"])
    serious = [each for each in report["results"] if each["issue_severity"] != "LOW"]
    failures = [f"{each['filename']}:{each['line_number']} {each['test_id']}: {each['issue_text']}" for each in serious]
    failures += [f"not read: {each['filename']}" for each in report["errors"]]
    return {**{severity: found[severity] for severity in ("high", "medium", "low")}, "failures": failures}


def audit(lock: Path) -> dict[str, Any]:
    """What is known of the locked packages. One is asked about first: where nothing is known of that, no other is."""
    first, _, _ = lock.read_text().partition(" ")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as one:
        one.write(first)
        one.flush()
        packages = _audited("--no-deps", "-r", one.name)
    if packages and not _unknown(packages):
        packages = _audited("--require-hashes", "-r", str(lock))
    if not packages:
        return {"verdict": "SKIPPED", "reason": "no index answers", "failures": []}
    if unknown := _unknown(packages):
        return {"verdict": "SKIPPED", "reason": f"the index tells nothing of {', '.join(unknown)}", "failures": []}
    failures = [f"{each['name']}: {one['id']}" for each in packages for one in each.get("vulns", [])]
    return {"verdict": "vulnerable" if failures else "clean", "packages": len(packages), "failures": failures}


def _unknown(packages: Sequence[Mapping[str, Any]]) -> list[str]:
    return [each["name"] for each in packages if "skip_reason" in each]


def _audited(*words: str) -> list[dict[str, Any]]:
    """pip-audit's own report, a member a package; empty where it got no answer."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(
            [*command, "--timeout", "10", *words], capture_output=True, text=True, check=False, timeout=AUDIT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return []
    return list(json.loads(done.stdout)["dependencies"]) if done.stdout else []


def main() -> None:
    """Do all of it, print what came of it, write the result."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--examples", type=int, default=EXAMPLES, help="random requests an operation and pass")
    examples = arguments.parse_args().examples
    console = Console(highlight=False, soft_wrap=True)
    fuzzed = fuzz_platform(examples)
    parts: dict[str, dict[str, Any]] = {stage: run.figures for stage, run in fuzzed.items()}
    parts |= {"bandit": bandit(*SOURCE), "audit": audit(LOCK)}
    parts["sbom"] = {"packages": sbom.write(LOCK, BILL), "file": str(BILL.relative_to(ROOT)), "failures": []}
    for name, part in parts.items():
        verdict = "[red]FAILED[/red]" if part["failures"] else part.get("verdict", "passed")
        console.print(f"{name}: {verdict} {json.dumps({k: v for k, v in part.items() if k != 'failures'})}")
        for failure in part["failures"]:
            console.print(f"  {failure}", markup=False)
    for run in (run for run in fuzzed.values() if run.failures):
        console.print(run.said, markup=False)
    command = f"make security EXAMPLES={examples}"
    result = {"command": command, "at": datetime.now(UTC).isoformat(), "cores": os.cpu_count(), **parts}
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(any(part["failures"] for part in parts.values()))


if __name__ == "__main__":
    main()
