"""Whose pages may call an edge from a browser (CORS): an exact list of origins, and no cookies.

It gives no rights: a page still needs the key or the token of whoever sits before it.
"""

import re
from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")
"""As browsers send it. `*` and `null` are none."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Hosts to listen on that only this machine reaches."""


def origin_of(host: str, port: int) -> str:
    """Where a process of ours is found.

    >>> origin_of("::1", 8000)
    'http://[::1]:8000'
    """
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def parse_origins(listed: str) -> list[str]:
    """The origins of a list that is joined by commas.

    Raises:
        ValueError: one of them is no origin.

    >>> parse_origins("https://tv.example.org, http://localhost:8000")
    ['https://tv.example.org', 'http://localhost:8000']
    """
    origins = [origin for part in listed.split(",") if (origin := part.strip())]
    if not all(map(ORIGIN.fullmatch, origins)):
        raise ValueError("write each origin as https://tv.example.org:8443, in lower case and without a path")
    return origins


def allow_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """`app`, whose answers the pages of these origins may read. None: `app` as it is.

    It goes around all of the app, so that an error can be read too.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=["Authorization", "X-API-Key"],
        expose_headers=["Location", "Retry-After"],
    )
