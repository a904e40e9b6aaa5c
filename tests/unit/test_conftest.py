"""What a run of the tests says of itself."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_last_lines_name_the_services_that_another_process_met() -> None:
    """`make test` asks for processes; what they met is told by the one that prints."""
    command = [sys.executable, "-m", "pytest", "-n", "1", "tests/unit/infra/test_online_store.py"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ran = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "services" in ran.stdout
    assert "Redis: a real server" in ran.stdout.splitlines()
