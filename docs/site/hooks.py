"""What the site has besides the files of docs/: the README as its first page, the lessons, the APIs' documents.

The Markdown is written to read well on a code host. There a link leads to any file of the repository; on the site, a
link that leads out of it becomes plain text.
"""

import json
import os
import posixpath
import re
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

from fastapi import FastAPI
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import ingest.api
import serving.api
import training.api
from infra.access import Access
from ingest.events import read_domain

ROOT = Path(__file__).parents[2]
MOVED = {"README.md": "index.md", "workshop/lessons/README.md": "lessons.md"}
"""Path in the repository → where it is on the site."""

FILES = ("bench/results/*.png", "bench/results/*.svg", "workshop/lessons/*.py")
"""What pages show or offer as it is."""

LINK = re.compile(r"(?P<picture>!?)\[(?P<words>[^\]\[]*)\]\((?P<target>[^)\s#]*)(?P<anchor>#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put every decision into the navigation."""
    decisions = sorted(path.name for path in (ROOT / "docs/decisions").glob("*.md"))
    assert config.nav is not None
    config.nav[-1]["Why"] += [f"decisions/{name}" for name in decisions]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is not in docs/."""
    others = [path.relative_to(ROOT).as_posix() for pattern in FILES for path in ROOT.glob(pattern)]
    for source, place in {**MOVED, **dict(zip(others, others, strict=True))}.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    for name, document in documents().items():
        files.append(File.generated(config, f"api/{name}.json", content=json.dumps(document)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to where things are on the site, and take those away that lead out of it."""
    place = page.file.src_uri
    written = {there: here for here, there in MOVED.items()}.get(place, f"docs/{place}")

    def follow(link: re.Match[str]) -> str:
        target, anchor = link["target"], link["anchor"] or ""
        if not target or "://" in target or target.startswith("mailto:"):
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(written), target))
        path = MOVED.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(path) is None and (ROOT / path).exists():
            return link["words"]
        return f"{link['picture']}[{link['words']}]({os.path.relpath(path, posixpath.dirname(place) or '.')}{anchor})"

    return LINK.sub(follow, markdown)


def documents() -> dict[str, Any]:
    """API → its OpenAPI document."""
    return {name: app.openapi() for name, app in apps().items()}


def apps() -> dict[str, FastAPI]:
    """API → its app, without adapters: it can only tell what it is."""
    nothing, access = MagicMock(), Access(MagicMock())
    services = MagicMock(domain=read_domain(ROOT / "domain.toml"))
    return {
        "ingest": ingest.api.create_app(nothing, nothing, nothing, nothing, nothing, ready=bool, access=access),
        "serving": serving.api.create_app(services, nothing, access),
        "operator": training.api.create_app(nothing, access),
    }
