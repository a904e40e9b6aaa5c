"""Both edges answer errors in one form."""

import asyncio
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Path, Request
from pydantic import BaseModel

from infra.http import (
    PROBLEM_JSON,
    Problem,
    add_schemas,
    body_of,
    documented,
    install_problem_handlers,
)


class Sent(BaseModel):
    """What is sent."""

    n: int


def build() -> FastAPI:
    app = FastAPI()
    install_problem_handlers(app)
    add_schemas(app, Sent)

    @app.get("/busy", responses=documented({503: "Busy."}))
    def busy() -> None:
        raise Problem(503, "busy", "Try again.", {"Retry-After": "1"}, {"waiting": 7})

    @app.get("/number/{n}")
    def number(n: Annotated[int, Path(le=9)]) -> int:
        return n

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("canary")

    @app.get("/teapot")
    def teapot() -> None:
        raise HTTPException(418, "short and stout", {"X-Pot": "tea"})

    @app.post("/read", openapi_extra=body_of(Sent))
    async def read(request: Request) -> Any:
        return await request.json()

    return app


def call(method: str, path: str, **arguments: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(build(), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **arguments)

    return asyncio.run(ask())


def test_a_problem_is_answered_as_a_document() -> None:
    answer = call("GET", "/busy")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == PROBLEM_JSON
    assert answer.headers["retry-after"] == "1"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "code": "busy",
        "detail": "Try again.",
        "waiting": 7,
    }


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("PATCH", "/busy", 405, "method_not_allowed"),
        ("GET", "/number/ten", 422, "invalid_request"),
        ("GET", "/number/10", 422, "invalid_request"),
        ("GET", "/broken", 500, "internal_error"),
        ("GET", "/teapot", 418, "request_failed"),
    ],
)
def test_the_frameworks_own_errors_are_documents_too(method: str, path: str, status: int, code: str) -> None:
    answer = call(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM_JSON)
    assert (answer.json()["status"], answer.json()["code"]) == (status, code)


def test_headers_of_the_frameworks_errors_are_kept() -> None:
    assert call("PATCH", "/busy").headers["allow"] == "GET"
    assert call("GET", "/teapot").headers["x-pot"] == "tea"


def test_errors_do_not_repeat_what_was_sent() -> None:
    assert "canary" not in call("GET", "/number/canary").text
    assert "canary" not in call("GET", "/broken").text


def test_openapi_describes_problems_and_bodies() -> None:
    described = build().openapi()
    assert {"ProblemDocument", "Sent"} <= described["components"]["schemas"].keys()
    busy = described["paths"]["/busy"]["get"]["responses"]["503"]["content"]
    assert busy == {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    read = described["paths"]["/read"]["post"]["requestBody"]["content"]["application/json"]
    assert read == {"schema": {"$ref": "#/components/schemas/Sent"}}
