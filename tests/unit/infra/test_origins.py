"""Whose pages may call from a browser: exactly those that are named."""

import asyncio
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from infra.access import Access, Needs, install_access
from infra.http import Problem, install_problem_handlers
from infra.key_file import KeyScope
from infra.keys import Caller
from infra.origins import allow_origins, parse_origins

OURS = "http://localhost:8000"


class NobodysKeys:
    def find(self, sent: bytes) -> Caller | None:
        return None


def build() -> FastAPI:
    app = FastAPI()

    @app.put("/v1/items")
    def put_items(_: Annotated[Caller, Depends(Needs(KeyScope.ITEMS))]) -> None: ...

    @app.get("/moved")
    def moved() -> None:
        raise Problem(503, "busy", "Try again.", {"Retry-After": "1", "Location": "/elsewhere"})

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError

    install_access(app, Access(NobodysKeys()))  # type: ignore[arg-type]
    install_problem_handlers(app)
    return app


def call(method: str, path: str, origin: str, origins: list[str], **headers: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(allow_origins(build(), origins), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, headers={"Origin": origin, **headers})

    return asyncio.run(ask())


def preflight(origin: str, **headers: str) -> httpx.Response:
    asked = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization,content-type"}
    return call("OPTIONS", "/v1/items", origin, [OURS, "https://tv.example.org"], **{**asked, **headers})


def readable_for(answer: httpx.Response) -> str | None:
    """The origin whose pages may read an answer."""
    return answer.headers.get("access-control-allow-origin")


def test_a_page_that_is_named_may_send_a_key_and_a_body() -> None:
    answer = preflight(OURS)
    assert (answer.status_code, readable_for(answer)) == (200, OURS)
    assert "PUT" in answer.headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    ["http://localhost:8001", "https://localhost:8000", "http://localhost:80000", "http://localhost", "null",
     "http://localhost:8000.example.org", "http://LOCALHOST:8000", "https://sub.tv.example.org", "*"],
)  # fmt: skip
def test_no_other_page_may(origin: str) -> None:
    assert preflight(origin).status_code == 400
    assert readable_for(preflight(origin)) is None
    assert readable_for(call("GET", "/moved", origin, [OURS])) is None


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/moved", 503, "busy"),
        ("PUT", "/v1/items", 401, "unauthorized"),
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/broken", 500, "internal_error"),
    ],
)
def test_every_error_can_be_read_with_what_goes_with_it(method: str, path: str, status: int, code: str) -> None:
    answer = call(method, path, OURS, [OURS])
    assert (answer.status_code, answer.json()["code"], readable_for(answer)) == (status, code, OURS)
    assert answer.headers["access-control-expose-headers"] == "Location, Retry-After"
    assert answer.headers["vary"] == "Origin"


def test_where_nobody_is_named_no_answer_speaks_of_origins() -> None:
    answers: list[Any] = [call(method, "/moved", OURS, []) for method in ("GET", "OPTIONS")]
    assert [name for answer in answers for name in answer.headers if name.startswith("access-control")] == []


@pytest.mark.parametrize(
    "listed",
    ["*", "null", "localhost:8000", "http://localhost:8000/", "http://LOCALHOST", "http://*.example.org",
     "file://", "http://a b", "http://user@host", "http://localhost:8000,*"],
)  # fmt: skip
def test_what_is_no_origin_is_not_taken(listed: str) -> None:
    with pytest.raises(ValueError, match="write each origin as"):
        parse_origins(listed)


def test_addresses_of_every_kind_are_origins() -> None:
    listed = ["http://127.0.0.1:8000", "http://[::1]:8000", "https://tv.example.org"]
    assert parse_origins(",".join(listed)) == listed
    assert parse_origins("") == []
