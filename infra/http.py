"""What the HTTP edges share: problem documents (RFC 9457), what an outage is answered with, and ids in paths."""

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

PROBLEM_JSON = "application/problem+json"

STAND_IN = "\x1f"
"""What stands for a slash within an id while a path is taken apart. No id may contain it; who sends it gets a NUL."""

_SWAPS = {"%2F": "%1F", "%1F": "%00"}
_SWAPPED = re.compile("%2F|%1F", re.IGNORECASE)

_FRAMEWORK_CODES = {
    HTTPStatus.BAD_REQUEST: "malformed_request",
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
    HTTPStatus.UNPROCESSABLE_ENTITY: "invalid_request",
}


class Problem(Exception):
    """An answer that is an error.

    Args:
        status: HTTP status.
        code: stable name of the error, for programs.
        detail: what went wrong and what to do, for people. Never the caller's data.
        headers: further headers of the answer.
        extra: further members of the document.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})

    def body(self) -> bytes:
        """The problem document."""
        title = HTTPStatus(self.status).phrase
        document = {"type": "about:blank", "title": title, "status": self.status}
        return orjson.dumps({**document, "code": self.code, "detail": self.detail, **self.extra})

    def response(self) -> Response:
        """The answer that carries the document."""
        return Response(self.body(), self.status, self.headers, PROBLEM_JSON)


class ProblemDocument(BaseModel):
    """An error (RFC 9457). Programs look at `code`; people read `detail`."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str = Field(examples=["Service Unavailable"])
    status: int = Field(examples=[503])
    code: str = Field(examples=["log_unavailable"])
    detail: str = Field(examples=["The event log does not answer. Send the batch again."])


def documented(problems: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """A route's `responses`: status → when it is answered, all of them problem documents."""
    schema = {"$ref": "#/components/schemas/ProblemDocument"}
    content = {PROBLEM_JSON: {"schema": schema}}
    return {status: {"description": text, "content": content} for status, text in problems.items()}


def install_problem_handlers(app: FastAPI) -> None:
    """Make every error of `app` a problem document, the framework's own and the unforeseen included."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(Exception, _on_unforeseen)
    add_schemas(app, ProblemDocument)


def install_outages(
    app: FastAPI, outages: Mapping[type[Exception], tuple[str, str]], headers: Mapping[str, str]
) -> None:
    """Have `app` answer 503 where something it needs is down, and log why.

    Args:
        outages: what is raised then → the problem's code, and what is down, in a sentence.
        headers: of the answer: when to come again.
    """
    for outage, (code, what) in outages.items():
        app.add_exception_handler(outage, _answer_with(Problem(503, code, f"{what} Try again.", headers)))


def _answer_with(problem: Problem) -> Callable[[Request, Exception], Response]:
    def answer(_: Request, error: Exception) -> Response:
        structlog.get_logger(__name__).warning("not answered", code=problem.code, reason=str(error))
        return problem.response()

    return answer


def add_schemas(app: FastAPI, *models: type[BaseModel]) -> None:
    """Put models that no route declares among the schemas of `app`'s OpenAPI, for `body_of` and `documented`."""
    build = app.openapi

    def openapi() -> dict[str, Any]:
        described = build()
        schemas = described.setdefault("components", {}).setdefault("schemas", {})
        for model in models:
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        return described

    app.openapi = openapi  # type: ignore[method-assign]


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """A route's `openapi_extra`: the body that it reads by itself. The model has to be among the schemas."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


class SlashesInIds:
    """ASGI middleware: a slash that was sent as %2F belongs to an id and does not part the path. See `path_id`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route the request by its path as it was sent."""
        sent = (scope.get("raw_path") or b"").decode("ascii", "replace")
        if _SWAPPED.search(sent):
            scope = {**scope, "path": unquote(_SWAPPED.sub(lambda found: _SWAPS[found[0].upper()], sent))}
        await self._app(scope, receive, send)


def path_id(value: str) -> str:
    """The id that a path's segment names, once `SlashesInIds` has let it pass."""
    return value.replace(STAND_IN, "/")


def _on_problem(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return problem.response()


def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _FRAMEWORK_CODES.get(HTTPStatus(error.status_code), "request_failed")
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(_allowed(request)))
    return Problem(error.status_code, code, str(error.detail), headers).response()


def _allowed(request: Request) -> set[str]:
    """The methods of an address. The framework names those of the first route that has it."""
    here = (route for route in iter_route_contexts(request.app.routes) if route.path_regex.match(request.scope["path"]))
    return {method for route in here for method in route.methods or ()}


def _on_invalid_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = [{"at": ".".join(map(str, e["loc"])), "message": e["msg"]} for e in error.errors()]
    detail = "The request is not of the form that is documented; `errors` says where."
    return Problem(422, "invalid_request", detail, extra={"errors": wrong}).response()


def _on_unforeseen(_: Request, __: Exception) -> Response:
    detail = "Something went wrong that the platform did not foresee. Its log has more."
    return Problem(500, "internal_error", detail).response()
