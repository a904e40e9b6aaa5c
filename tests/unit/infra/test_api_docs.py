"""Whoever reads an API's page calls no other host."""

import asyncio
import re

import httpx
import pytest
from fastapi import FastAPI

from infra.api_docs import install_docs
from infra.http import SlashesInIds, install_problem_handlers


def build() -> FastAPI:
    app = FastAPI(title="An edge", docs_url=None, redoc_url=None, redirect_slashes=False)
    install_docs(app)
    app.add_middleware(SlashesInIds)
    install_problem_handlers(app)
    return app


def get(path: str, app: FastAPI | None = None) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app or build(), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path)

    return asyncio.run(ask())


def test_the_page_loads_from_this_host_alone_and_all_of_it_is_there() -> None:
    page = get("/docs")
    assert page.status_code == 200
    assert "<title>An edge</title>" in page.text
    loaded = re.findall(r'(?:src|href)="(?!data:)(.*?)"', page.text)
    assert len(loaded) == 3
    for address in [*loaded, *re.findall(r'url: "(.*?)"', get("/docs/start.js").text)]:
        assert "//" not in address
        assert get(f"/{address}").status_code == 200, address


def test_the_browser_holds_the_page_to_that() -> None:
    policy = get("/docs").headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self'; ")
    assert "script-src" not in policy
    assert "//" not in policy
    assert "<script>" not in get("/docs").text


def test_nothing_of_the_framework_s_own_pages_is_left() -> None:
    """They load from a CDN: /redoc is not there, nor any name of another host in /docs."""
    assert get("/redoc").status_code == 404
    assert "//" in get("/docs", FastAPI()).text, "what is looked for can be found"
    assert "//" not in get("/docs").text


@pytest.mark.parametrize("path", ["/docs/", "/docs/none.js", "/docs/..%2f__init__.py", "/docs/../__init__.py"])
def test_what_is_not_there_is_a_problem_document(path: str) -> None:
    missing = get(path)
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
