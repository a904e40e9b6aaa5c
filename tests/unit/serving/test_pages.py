"""The pages are files: who gets what, and with which headers."""

import re
from pathlib import Path

import pytest

from serving.pages import PAGES, WEB, Edges, install_pages
from tests.unit.serving.conftest import Serving

EDGES = Edges("127.0.0.1", 8001, 8002)


@pytest.fixture
def pages(serving: Serving) -> Serving:
    install_pages(serving.app, EDGES)
    return serving


@pytest.mark.parametrize(
    "path", [*PAGES, "/web/style.css", "/web/api.js", "/web/platform.js", "/web/charts/Chart.bundle.js"]
)
def test_a_page_needs_no_key_and_is_asked_for_again(pages: Serving, path: str) -> None:
    """Its ETag makes that cheap."""
    answer = pages.get(path, headers={})
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")
    assert answer.headers["x-content-type-options"] == "nosniff"
    if "etag" in answer.headers:
        again = pages.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", PAGES)
def test_a_page_may_run_its_own_scripts_and_ask_this_platform_only(pages: Serving, path: str) -> None:
    policy = dict(part.split(" ", 1) for part in pages.get(path).headers["content-security-policy"].split("; "))
    asked = "'self' http://127.0.0.1:8001 http://127.0.0.1:8002 http://localhost:8001 http://localhost:8002"
    assert policy["connect-src"] == asked
    assert policy["default-src"] == "'self'"
    assert not {"script-src", "style-src", "img-src"} & policy.keys()
    assert policy["require-trusted-types-for"] == "'script'"


def test_pages_of_another_host_find_the_edges_there() -> None:
    assert Edges("192.0.2.1", 1, 2).origins == ["http://192.0.2.1:1", "http://192.0.2.1:2"]
    assert Edges("0.0.0.0", 1, 2).origins == Edges("localhost", 1, 2).origins


def test_nothing_beside_the_folder_is_given(pages: Serving) -> None:
    for path in ("/web/../api.py", "/web/%2e%2e/api.py", "/web/", "/web/nothing.js"):
        assert pages.get(path).status_code == 404


def test_a_page_does_not_hide_what_was_there(pages: Serving) -> None:
    assert pages.get("/healthz").json() == {"status": "ok"}
    assert pages.get("/v1/users/u/recommendations").status_code == 200


@pytest.mark.parametrize("file", sorted(WEB.rglob("*.*")), ids=lambda file: Path(file).name)
def test_no_file_names_another_host_or_makes_markup_of_text(file: Path) -> None:
    """The browser would refuse both; here it is found without one."""
    text = file.read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
    assert not re.search(r"<script>|\son\w+=\"|\sstyle=\"", text)
