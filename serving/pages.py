"""The pages a browser is given, as static files: what they show they ask of the public APIs, like any other client."""

import importlib.util
from pathlib import Path
from typing import NamedTuple

import orjson
from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

WEB = Path(__file__).parent / "web"
PAGES = {"/": "index.html", "/you": "you.html", "/console": "console.html"}
NAMES = ("127.0.0.1", "localhost")
"""Under which a browser finds this machine; a policy has no words for `[::1]`."""
EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104  # nosec B104 - compared with, not listened on

POLICY = (
    "default-src 'self'; connect-src 'self' {edges}; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""With the last two no text can become markup, in the library of charts neither."""

HEADERS = {
    "Cache-Control": "no-cache",  # kept, and asked for again by its ETag: a new release shows at once
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Edges(NamedTuple):
    """What pages cannot know of themselves: on which ports of the host that they came from the other APIs are.

    Attributes:
        host: that the processes listen on.
        ingest_port: of the ingest API.
        operator_port: of the operator's API.
        demo_login: whether `POST /login` is there.
    """

    host: str
    ingest_port: int
    operator_port: int
    demo_login: bool = False

    @property
    def origins(self) -> list[str]:
        """Whom a page may ask besides serving."""
        hosts = NAMES if self.host in (*NAMES, *EVERY_ADDRESS) else (self.host,)
        return [f"http://{host}:{port}" for host in hosts for port in (self.ingest_port, self.operator_port)]


def install_pages(app: FastAPI, edges: Edges) -> None:
    """Give `app` its pages: three addresses, and the files they load below /web/."""
    policy = POLICY.format(edges=" ".join(edges.origins))
    files = _Files(WEB, policy)
    for path, name in PAGES.items():
        _add_page(app, path, name, files)
    told = edges._asdict()
    del told["host"]  # Pages know it better: it is where they came from.
    platform = b"export default %b;\n" % orjson.dumps(told)

    def about(_: Request) -> Response:
        return Response(platform, headers=HEADERS, media_type="text/javascript")

    app.add_route("/web/platform.js", about, include_in_schema=False)
    app.mount("/web/charts", _Files(_charts(), policy), name="charts")
    app.mount("/web", files, name="web")


class _Files(StaticFiles):
    """Files of a folder, with the headers of our pages."""

    def __init__(self, folder: Path, policy: str) -> None:
        super().__init__(directory=folder)
        self._headers = HEADERS | {"Content-Security-Policy": policy}

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, or that it has not changed."""
        response = await super().get_response(path, scope)
        response.headers.update(self._headers)
        return response


def _add_page(app: FastAPI, path: str, name: str, files: _Files) -> None:
    async def page(request: Request) -> Response:
        return await files.get_response(name, request.scope)

    app.add_route(path, page, include_in_schema=False)


def _charts() -> Path:
    """Where chartkick's wheel has its scripts. Nothing of it is imported."""
    found = importlib.util.find_spec("chartkick")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("chartkick is missing: install the extra `pages`, or `serving`, which has it")
    return Path(found.origin).parent / "django/static/chartkick"
