"""Who may call which route: every route says which scope a key needs for it, and what a person's own token may reach.

401 for whom nobody knows; 403 `scope_missing` for a key that may do other things; 403 `not_yours` for a person who asks
about another one, whether or not there is one.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request, Security
from fastapi.routing import RouteContext, iter_route_contexts
from fastapi.security import APIKeyHeader, HTTPBearer

from infra.http import Problem, path_id
from infra.key_file import KeyFile, KeyScope, Quota
from infra.keys import Caller, Keys
from infra.settings import Settings
from infra.tokens import Tokens

UNAUTHORIZED = "Send a key of this platform as `Authorization: Bearer KEY` or as `X-API-Key: KEY`."
DENIED: Final[Mapping[int, str]] = {
    401: "`unauthorized`: there is no key, or nobody's, or one that has ended.",
    403: "`scope_missing`: the key is not for this. `not_yours`: a person's token, and somebody else.",
}
"""A route's `responses`, as far as `Needs` gives them."""

_WHO = "A key of this platform, `mq_…`, or a person's own token (JWT)."
_BEARER = Security(HTTPBearer(auto_error=False, description=_WHO))
_HEADER = Security(APIKeyHeader(name="X-API-Key", auto_error=False, description="The same key."))


class Reach(Enum):
    """What a person's own token may do with a route."""

    CLOSED = "nothing"
    OWN = "only where the path's user_id is that person"
    CHECKED = "what the route itself finds to be that person's"
    SHARED = "what anybody may: it is about nobody"


class Access:
    """Tells callers by what they send.

    Args:
        keys: those in force.
        tokens: of people who call for themselves; None: nobody does.
    """

    def __init__(self, keys: Keys, tokens: Tokens | None = None) -> None:
        self._keys = keys
        self._tokens = tokens

    def caller(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """Who sends raw ASGI headers (names in lower case), by `Authorization: Bearer …` or X-API-Key.

        Raises:
            Problem: 401.
        """
        for name, value in headers:
            if name == b"authorization" and value[:7].lower() == b"bearer ":
                sent = value[7:].strip()
            elif name == b"x-api-key":
                sent = value
            else:
                continue
            if caller := self._keys.find(sent) or (self._tokens and self._tokens.find(sent)):
                return caller
            break
        raise Problem(401, "unauthorized", UNAUTHORIZED, {"WWW-Authenticate": "Bearer"})


def open_access(settings: Settings) -> Access:
    """Access for the keys of the file, an operator's key that is in none, and people's tokens, as settings have it.

    Raises:
        KeysError: there are no keys, or they cannot be read.
    """
    keys = Keys(KeyFile(settings.keys_file), settings.api_key.get_secret_value())
    if not settings.jwt_key_file:
        return Access(keys)
    quota = Quota.of(settings.jwt_events_per_second)
    return Access(keys, Tokens(Path(settings.jwt_key_file), settings.jwt_audience, settings.jwt_issuer, quota))


class Needs:
    """A FastAPI dependency: lets those pass who may call the route, and gives the `Caller`.

    The app's `state.access` is asked. `decisions` finds these, so a route without one is found too.

    Args:
        scope: that a key has to have.
        reach: what a person's own token may do.
    """

    def __init__(self, scope: KeyScope, reach: Reach = Reach.CLOSED) -> None:
        self.scope = scope
        self.reach = reach

    async def __call__(self, request: Request, _bearer: object = _BEARER, _header: object = _HEADER) -> Caller:
        """The caller.

        Raises:
            Problem: 401, 403.
        """
        access: Access = request.app.state.access
        caller = access.caller(request.scope["headers"])
        if caller.user_id is None or self.reach is Reach.CLOSED:
            require_scope(caller, self.scope)
        elif self.reach is Reach.OWN:
            require_own(caller, path_id(request.path_params["user_id"]))
        return caller


def require_scope(caller: Caller, scope: KeyScope) -> None:
    """Let keys of a scope pass.

    Raises:
        Problem: 403 `scope_missing`.
    """
    if scope not in caller.scopes:
        raise Problem(403, "scope_missing", f"This needs a key with the scope `{scope}`.", extra={"scope": scope})


def require_own(caller: Caller, user_id: object) -> None:
    """Let a person pass who asks about that very person, and every key.

    Raises:
        Problem: 403 `not_yours`.
    """
    if caller.user_id is not None and caller.user_id != user_id:
        raise not_yours()


def not_yours() -> Problem:
    """The answer to a person who asks about another one. It does not tell whether there is one."""
    return Problem(403, "not_yours", "The token speaks for another person.")


def install_access(app: FastAPI, access: Access) -> None:
    """Give `app` its callers, once all of its routes are there.

    Raises:
        ValueError: a route below /v1 does not say who may call it: nobody starts an open door by mistake.
    """
    app.state.access = access
    decisions(app)


def decisions(app: FastAPI) -> dict[tuple[str, str], Needs]:
    """(method, path) → who may call it, of every route below /v1.

    Raises:
        ValueError: a route does not say so, or what it says does not fit its path.
    """
    found = {}
    for route in iter_route_contexts(app.routes):
        if route.path is not None and route.path.startswith("/v1"):
            needs = _decision(route)
            found.update({(method, route.path): needs for method in route.methods or ()})
    return found


def _decision(route: RouteContext) -> Needs:
    dependencies = route.dependant.dependencies if route.dependant else []
    needs = [each.call for each in dependencies if isinstance(each.call, Needs)]
    if len(needs) != 1:
        raise ValueError(f"{route.path} does not say, once, who may call it: give it `Needs`")
    if needs[0].reach is (Reach.SHARED if "{user_id}" in str(route.path) else Reach.OWN):
        raise ValueError(f"{route.path}: `Reach.{needs[0].reach.name}` does not fit this path")
    return needs[0]
