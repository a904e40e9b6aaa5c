"""A login for demonstrations: anybody on this machine gets a short-lived token of whatever person they name.

It asks for no password, so it serves loopback only, and no page but serving's own. A fork replaces this module, and
`web/session.js`, by its own login.
"""

from datetime import timedelta
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, ValidationError

from infra.access import Access
from infra.bodies import read_json
from infra.http import Problem
from infra.key_file import KeysError
from infra.origins import LOOPBACK, origin_of
from ingest.events import Id, now

LIFETIME = timedelta(minutes=15)
MAX_BODY = 1024


class Who(BaseModel):
    """Whoever signs in says who they are."""

    model_config = ConfigDict(extra="forbid")

    user_id: Id


class SignedIn(BaseModel):
    """A person's own token, and for how many seconds it opens."""

    user_id: str
    token: str
    seconds: int


class DemoLogin:
    """Signs tokens.

    Args:
        key_file: an Ed25519 private key in PEM, as `marquee up` makes it.
        audience: whom the tokens are for.
        issuer: who makes them; "": they do not say.

    Raises:
        KeysError: the key cannot be read.
    """

    def __init__(self, key_file: Path, audience: str, issuer: str) -> None:
        try:
            self._key = load_pem_private_key(key_file.read_bytes(), None)
        except (OSError, ValueError):
            raise KeysError(f"{key_file} holds no private key for MARQUEE_DEMO_LOGIN: `marquee up` makes it") from None
        self._claims = {"aud": audience} | ({"iss": issuer} if issuer else {})

    def token(self, user_id: str) -> str:
        """A token of this person's own."""
        issued = now()
        claims = {**self._claims, "sub": user_id, "iat": issued, "exp": issued + LIFETIME}
        return jwt.encode(claims, self._key, "EdDSA")  # type: ignore[arg-type]


def install_login(app: FastAPI, login: DemoLogin, access: Access, host: str, port: int) -> None:
    """Add `POST /login`.

    Args:
        app: of serving.
        login: signs the tokens.
        access: has to take them.
        host: that serving listens on.
        port: that it listens on.

    Raises:
        KeysError: it would be reached from other machines, or its tokens would open nothing.
    """
    if host not in LOOPBACK:
        raise KeysError(f"MARQUEE_DEMO_LOGIN signs anybody in as anybody: not on {host}, only on 127.0.0.1")
    _check(login, access)
    own = {origin_of(name, port) for name in LOOPBACK}

    async def sign_in(request: Request) -> SignedIn:
        _require_own_page(request, own)
        try:
            who = Who.model_validate(await read_json(request, MAX_BODY))
        except ValidationError:
            raise Problem(422, "invalid_request", "Say who you are: a printable user_id of 1 to 128 bytes.") from None
        return SignedIn(user_id=who.user_id, token=login.token(who.user_id), seconds=int(LIFETIME.total_seconds()))

    app.add_api_route("/login", sign_in, methods=["POST"], include_in_schema=False)


def _check(login: DemoLogin, access: Access) -> None:
    try:
        access.caller([(b"authorization", b"Bearer " + login.token("somebody").encode())])
    except Problem:
        raise KeysError("MARQUEE_DEMO_LOGIN makes tokens that MARQUEE_JWT_KEY_FILE does not check") from None


def _require_own_page(request: Request, own: set[str]) -> None:
    """Refuse a page of another site, also one whose name was made to point to this machine (DNS rebinding)."""
    asked = f"http://{request.headers.get('host', '')}"
    if asked not in own or request.headers.get("origin", asked) != asked:
        raise Problem(403, "foreign_page", "Only pages that serving itself gave on this machine may sign people in.")
