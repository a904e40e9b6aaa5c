"""The HTTP edge of ingest: bodies with a cap, blocking work in threads, every error a problem document."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import orjson
import structlog
from anyio import CapacityLimiter, fail_after, to_thread
from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry
from pydantic import BeforeValidator, ValidationError

from infra.database import LedgerUnavailable
from infra.event_log.port import EventLogUnavailable
from infra.http import (
    Problem,
    SlashesInIds,
    add_schemas,
    body_of,
    documented,
    install_problem_handlers,
    path_id,
    read_json,
    require_key,
)
from infra.telemetry import render_metrics
from ingest.collector import Collector, Verdict
from ingest.consent import Consents
from ingest.events import MAX_BATCH, ConsentUnavailable, Id
from ingest.messages import (
    ConsentMessage,
    ConsentRequest,
    ErasureMessage,
    EventBatch,
    EventVerdicts,
    ItemBatch,
    ItemVerdicts,
    ReceiptMessage,
    verdicts_message,
)

MAX_BODY = 2 * 1024 * 1024
MAX_CONSENT_BODY = 16 * 1024
BATCHES_AT_ONCE = 64
WAIT_SECONDS = 0.3
"""How long a batch may wait for its turn: with the log's own time-out, an outage is answered within about 2 s."""

RETRY = {"Retry-After": "1"}

DESCRIPTION = """
What people do comes in here, with their consent or not at all.

* **202 means durable**: an accepted event stands in the event log. Send a batch again, with the same ids, after any 503
  or a lost connection: an event counts once.
* **No consent, no trace**: an event of a person who has not allowed personalization is refused and stored nowhere.
* Withdrawing and forgetting are one call each. Errors are problem documents (RFC 9457) with a stable `code`.
"""
TAGS = [
    {"name": "events", "description": "What people do."},
    {"name": "consent", "description": "What people allow, on record in a chain of receipts."},
    {"name": "items", "description": "What is recommended."},
    {"name": "operation", "description": "Probes and metrics; they need no key."},
]
BUSY = "An outage or overload: nothing may be assumed; try again after `Retry-After` seconds."
INVALID = "The request is not of the documented form."
COMMON = {401: "The key is missing or wrong.", 422: INVALID, 503: BUSY}
WITH_BODY = {**COMMON, 400: "The body is no JSON.", 413: "The body is too long."}

OUTAGES: dict[type[Exception], tuple[str, str]] = {
    EventLogUnavailable: ("log_unavailable", "The event log does not answer."),
    LedgerUnavailable: ("ledger_unavailable", "The consent ledger does not answer."),
    ConsentUnavailable: ("consent_unavailable", "Nobody can tell now what people allow, so nothing is taken."),
}

UserId = Annotated[
    Id, BeforeValidator(path_id), Path(description="The person, as the events carry it.", examples=["u-42"])
]
PolicyVersion = Annotated[Id, Query(description="Of the text that the person was shown.")]
Source = Annotated[Id, Query(description="Where the person said so.", examples=["settings page"])]


class Services(NamedTuple):
    """What the edge hands over to.

    Attributes:
        ready: whether this process may be sent traffic.
        batches: how many batches are worked on at once.
    """

    collector: Collector
    consents: Consents
    registry: CollectorRegistry
    ready: Callable[[], bool]
    batches: CapacityLimiter


v1 = APIRouter(prefix="/v1")
operation = APIRouter(tags=["operation"])


def create_app(
    collector: Collector, consents: Consents, registry: CollectorRegistry, ready: Callable[[], bool], api_key: str
) -> FastAPI:
    """The ingest API.

    Raises:
        ValueError: the key is empty.
    """
    app = FastAPI(title="Marquee ingest", version="1", description=DESCRIPTION, openapi_tags=TAGS)
    app.state.services = Services(collector, consents, registry, ready, CapacityLimiter(BATCHES_AT_ONCE))
    app.include_router(v1, dependencies=[Depends(require_key(api_key))])
    app.include_router(operation)
    app.add_middleware(SlashesInIds)
    install_problem_handlers(app)
    add_schemas(app, EventBatch, ItemBatch, ConsentRequest)
    for outage, (code, detail) in OUTAGES.items():
        app.add_exception_handler(outage, _answer_with(Problem(503, code, f"{detail} Try again.", RETRY)))
    return app


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Use = Annotated[Services, Depends(_services)]


