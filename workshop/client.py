"""The platform, as a client of its HTTP edges sees it: patient with outages, in no doubt about what was taken."""

import asyncio
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
import orjson

from ingest.events import MAX_BATCH, PERSONALIZATION, Event, Item

PATIENCE_SECONDS = 60.0
LONGEST_PAUSE = 5.0
TIMEOUT_SECONDS = 20.0
CONNECTIONS = 64
ACCEPTED = "accepted"
BUSY = frozenset({429, 502, 503, 504})


class PlatformError(Exception):
    """Root of what a call to the platform raises."""


class Unreachable(PlatformError):
    """No answer, or none but "later", for as long as we were willing to try: look at the platform's processes."""


class Refused(PlatformError):
    """The platform said no, and would say it again.

    Attributes:
        status: the answer's HTTP status.
        code: the problem's stable code; "" where the answer had none.
    """

    def __init__(self, what: str, status: int, code: str, detail: str) -> None:
        super().__init__(f"{what} was refused with {status} {code}: {detail}")
        self.status = status
        self.code = code


class Client:
    """Calls the platform; use it as an async context manager.

    What fails in transit, and what is answered with 429 or 503, is sent again as it was, so that events keep their
    ids and are counted once whatever happened on the way.

    Args:
        ingest_url: base URL of the ingest API.
        serving_url: base URL of the serving API.
        api_key: the platform's key.
        patience: seconds to go on trying one call.
        transport: how to reach the platform, if not over the network.
    """

    def __init__(
        self,
        ingest_url: str,
        serving_url: str,
        api_key: str,
        patience: float = PATIENCE_SECONDS,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._ingest = ingest_url.rstrip("/")
        self._serving = serving_url.rstrip("/")
        self._patience = patience
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=TIMEOUT_SECONDS,
            limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
            transport=transport,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def put_items(self, items: Iterable[Item]) -> None:
        """Tell the platform of up to 500 items.

        Raises:
            Unreachable: it did not answer in time.
            Refused: it does not take them all.
        """
        rows = [{"item_id": i.item_id, "attributes": i.attributes, "hidden": i.hidden} for i in items]
        answer = await self._call("PUT", f"{self._ingest}/v1/items", {"items": rows})
        for verdict in answer.get("verdicts", []):
            if verdict["code"] != ACCEPTED:
                raise Refused(f"item {verdict['item_id']}", 202, verdict["code"], verdict.get("detail", ""))

    async def put_consent(self, user_id: str, purposes: Sequence[str] = (PERSONALIZATION,)) -> None:
        """Let this person opt in to `purposes`. Raises as `put_items` does."""
        await self._call("PUT", f"{self._user(self._ingest, user_id)}/consent", {"purposes": list(purposes)})

    async def withdraw(self, user_id: str) -> None:
        """Let this person withdraw every consent. Raises as `put_items` does."""
        await self._call("DELETE", f"{self._user(self._ingest, user_id)}/consent")

    async def send_events(self, events: Iterable[Event] | Iterable[Mapping[str, Any]]) -> dict[str, str]:
        """Send up to 500 events.

        Returns:
            event_id → "accepted", or the code of the refusal; one entry for every id that was sent.

        Raises:
            Unreachable: there was no verdict in time.
            Refused: the batch as a whole is not taken.
        """
        rows = [_row(event) for event in events]
        if not rows:
            return {}
        if len(rows) > MAX_BATCH:
            raise ValueError(f"{len(rows)} events in one batch: at most {MAX_BATCH}")
        answer = await self._call("POST", f"{self._ingest}/v1/events", {"events": rows}, verdicts=True)
        found = {v["event_id"]: v["code"] for v in answer.get("verdicts", [])}
        if unjudged := {row["event_id"] for row in rows} - found.keys():
            raise PlatformError(f"POST /v1/events gave no verdict on {len(unjudged)} of {len(rows)} events")
        return found

    async def recommendations(self, user_id: str, k: int = 10) -> dict[str, Any]:
        """This person's list as the API gives it: `recommendation_id`, `version`, `tier`, `items`.

        Raises as `put_items` does.
        """
        answer: dict[str, Any] = await self._call("GET", f"{self._user(self._serving, user_id)}/recommendations?k={k}")
        return answer

    async def erase(self, user_id: str) -> str:
        """Ask to forget this person; returns the `erasure_id`. Raises as `put_items` does."""
        answer = await self._call("DELETE", self._user(self._ingest, user_id))
        return str(answer["erasure_id"])

    async def erasure(self, erasure_id: str) -> dict[str, Any]:
        """How far an erasure is, as the API tells it. Raises as `put_items` does."""
        answer: dict[str, Any] = await self._call("GET", f"{self._ingest}/v1/erasures/{quote(erasure_id, safe='')}")
        return answer

    @staticmethod
    def _user(base: str, user_id: str) -> str:
        return f"{base}/v1/users/{quote(user_id, safe='')}"

    async def _call(self, method: str, url: str, body: Any = None, verdicts: bool = False) -> Any:
        """The answer's JSON. With `verdicts`, an answer that judges every event is one, whatever its status."""
        what = f"{method} {httpx.URL(url).path}" if "/users/" not in url else f"{method} on a user"
        answer = await self._persist(
            what, method, url, None if body is None else orjson.dumps(body, option=orjson.OPT_UTC_Z)
        )
        content = _json(answer)
        if answer.is_success or (verdicts and "verdicts" in content):
            return content
        raise Refused(what, answer.status_code, content.get("code", ""), content.get("detail", "no further word"))

    async def _persist(self, what: str, method: str, url: str, content: bytes | None) -> httpx.Response:
        """The first answer that is more than "later"."""
        headers = {"Content-Type": "application/json"} if content is not None else {}
        deadline = time.monotonic() + self._patience
        attempt = 0
        while True:
            try:
                answer = await self._http.request(method, url, content=content, headers=headers)
                if answer.status_code not in BUSY:
                    return answer
                last, asked = f"answered {answer.status_code}", _retry_after(answer)
            except httpx.TransportError as error:
                last, asked = f"gave {type(error).__name__}", 0.0
            wait = max(asked, _backoff(attempt))
            if time.monotonic() + wait > deadline:
                raise Unreachable(f"{what}: no answer within {self._patience:.0f} s, it last {last}; is it running?")
            await asyncio.sleep(wait)
            attempt += 1


def _row(event: Event | Mapping[str, Any]) -> Mapping[str, Any]:
    return event.model_dump(exclude_none=True) if isinstance(event, Event) else event


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        content = orjson.loads(answer.content) if answer.content else {}
    except orjson.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}


def _retry_after(answer: httpx.Response) -> float:
    """The pause that the platform asks for, in seconds, no longer than we care to wait."""
    asked = answer.headers.get("Retry-After", "")
    return min(float(asked), LONGEST_PAUSE) if asked.isdecimal() else 0.0


def _backoff(attempt: int) -> float:
    """Doubling pauses, spread so that many clients do not come back at once."""
    return min(0.05 * 2.0 ** min(attempt, 10), 2.0) * random.uniform(0.5, 1)
