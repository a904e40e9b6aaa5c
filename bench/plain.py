"""What the hot path is held against: a server that does nothing, and the plain way to serve a list."""

import json
import os
import struct
from typing import Any, cast

from fastapi import FastAPI, Query, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from infra.online_store import connect, connect_async
from infra.settings import load_settings
from training.bundle import CURRENT, bundle_key, list_key, load

BODY_BYTES = "BODY_BYTES"
"""Variable that says how long the answers of `bare` are."""


def bare() -> ASGIApp:
    """An ASGI app that answers every request with the same bytes: the most that the server itself can do."""
    body = b"x" * int(os.environ[BODY_BYTES])
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def plain() -> FastAPI:
    """A FastAPI route, one redis-py GET, `json.dumps` of the items with their attributes. No key, no lineage."""
    redis_url = load_settings().redis_url
    blocking = connect(redis_url, timeout=10)
    version = int(cast("bytes", blocking.get(CURRENT)))
    table = load(cast("bytes", blocking.get(bundle_key(version)))).items
    items: list[dict[str, Any]] = [
        {"item_id": i, **attributes} for i, attributes in zip(table.item_ids, table.attributes, strict=True)
    ]
    store = connect_async(redis_url)
    app = FastAPI()

    @app.get("/v1/users/{user_id}/recommendations")
    async def recommendations(user_id: str, k: int = Query(20, ge=1, le=100)) -> Response:
        packed = cast("bytes | None", await store.get(list_key(version, user_id))) or b""
        indices = struct.unpack(f"<{len(packed) // 4}I", packed)[:k]
        body = {"version": version, "tier": "personal", "items": [items[index] for index in indices]}
        return Response(json.dumps(body), media_type="application/json")

    return app
