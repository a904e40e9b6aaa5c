"""The documents as a site: built strictly, every link leads somewhere, and no page asks another host for anything."""

import json
import os
import re
import runpy
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import uvicorn
from starlette.staticfiles import StaticFiles

from tests.browser.conftest import Browsing, keep
from workshop.fresh_platform import free_ports

ROOT = Path(__file__).parents[2]
HOOKS = runpy.run_path(str(ROOT / "docs/site/hooks.py"))
LOADS = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("form", "action")}
NAMED_ONLY = {"canonical", "prev", "next"}
"""`rel` of links that are followed by people and never by themselves."""


class Found(HTMLParser):
    """What a page loads, where its links lead, and what in it can be linked to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """One element."""
        named = {name: value or "" for name, value in attrs}
        self.anchors |= {named[name] for name in ("id", "name") if name in named}
        if tag == "a" and "href" in named:
            self.links.append(named["href"])
        elif named.get("rel") not in NAMED_ONLY:
            self.loaded += [value for name, value in named.items() if (tag, name) in LOADS]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. A warning would have failed the build."""
    folder = tmp_path_factory.mktemp("site")
    build(folder, ROOT / "mkdocs.yml")
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Found]:
    """File → what is in it."""
    return {path: Found(path.read_text()) for path in site.rglob("*.html")}


def build(folder: Path, config: Path) -> None:
    """As `make docs` does. With --quiet nothing would be strict: no warning is counted."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(config)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [*command, "--site-dir", str(folder)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_page_loads_anything_from_another_host(site: Path, pages: dict[Path, Found]) -> None:
    foreign = {(path.name, address) for path, found in pages.items() for address in found.loaded if is_foreign(address)}
    assert foreign == set()
    for style in site.rglob("*.css"):
        assert [
            each
            for each in re.findall(r"url\(['\"]?([^)'\"]+)|@import ['\"]([^'\"]+)", style.read_text())
            if is_foreign("".join(each))
        ] == [], style


def test_every_link_leads_to_a_page_and_a_place_in_it(pages: dict[Path, Found]) -> None:
    """mkdocs has looked at the Markdown; this looks at what came of it."""
    assert list(broken(pages)) == []
    assert sum(len(found.links) for found in pages.values()) > 1000


def broken(pages: dict[Path, Found]) -> Iterator[str]:
    for path, found in pages.items():
        for address in [*found.links, *found.loaded]:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                yield f"{path.name}: {address}"
            elif parts.fragment and target in pages and parts.fragment not in pages[target].anchors:
                yield f"{path.name}: {address} has no such place"


def test_what_is_looked_for_is_found() -> None:
    html = '<link rel="stylesheet" href="//fonts.example.org/a.css"><a href="gone.html">x</a><a href="#nowhere">y</a>'
    page = Path(__file__).with_suffix(".html")
    found = Found(html)
    assert [is_foreign(address) for address in found.loaded] == [True]
    assert len(list(broken({page: found}))) == 2


def test_each_api_is_described_by_itself(site: Path) -> None:
    """Made from the apps as they are, with every route."""
    described = {path.stem: json.loads(path.read_text())["paths"] for path in (site / "api").glob("*.json")}
    assert "/v1/events" in described["ingest"]
    assert "/v1/users/{user_id}/recommendations" in described["serving"]
    assert "/v1/models" in described["operator"]
    for name in described:
        assert f"{name}.json" in "".join(page.read_text() for page in (site / "api").glob("swagger-*.html"))


def test_the_readme_is_the_first_page_and_its_links_lead_into_the_site(site: Path) -> None:
    first = Found((site / "index.html").read_text())
    assert {"architecture.html", "glossary.html"} <= set(first.links)
    assert not [address for address in first.links if "docs/" in address]


def test_a_reader_s_browser_asks_no_other_host(site: Path, browsing: Browsing) -> None:
    """Pages, search and the APIs, in dark and light."""
    with listening(StaticFiles(directory=site)) as url:
        page = browsing.open(f"{url}/index.html", colours="light")
        keep(page, "docs-start")
        search = page.get_by_placeholder("Search", exact=True)  # "Initializing search" before it is ready
        search.click()
        search.press_sequentially("erasure")
        page.locator(".md-search-result__link").first.wait_for(timeout=120_000)
        page = browsing.open(f"{url}/api/serving.html")
        page.frame_locator("iframe").locator(".opblock").first.wait_for()
        keep(page, "docs-api")


@pytest.mark.parametrize("name", HOOKS["apps"]())
def test_the_page_of_an_api_loads_all_it_needs_from_the_api_itself(name: str, browsing: Browsing) -> None:
    """Under a policy that leaves it nothing else, and with every operation of the document."""
    app = HOOKS["apps"]()[name]
    routes = sum(len(methods) for methods in app.openapi()["paths"].values())
    with listening(app) as url:
        page = browsing.open(f"{url}/docs")
        page.locator(".opblock").nth(routes - 1).wait_for()
        assert page.locator(".opblock").count() == routes
        keep(page, f"docs-of-{name}")


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """An ASGI app on a free port, without its lifespan."""
    [port] = free_ports(1)
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    """And so does a place that is not there."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# One\n\n[gone](gone.md) [nowhere](#nowhere)\n")
    settings = re.search(r"^validation:\n(?:  .*\n)+", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert settings
    (tmp_path / "mkdocs.yml").write_text(f"site_name: broken\n{settings[0]}")
    with pytest.raises(AssertionError, match=r"gone\.md(?s:.*)nowhere"):
        build(tmp_path / "site", tmp_path / "mkdocs.yml")


def is_foreign(address: str) -> bool:
    return bool(urlsplit(address).netloc) or address.startswith("http")
