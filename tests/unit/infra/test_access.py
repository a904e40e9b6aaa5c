"""A caller passes with the right scope, and no route opens by being forgotten."""

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from fastapi import APIRouter, Depends, FastAPI

from infra.access import Access, Needs, Reach, decisions, install_access, open_access
from infra.http import PROBLEM_JSON, Problem, install_problem_handlers
from infra.key_file import KeyFile, KeyScope, KeysError, Quota
from infra.keys import Keys
from infra.settings import Settings

OPERATOR = "an operator's key"


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    """A file of keys."""
    return KeyFile(tmp_path / "keys.json")


@pytest.fixture
def app(file: KeyFile) -> FastAPI:
    """One route that needs the scope `items`."""
    app = FastAPI()
    install_problem_handlers(app)

    @app.get("/v1/closed", dependencies=[Depends(Needs(KeyScope.ITEMS))])
    def closed() -> str:
        return "open"

    install_access(app, Access(Keys(file, OPERATOR)))
    return app


def call(app: FastAPI, path: str, headers: dict[str, str]) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": f"Bearer {OPERATOR}"}, {"authorization": f"bearer  {OPERATOR}"}, {"X-API-Key": OPERATOR}],
    ids=str,
)
def test_a_key_opens(app: FastAPI, headers: dict[str, str]) -> None:
    assert call(app, "/v1/closed", headers).json() == "open"


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": OPERATOR}, {"Authorization": f"Basic {OPERATOR}"}, {"Authorization": "Bearer"},
     {"X-API-Key": ""}, {"Authorization": "Bearer the keys"}, {"X-API-Key": "An operator's key"},
     {"Authorization": "Bearer wrong", "X-API-Key": OPERATOR}],
    ids=str,
)  # fmt: skip
def test_nothing_else_opens(app: FastAPI, headers: dict[str, str]) -> None:
    answer = call(app, "/v1/closed", headers)
    assert (answer.status_code, answer.headers["content-type"]) == (401, PROBLEM_JSON)
    assert answer.json()["code"] == "unauthorized"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_key_for_something_else_is_told_what_is_missing(app: FastAPI, file: KeyFile) -> None:
    keys = {scope: file.create(scope, [scope]) for scope in KeyScope}
    app.state.access = Access(Keys(file))
    for scope, key in keys.items():
        answer = call(app, "/v1/closed", {"X-API-Key": key})
        assert answer.status_code == (200 if scope == KeyScope.ITEMS else 403), scope
        if scope != KeyScope.ITEMS:
            assert (answer.json()["code"], answer.json()["scope"]) == ("scope_missing", "items")


def _routed(*paths: str, **options: Any) -> FastAPI:
    router = APIRouter(prefix="/v1")
    for path in paths:
        router.add_api_route(path, lambda: None, **options)
    app = FastAPI()
    app.include_router(router)
    return app


@pytest.mark.parametrize(
    ("path", "needs"),
    [
        ("/new", []),
        ("/new", [Needs(KeyScope.ITEMS), Needs(KeyScope.ITEMS)]),
        ("/users/{user_id}/new", [Needs(KeyScope.PEOPLE, Reach.SHARED)]),
        ("/new", [Needs(KeyScope.PEOPLE, Reach.OWN)]),
    ],
)
def test_a_route_that_does_not_say_who_may_call_it_never_starts(path: str, needs: list[Needs]) -> None:
    """Nor one that lets anybody ask about a person, or compares a person with nothing."""
    with pytest.raises(ValueError, match=path.replace("{", r"\{")):
        install_access(_routed(path, dependencies=[Depends(each) for each in needs]), None)  # type: ignore[arg-type]


def test_every_decision_is_listed() -> None:
    needs = Needs(KeyScope.PEOPLE, Reach.OWN)
    app = _routed("/a/{user_id}", "/b/{user_id}", dependencies=[Depends(needs)], methods=["GET", "PUT"])
    assert decisions(app) == {(m, f"/v1/{p}/{{user_id}}"): needs for m in ("GET", "PUT") for p in "ab"}


def test_access_is_what_the_settings_say(tmp_path: Path, file: KeyFile) -> None:
    """Keys of the file; tokens where there is a key to check them with, each with the quota that people have."""
    secret = "thirty-two bytes, and no fewer!!"
    (tmp_path / "login").write_text(secret)
    claims = {"sub": "ann", "aud": "films", "iss": "login", "exp": time.time() + 3600}
    token = [(b"authorization", b"Bearer " + jwt.encode(claims, secret, "HS256").encode())]
    key = [(b"x-api-key", file.create("web", [KeyScope.ITEMS]).encode())]
    plain = Settings(data=tmp_path)
    assert open_access(plain).caller(key).scopes == {KeyScope.ITEMS}
    with pytest.raises(Problem):
        open_access(plain).caller(token)
    asked = {"jwt_audience": "films", "jwt_issuer": "login", "jwt_events_per_second": 2}
    caller = open_access(Settings(data=tmp_path, jwt_key_file=str(tmp_path / "login"), **asked)).caller(token)
    assert (caller.user_id, caller.quota) == ("ann", Quota(rate=2, burst=20))
    for_others = open_access(Settings(data=tmp_path, jwt_key_file=str(tmp_path / "login")))
    with pytest.raises(Problem):
        for_others.caller(token)
    for wrong in ({"keys": str(tmp_path / "none")}, {"jwt_key_file": str(tmp_path / "none")}):
        with pytest.raises(KeysError):
            open_access(Settings(data=tmp_path, **wrong))