# --- events and items ------------------------------------------------------------------------------------------------


@v1.post(
    "/events",
    status_code=202,
    tags=["events"],
    response_model=EventVerdicts,
    responses=documented({**WITH_BODY, 422: f"{INVALID} Or `no_event_accepted`, with the verdicts."}),
    openapi_extra=body_of(EventBatch),
)
async def post_events(request: Request, services: Use) -> Response:
    """Take a batch of events: each gets a verdict, and those that are refused do not hold up the others."""
    batch = _batch(await read_json(request, MAX_BODY), "events")
    verdicts = await _work(services, services.collector.collect, batch)
    return _answer(verdicts_message(verdicts, "event_id"), "no_event_accepted")


@v1.put(
    "/items",
    status_code=202,
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


# --- consent ---------------------------------------------------------------------------------------------------------


async def _consent_request(request: Request) -> ConsentRequest:
    body = await read_json(request, MAX_CONSENT_BODY)
    try:
        return ConsentRequest.model_validate(body)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_input=False)) from None


@v1.put(
    "/users/{user_id}/consent",
    tags=["consent"],
    responses=documented(WITH_BODY),
    openapi_extra=body_of(ConsentRequest),
)
def put_consent(
    user_id: UserId, said: Annotated[ConsentRequest, Depends(_consent_request)], services: Use
) -> ReceiptMessage:
    """Record what the person allows from here on. Purposes that are not named are withdrawn."""
    return ReceiptMessage.of(services.consents.grant(user_id, said.purposes, said.policy_version, said.source))


@v1.get("/users/{user_id}/consent", tags=["consent"], responses=documented(COMMON))
def get_consent(user_id: UserId, services: Use) -> ConsentMessage:
    """What the person allows now, and every receipt."""
    return ConsentMessage.of(*services.consents.current(user_id))


@v1.delete("/users/{user_id}/consent", tags=["consent"], responses=documented(COMMON))
def delete_consent(
    user_id: UserId, services: Use, policy_version: PolicyVersion = "unversioned", source: Source = "api"
) -> ReceiptMessage:
    """Withdraw everything. When this is answered, nothing of the person is collected any more, and what was goes."""
    return ReceiptMessage.of(services.consents.withdraw(user_id, policy_version, source))


@v1.delete("/users/{user_id}", status_code=202, tags=["consent"], responses=documented(COMMON))
def delete_user(
    user_id: UserId,
    response: Response,
    services: Use,
    policy_version: PolicyVersion = "unversioned",
    source: Source = "api",
) -> ErasureMessage:
    """Forget the person in every store. `Location` is where to follow it; asking again finds the same erasure."""
    erasure_id = services.consents.erase(user_id, policy_version, source)
    response.headers["Location"] = f"/v1/erasures/{erasure_id}"
    return _erasure(services, erasure_id)


@v1.get(
    "/erasures/{erasure_id}",
    tags=["consent"],
    responses=documented({**COMMON, 404: "`unknown_erasure`: there is none of that id."}),
)
def get_erasure(erasure_id: Annotated[Id, Path()], services: Use) -> ErasureMessage:
    """Which stages have forgotten, and whether all have."""
    return _erasure(services, erasure_id)


def _erasure(services: Services, erasure_id: str) -> ErasureMessage:
    state = services.consents.erasure(erasure_id)
    if state is None:
        raise Problem(404, "unknown_erasure", "There is no erasure of that id.")
    return ErasureMessage.of(state)


# --- operation -------------------------------------------------------------------------------------------------------


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


def _answer_with(problem: Problem) -> Callable[[Request, Exception], Response]:
    def answer(_: Request, error: Exception) -> Response:
        structlog.get_logger(__name__).warning("not answered", code=problem.code, reason=str(error))
        return problem.response()

    return answer
