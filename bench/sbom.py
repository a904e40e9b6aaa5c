"""What the platform is made of: a bill of materials (CycloneDX, JSON) of the packages that the lock names."""

import re
from collections.abc import Iterator
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

_PINNED = re.compile(r"^([a-z0-9-]+)==(\S+)[^\n]*\n((?:    --hash=[^\n]+\n?)+)", re.M)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def write(lock: Path, target: Path) -> int:
    """Write the bill; returns how many packages are in it.

    Args:
        lock: `requirements.lock`, that of development included.
        target: the file to write.
    """
    platform = Component(name="marquee", type=ComponentType.APPLICATION, bom_ref="marquee")
    bom = Bom(components=list(_components(lock.read_text())))
    bom.metadata.component = platform
    bom.register_dependency(platform, bom.components)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(JsonV1Dot6(bom).output_as_string(indent=2))
    return len(bom.components)


def _components(lock: str) -> Iterator[Component]:
    for name, version, files in _PINNED.findall(lock):
        url = PackageURL("pypi", name=name, version=version)
        hashes = [HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in _HASH.findall(files)]
        yield Component(name=name, version=version, purl=url, bom_ref=str(url), hashes=hashes)
