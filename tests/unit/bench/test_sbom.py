"""The bill of materials names what the lock pins, by the same hashes."""

import json
import re
from pathlib import Path

from bench import sbom

LOCK = Path(__file__).parents[3] / "requirements.lock"


def test_every_locked_package_is_in_the_bill(tmp_path: Path) -> None:
    count = sbom.write(LOCK, tmp_path / "sbom.json")
    bill = json.loads((tmp_path / "sbom.json").read_text())
    locked = set(re.findall(r"^([a-z0-9-]+)==([^ \n]+)", LOCK.read_text(), re.M))
    assert bill["bomFormat"] == "CycloneDX"
    assert {(each["name"], each["version"]) for each in bill["components"]} == locked
    assert count == len(locked)
    hashes = {one["content"] for each in bill["components"] for one in each["hashes"]}
    assert hashes == set(re.findall(r"sha256:([0-9a-f]{64})", LOCK.read_text()))
