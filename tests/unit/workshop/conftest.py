"""A platform that keeps what it is sent in memory, and a road to it that can fail."""

from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from workshop.client import Client

KEY = "the-key"
TITLES = ["m1", "m2", "m3"]


class FakePlatform:
    """Answers as ingest and serving do.

    Attributes:
        faults: taken one a call of `POST /v1/events`: a status to answer with, "lost" (taken, but the answer does not
            arrive) or "down" (never arrives).
        received: bodies of `POST /v1/events`, in order of arrival; those that were lost on the way back included.
        events: event_id → event, as accepted.
    """

    def __init__(self) -> None:
        self.faults: deque[int | str] = deque()
        self.retry_after = "0"
        self.received: list[list[dict[str, Any]]] = []
        self.events: dict[str, dict[str, Any]] = {}
        self.accepted_times: Counter[str] = Counter()
        self.items: dict[str, Any] = {}
        self.consents: set[str] = set()
        self.tier = "personal"
        self.shown = TITLES
        user = "/v1/users/{user}"
        self.app = Starlette(
            routes=[
                Route("/v1/items", self._put_items, methods=["PUT"]),
                Route("/v1/events", self._post_events, methods=["POST"]),
                Route(f"{user}/consent", self._put_consent, methods=["PUT"]),
                Route(f"{user}/consent", self._delete_consent, methods=["DELETE"]),
                Route(f"{user}/recommendations", self._recommendations),
                Route(user, self._erase, methods=["DELETE"]),
                Route("/v1/erasures/{erasure}", self._erasure),
            ]
        )

    async def _put_items(self, request: Request) -> Response:
        rows = orjson.loads(await request.body())["items"]
        taken = {row["item_id"]: row["attributes"] for row in rows if "title" in row["attributes"]}
        self.items |= taken
        codes = ["accepted" if row["item_id"] in taken else "invalid_item" for row in rows]
        verdicts = [{"item_id": row["item_id"], "code": code} for row, code in zip(rows, codes, strict=True)]
        return _json(202 if taken else 422, {"verdicts": verdicts})

    async def _put_consent(self, request: Request) -> Response:
        assert orjson.loads(await request.body()) == {"purposes": ["personalization"]}
        self.consents.add(request.path_params["user"])
        return _json(200, {"number": 1})

    async def _delete_consent(self, request: Request) -> Response:
        self.consents.discard(request.path_params["user"])
        return _json(200, {"number": 2})

    async def _post_events(self, request: Request) -> Response:
        if request.headers["authorization"] != f"Bearer {KEY}":
            return _json(401, {"code": "unauthorized", "detail": "Send the platform's key."})
        rows = orjson.loads(await request.body())["events"]
        self.received.append(rows)
        if self.faults and isinstance(self.faults[0], int):
            return _json(self.faults.popleft(), {"code": "busy"}, {"Retry-After": self.retry_after})
        for row in rows:
            if row["user_id"] in self.consents:
                self.events[row["event_id"]] = row
                self.accepted_times[row["event_id"]] += 1
        codes = ["accepted" if row["user_id"] in self.consents else "consent_missing" for row in rows]
        verdicts = [{"event_id": row["event_id"], "code": code} for row, code in zip(rows, codes, strict=True)]
        if "accepted" not in codes:
            return _json(422, {"code": "no_event_accepted", "detail": "None.", "verdicts": verdicts})
        return _json(202, {"verdicts": verdicts})

    async def _recommendations(self, request: Request) -> Response:
        k = int(request.query_params["k"])
        items = [{"item_id": item} for item in self.shown[:k]]
        answer = {"recommendation_id": f"r-{request.path_params['user']}", "version": 1, "tier": self.tier}
        return _json(200, {**answer, "items": items})

    async def _erase(self, request: Request) -> Response:
        return _json(202, {"erasure_id": f"e-{request.path_params['user']}", "completed_at": None})

    async def _erasure(self, request: Request) -> Response:
        if request.path_params["erasure"] != "e-u1":
            return _json(404, {"code": "unknown_erasure", "detail": "There is no such erasure."})
        return _json(200, {"erasure_id": "e-u1", "completed_at": "2026-01-31T12:00:00Z"})


class Road(httpx.ASGITransport):
    """The way to the platform. It loses what `faults` says."""

    def __init__(self, platform: FakePlatform) -> None:
        super().__init__(app=platform.app)
        self.platform = platform

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        faults = self.platform.faults
        fault = (
            faults.popleft() if request.url.path == "/v1/events" and faults and faults[0] in ("lost", "down") else ""
        )
        if fault == "down":
            raise httpx.ConnectError("refused", request=request)
        response = await super().handle_async_request(request)
        if fault == "lost":
            raise httpx.ReadError("reset", request=request)
        return response


def _json(status: int, content: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, "application/json")


@pytest.fixture
def platform() -> FakePlatform:
    """A platform without people, items or events."""
    return FakePlatform()


@pytest.fixture
def connect(platform: FakePlatform) -> Callable[..., AbstractAsyncContextManager[Client]]:
    """Makes clients of `platform`; arguments go to the client."""

    @asynccontextmanager
    async def client(api_key: str = KEY, **arguments: Any) -> AsyncIterator[Client]:
        async with Client("http://ingest", "http://serving/", api_key, transport=Road(platform), **arguments) as made:
            yield made

    return client
