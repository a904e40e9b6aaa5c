"""The HTTP edge of ingest: bodies with a cap, blocking work in threads, every error a problem document."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import orjson
from anyio import CapacityLimiter, fail_after, to_thread
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from prometheus_client import CollectorRegistry

from infra.access import Access, Needs, Reach, install_access, require_own
from infra.api_docs import install_docs
from infra.bodies import read_json
from infra.database import LedgerUnavailable
from infra.disk import StorageLow
from infra.event_log.port import EventLogUnavailable
from infra.http import (
    Problem,
    SlashesInIds,
    add_schemas,
    body_of,
    documented,
    install_outages,
    install_problem_handlers,
)
from infra.key_file import KeyScope
from infra.keys import Caller
from infra.lake import LakeUnavailable
from infra.telemetry import render_metrics
from ingest.collector import Collector, Verdict
from ingest.consent import Consents
from ingest.events import MAX_BATCH, ConsentUnavailable
from ingest.export import Exports
from ingest.messages import (
    ConsentRequest,
    CountsMessage,
    EventBatch,
    EventVerdicts,
    ItemBatch,
    ItemVerdicts,
    verdicts_message,
)
from ingest.people import people
from ingest.quota import Intake, QuotaExceeded
from ingest.services import COMMON, INVALID, TOO_MUCH, WITH_BODY, OptedOut, Services, Use

MAX_BODY = 2 * 1024 * 1024
BATCHES_AT_ONCE = 64
WAIT_SECONDS = 0.3
"""How long a batch may wait for its turn: with the log's own time-out, an outage is answered within about 2 s."""

RETRY = {"Retry-After": "1"}

DESCRIPTION = """
What people do comes in here, with their consent or not at all.

* **202 means durable**: an accepted event stands in the event log. Send a batch again, with the same ids, after any 503
  or a lost connection: an event counts once.
* **No consent, no trace**: an event of a person who has not allowed personalization is refused and stored nowhere.
* **`Sec-GPC: 1` is a refusal**: what is sent with it is not taken, whatever is on record.
* **A key is for something**: `events`, `items`, `people`, or all of it; 403 `scope_missing` where it is not.
* Withdrawing and forgetting are one call each. Errors are problem documents (RFC 9457) with a stable `code`.
"""
TAGS = [
    {"name": "events", "description": "What people do."},
    {"name": "consent", "description": "What people allow, on record in a chain of receipts."},
    {"name": "items", "description": "What is recommended."},
    {"name": "operation", "description": "Counts for operators; probes and metrics, which need no key."},
]
OUTAGES: dict[type[Exception], tuple[str, str]] = {
    EventLogUnavailable: ("log_unavailable", "The event log does not answer."),
    LedgerUnavailable: ("ledger_unavailable", "The consent ledger does not answer."),
    LakeUnavailable: ("lake_unavailable", "The lake does not answer."),
    StorageLow: ("storage_low", "The disk is nearly full, so nothing is taken that might not be kept."),
    ConsentUnavailable: ("consent_unavailable", "Nobody can tell now what people allow, so nothing is taken."),
}

v1 = APIRouter(prefix="/v1")
operation = APIRouter(tags=["operation"])


