"""The hot path: one person's list, from one shared read and fragments that were rendered with the version.

A bare ASGI app, since a framework's routing, parameters and response objects cost several times what the answer does.
"""

from time import perf_counter
from urllib.parse import parse_qsl, unquote_to_bytes

from starlette.types import Receive, Scope, Send

from infra.http import Problem, key_digest, key_matches, unauthorized
from ingest.events import MAX_ID_BYTES
from serving.catalogue import LONGEST, CatalogueWatch
from serving.fallback import Tier, choose
from serving.lineage import RecommendationIds
from serving.metrics import RecommendationMetrics
from serving.stored_lists import ListReader

PATH = "/v1/users/{user_id}/recommendations"
DEFAULT_K = 20
LABELS = {tier: tier.label.encode() for tier in Tier}
_LENGTHS = {str(k): k for k in range(1, LONGEST + 1)}
_USUAL_QUERIES = {b"": DEFAULT_K} | {b"k=%d" % k: k for k in range(1, LONGEST + 1)}
_BEFORE, _AFTER = (part.encode() for part in PATH.split("{user_id}"))


class RecommendationsApp:
    """Answers GET /v1/users/{user_id}/recommendations?k=.

    Args:
        watch: the catalogue; a request looks once and keeps what it saw.
        lists: people's stored lists.
        ids: makes the recommendation ids.
        metrics: where answers are counted.
        api_key: what callers must send.
    """

    def __init__(
        self,
        watch: CatalogueWatch,
        lists: ListReader,
        ids: RecommendationIds,
        metrics: RecommendationMetrics,
        api_key: str,
    ) -> None:
        self._watch = watch
        self._lists = lists
        self._ids = ids
        self._metrics = metrics
        self._key = key_digest(api_key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request whose path `serves` has found to be ours."""
        started = perf_counter()
        try:
            user_id, k = self._request(scope)
        except Problem as problem:
            self._metrics.refused[problem.status] += 1
            await problem.response()(scope, receive, send)
            return
        catalogue = self._watch.current
        version = catalogue.version
        stored = await self._lists.read(version, user_id) if version else None
        tier, items, corrupt = choose(catalogue, stored, k)
        headers, body = answer(self._ids, version, tier, items)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self._metrics.corrupt += corrupt
        self._metrics.answered(tier, perf_counter() - started)

    def _request(self, scope: Scope) -> tuple[str, int]:
        if scope["method"] != "GET":
            raise Problem(405, "method_not_allowed", "Ask for recommendations with GET.", {"Allow": "GET"})
        if not key_matches(scope["headers"], self._key):
            raise unauthorized()
        return _user_id(_raw_path(scope)[len(_BEFORE) : -len(_AFTER)]), _k(scope["query_string"])


def answer(ids: RecommendationIds, version: int, tier: Tier, items: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of a list that is served, signed as of now.

    Args:
        ids: makes the recommendation id.
        version: of the model.
        tier: where the list came from.
        items: its items' JSON, joined by commas.
    """
    signed, number, label = ids.sign(version, tier).encode(), b"%d" % version, LABELS[tier]
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
    """Whether a request is the hot path's."""
    if scope["type"] != "http":
        return False
    path = _raw_path(scope)
    return (
        path.startswith(_BEFORE)
        and path.endswith(_AFTER)
        and len(path) > len(_BEFORE) + len(_AFTER)
        and b"/" not in path[len(_BEFORE) : -len(_AFTER)]
    )


def _raw_path(scope: Scope) -> bytes:
    raw: bytes | None = scope.get("raw_path")
    return scope["path"].encode() if raw is None else raw


def _user_id(quoted: bytes) -> str:
    unquoted = unquote_to_bytes(quoted) if b"%" in quoted else quoted
    try:
        user_id = unquoted.decode()
    except UnicodeDecodeError:
        user_id = ""
    if not user_id or len(unquoted) > MAX_ID_BYTES or not user_id.isprintable():
        raise Problem(422, "invalid_request", f"user_id is 1 to {MAX_ID_BYTES} bytes of printable UTF-8.")
    return user_id


def _k(query: bytes) -> int:
    if usual := _USUAL_QUERIES.get(query):
        return usual
    values = [value for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True) if name == "k"]
    if not values:
        return DEFAULT_K
    if len(values) == 1 and (k := _LENGTHS.get(values[0])):
        return k
    raise Problem(422, "invalid_request", f"k is a whole number from 1 to {LONGEST}.")
