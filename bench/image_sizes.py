"""How large the images are, as far as a machine without an engine for containers can tell: what each target installs.

    .venv/bin/python -m bench.image_sizes

Makes the virtual environment of each target of infra/deploy/Dockerfile with the Dockerfile's own line, in a temporary
folder, weighs it, and sees that each of the target's commands starts in it. The image is that and its base (the slim
Python, about 125 MB). Writes bench/results/image_sizes.json.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.own_platform import ROOT

DOCKERFILE = ROOT / "infra/deploy/Dockerfile"
RESULT = ROOT / "bench/results/image_sizes.json"
MODULES = {"ingest": "ingest.main", "training": "training.main", "serving": "serving.main", "nearline": "serving.main"}
LARGEST = 5


def main() -> None:
    """Measure and write."""
    found = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "command": "python -m bench.image_sizes"}
    targets = dict(re.findall(r"^FROM builder AS build-(\w+)\n(.+)$", DOCKERFILE.read_text(), re.M))
    whole = {
        **found,
        "python": sys.version.split()[0],
        "targets": {name: weigh(name, line) for name, line in targets.items()},
    }
    RESULT.write_text(json.dumps(whole, indent=2) + "\n")
    Console().print_json(data=whole)


def weigh(name: str, line: str) -> dict[str, Any]:
    """Megabytes that a target installs, and the largest packages."""
    with tempfile.TemporaryDirectory(prefix="mq-image-") as folder:
        venv = Path(folder) / "venv"
        command = line.removeprefix("RUN ").replace("/venv", str(venv)).replace("uv ", f"{sys.prefix}/bin/uv ")
        environment = {**os.environ, "UV_COMPILE_BYTECODE": "1", "UV_LINK_MODE": "copy", "VIRTUAL_ENV": ""}
        subprocess.run(command, shell=True, check=True, cwd=ROOT, env=environment, capture_output=True)  # noqa: S602  # nosec B602 - the Dockerfile's own line
        subprocess.run([venv / "bin/python", "-c", f"import {MODULES[name]}"], check=True, cwd=folder)
        [packages] = venv.glob("lib/python*/site-packages")
        sizes = {path.name: _size(path) for path in packages.iterdir()}
        largest = sorted(sizes, key=lambda each: -sizes[each])[:LARGEST]
        return {"installed_mb": round(_size(venv) / 2**20), "largest_mb": {n: round(sizes[n] / 2**20) for n in largest}}


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(each.lstat().st_size for each in files if each.is_file())


if __name__ == "__main__":
    main()