def create_app(
    collector: Collector,
    intake: Intake,
    consents: Consents,
    exports: Exports,
    registry: CollectorRegistry,
    *,
    ready: Callable[[], bool],
    access: Access,
    room: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The ingest API.

    Raises:
        ValueError: a route does not say who may call it.
    """
    app = FastAPI(
        title="Marquee ingest",
        version="1",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # A redirect would lead to whatever host the request names.
    )
    app.state.services = Services(
        collector, intake, consents, exports, registry, ready, room, CapacityLimiter(BATCHES_AT_ONCE)
    )
    app.include_router(v1)
    app.include_router(people, prefix="/v1")
    app.include_router(operation)
    install_docs(app)
    install_access(app, access)
    app.add_middleware(SlashesInIds)
    install_problem_handlers(app)
    add_schemas(app, EventBatch, ItemBatch, ConsentRequest)
    install_outages(app, OUTAGES, RETRY)
    app.add_exception_handler(QuotaExceeded, _over_quota)
    return app


# --- events and items ------------------------------------------------------------------------------------------------


@v1.post(
    "/events",
    status_code=202,
    tags=["events"],
    response_model=EventVerdicts,
    responses=documented({**WITH_BODY, 422: f"{INVALID} Or `no_event_accepted`, with the verdicts.", 429: TOO_MUCH}),
    openapi_extra=body_of(EventBatch),
)
async def post_events(
    request: Request,
    services: Use,
    opted_out: OptedOut,
    caller: Annotated[Caller, Depends(Needs(KeyScope.EVENTS, Reach.CHECKED))],
) -> Response:
    """Take a batch of events: each gets a verdict, and those that are refused do not hold up the others.

    With a person's own token, all of them have to be that person's.
    """
    batch = _batch(await read_json(request, MAX_BODY), "events")
    for event in batch:
        require_own(caller, event.get("user_id") if isinstance(event, dict) else None)
    verdicts = await _work(services, partial(services.intake.take, caller=caller, opted_out=opted_out), batch)
    return _answer(verdicts_message(verdicts, "event_id"), "no_event_accepted")


@v1.put(
    "/items",
    status_code=202,
    dependencies=[Depends(Needs(KeyScope.ITEMS))],
    tags=["items"],
    response_model=ItemVerdicts,
    responses=documented({**WITH_BODY, 422: f"{INVALID} Or `no_item_accepted`, with the verdicts."}),
    openapi_extra=body_of(ItemBatch),
)
async def put_items(request: Request, services: Use) -> Response:
    """Say what items are from here on. The whole of an item is replaced."""
    batch = _batch(await read_json(request, MAX_BODY), "items")
    verdicts = await _work(services, services.collector.register_items, batch)
    return _answer(verdicts_message(verdicts, "item_id"), "no_item_accepted")


def _batch(body: Any, name: str) -> list[Any]:
    rows = body.get(name) if isinstance(body, dict) and len(body) == 1 else None
    if not isinstance(rows, list) or not rows:
        shape = f'The body has to be {{"{name}": […]}} with 1 to {MAX_BATCH} {name}, and nothing else.'
        raise Problem(422, "invalid_request", shape)
    if len(rows) > MAX_BATCH:
        raise Problem(413, "too_large", f"{len(rows)} {name} in one batch: send at most {MAX_BATCH}.")
    return rows


async def _work(services: Services, work: Callable[[list[Any]], list[Verdict]], batch: list[Any]) -> list[Verdict]:
    services.room()
    try:
        with fail_after(WAIT_SECONDS):
            # Only the wait for a turn can time out: a thread that has begun is waited for.
            return await to_thread.run_sync(work, batch, limiter=services.batches)
    except TimeoutError:
        raise Problem(503, "overloaded", "Too many batches are waiting. Try again.", RETRY) from None


def _answer(message: dict[str, Any], none_accepted: str) -> Response:
    if not message["accepted"]:
        raise Problem(422, none_accepted, "Nothing in this batch was taken; `verdicts` says why.", extra=message)
    return Response(orjson.dumps(message), 202, media_type="application/json")


# --- operation -------------------------------------------------------------------------------------------------------


@v1.get(
    "/counts",
    tags=["operation"],
    dependencies=[Depends(Needs(KeyScope.OPERATE))],
    responses=documented(COMMON),
)
def get_counts(services: Use) -> CountsMessage:
    """How many people allow what, and how many are being or were forgotten; up to ten seconds old."""
    return CountsMessage.of(services.consents.counts())


@operation.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process runs."""
    return {"status": "ok"}


@operation.get("/readyz", responses=documented({503: "The consent projection has not been seen whole yet."}))
async def readyz(services: Use) -> dict[str, str]:
    """The process may be sent traffic: since it started, the consent projection has been seen whole."""
    if not services.ready():
        raise Problem(503, "not_ready", "The consent projection has not been seen whole yet.", RETRY)
    return {"status": "ready"}


@operation.get("/metrics", response_class=Response)
def metrics(services: Use) -> Response:
    """Prometheus metrics."""
    content, content_type = render_metrics(services.registry)
    return Response(content, headers={"Content-Type": content_type})


def _over_quota(_: Request, error: Exception) -> Response:
    assert isinstance(error, QuotaExceeded)
    detail = "This key has sent more than its quota, and nothing of this was taken. Send it again later."
    return Problem(429, "quota_exceeded", detail, {"Retry-After": str(error.seconds)}).response()
