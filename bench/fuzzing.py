"""An HTTP API against its own OpenAPI document: schemathesis with examples, bounds, random values, sequences of calls.

It goes over each API twice. In ASCII every check holds. In any Unicode the API may refuse what the document allows:
JSON Schema has no words for "at most 128 bytes" and "printable". All other checks hold there too.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

CONFIG = Path(__file__).with_name("schemathesis.toml")
LONGEST_SECONDS = 3600
ASCII = ("--generation-codec", "ascii")
ANY_TEXT = ("--exclude-checks", "positive_data_acceptance", "--phases", "fuzzing,stateful")
PASSES = (ASCII, ANY_TEXT)


class Fuzzed(NamedTuple):
    """What came of it.

    Attributes:
        operations: how many the document names.
        cases: requests that were made.
        failures: each kind of failure, with the operations that showed it; none: all is well.
        said: what schemathesis printed.
    """

    operations: int
    cases: int
    failures: list[str]
    said: str

    @property
    def figures(self) -> dict[str, Any]:
        """For a result file."""
        return {"operations": self.operations, "cases": self.cases, "failures": self.failures}


def fuzz(url: str, key: str, examples: int, passes: Sequence[Sequence[str]] = PASSES) -> Fuzzed:
    """Drive an API that runs on loopback.

    Args:
        url: where it is.
        key: of the platform; it stands in no command line.
        examples: random requests an operation, in each pass. The same for the same number.
        passes: words of schemathesis for each time that it goes over the API.
    """
    runs = [_run(url, key, examples, *words) for words in passes]
    return Fuzzed(
        runs[0].operations,
        sum(run.cases for run in runs),
        [failure for run in runs for failure in run.failures],
        "\n".join(run.said for run in runs),
    )


def _run(url: str, key: str, examples: int, *words: str) -> Fuzzed:
    with tempfile.TemporaryDirectory(prefix="mq-fuzz-") as folder:
        report = Path(folder) / "report.json"
        command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(CONFIG)]
        command += ["run", f"{url}/openapi.json", "--checks", "all", "--max-examples", str(examples), *words]
        command += ["--generation-deterministic", "--continue-on-failure", "--no-color", "--report", "json"]
        done = subprocess.run(
            [*command, "--report-json-path", str(report)],
            cwd=folder,
            env={**os.environ, "MARQUEE_API_KEY": key},
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST_SECONDS,
        )
        said = done.stdout + done.stderr
        read = json.loads(report.read_text()) if report.exists() else {}
        return _read(read, done.returncode, said) if read.get("operations") else Fuzzed(0, 0, ["it did not run"], said)


def _read(report: dict[str, Any], code: int, said: str) -> Fuzzed:
    failures = [f"{each['title']}: {', '.join(each['operations'])}" for each in report["failures"]]
    failures += [f"error: {each}" for each in report["errors"]]
    if code and not failures:
        failures.append(f"schemathesis ended with {code}")
    if report["operations"]["tested"] != report["operations"]["total"]:
        failures.append("some operations were not tested")
    return Fuzzed(report["operations"]["total"], report["test_cases"]["generated"], failures, said)
