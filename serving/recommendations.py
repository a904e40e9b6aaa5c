"""The hot path: one person's list, from one shared read and fragments that were rendered with the version.

A bare ASGI app, since a framework's routing, parameters and response objects cost several times what the answer does.
"""

import asyncio
from time import perf_counter
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from starlette.types import Receive, Scope, Send

from infra.access import Access, require_own, require_scope
from infra.http import Problem
from infra.key_file import KeyScope
from ingest.events import MAX_ID_BYTES
from serving.catalogue import Catalogue
from serving.catalogue_watch import CatalogueWatch
from serving.fallback import StoredLists, Tier, choose
from serving.filters import Wanted, parse
from serving.lineage import RecommendationIds
from serving.metrics import RecommendationMetrics
from serving.overload import Overloaded, TurningAway
from serving.stored_lists import ReadsLists

PATH = "/v1/users/{user_id}/recommendations"
LABELS = {tier: tier.label.encode() for tier in Tier}
_BEFORE, _AFTER = (part.encode() for part in PATH.split("{user_id}"))


class Asked(NamedTuple):
    """A request under way.

    Attributes:
        started: when it came, by `perf_counter`.
        catalogue: what was current then; the answer is made of it, whatever is published meanwhile.
        wanted: what is asked for.
        reading: the person's lists; None when the online store does not answer.
    """

    started: float
    catalogue: Catalogue
    wanted: Wanted
    reading: "asyncio.Future[StoredLists | None] | None"


class RecommendationsApp:
    """Answers GET /v1/users/{user_id}/recommendations.

    Args:
        watch: the catalogue; a request looks once and keeps what it saw.
        lists: people's stored lists.
        ids: makes the recommendation ids.
        metrics: where answers are counted.
        access: tells who asks.
        most_waiting: so many may wait for the online store; who comes then is turned away with 503.
    """

    def __init__(
        self,
        watch: CatalogueWatch,
        lists: ReadsLists,
        ids: RecommendationIds,
        metrics: RecommendationMetrics,
        access: Access,
        *,
        most_waiting: int,
    ) -> None:
        self._watch = watch
        self._lists = lists
        self._ids = ids
        self._metrics = metrics
        self._access = access
        self._most_waiting = most_waiting
        self.turn_away = TurningAway(metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request whose path `serves` has found to be ours."""
        try:
            asked = self.begin(scope)
        except Problem as problem:
            self._metrics.refused[problem.status] += 1
            await problem.response()(scope, receive, send)
            return
        except Overloaded:
            await self.turn_away(send)
            return
        headers, body = self.finish(asked, await asked.reading if asked.reading else None)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def begin(self, scope: Scope) -> Asked:
        """Take a request in, and ask for the person's lists.

        Raises:
            Overloaded: too many wait already. Found out first, since then there is time for nothing else.
            Problem: it is refused.
        """
        if self._lists.waiting >= self._most_waiting:
            raise Overloaded
        started = perf_counter()
        user_id, wanted = self._request(scope)
        catalogue = self._watch.current
        reading = self._lists.ask(catalogue.version, user_id) if catalogue.version else None
        return Asked(started, catalogue, wanted, reading)

    def finish(self, asked: Asked, stored: StoredLists | None) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Headers and body of the answer.

        Args:
            asked: what `begin` took in.
            stored: what was read since; None when the online store does not answer.
        """
        tier, items, corrupt = choose(asked.catalogue, stored, asked.wanted)
        answered = answer(self._ids, asked.catalogue.version, tier, items)
        self._metrics.corrupt += corrupt
        self._metrics.answered(tier, perf_counter() - asked.started)
        return answered

    def _request(self, scope: Scope) -> tuple[bytes, Wanted]:
        if scope["method"] != "GET":
            raise Problem(405, "method_not_allowed", "Ask for recommendations with GET.", {"Allow": "GET"})
        caller = self._access.caller(scope["headers"])
        user_id = _user_id(_raw_path(scope)[len(_BEFORE) : -len(_AFTER)])
        if caller.user_id is None:
            require_scope(caller, KeyScope.RECOMMENDATIONS)
        else:
            require_own(caller, user_id.decode())
        return user_id, parse(scope["query_string"], self._watch.rules)


def answer(ids: RecommendationIds, version: int, tier: Tier, items: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of a list that is served, signed as of now.

    Args:
        ids: makes the recommendation id.
        version: of the model.
        tier: where the list came from.
        items: its items' JSON, joined by commas.
    """
    signed, number, label = ids.sign_bytes(version, tier), b"%d" % version, LABELS[tier]
    body = b'{"recommendation_id":"%b","version":%b,"tier":"%b","items":[%b]}' % (signed, number, label, items)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"marquee-recommendation-id", signed),
        (b"marquee-version", number),
        (b"marquee-tier", label),
    ]
    return headers, body


def serves(scope: Scope) -> bool:
    """Whether a request is the hot path's. A list with explanations is not."""
    if scope["type"] != "http":
        return False
    path = _raw_path(scope)
    return (
        path.startswith(_BEFORE)
        and len(_BEFORE) < path.find(b"/", len(_BEFORE)) == len(path) - len(_AFTER)
        and path.endswith(_AFTER)
        and b"&explain=" not in b"&" + scope["query_string"]
    )


def _raw_path(scope: Scope) -> bytes:
    raw: bytes | None = scope.get("raw_path")
    return scope["path"].encode() if raw is None else raw


def _user_id(quoted: bytes) -> bytes:
    unquoted = unquote_to_bytes(quoted) if b"%" in quoted else quoted
    try:
        printable = unquoted.decode().isprintable()
    except UnicodeDecodeError:
        printable = False
    if not printable or not 0 < len(unquoted) <= MAX_ID_BYTES:
        raise Problem(422, "invalid_request", f"user_id is 1 to {MAX_ID_BYTES} bytes of printable UTF-8.")
    return unquoted
