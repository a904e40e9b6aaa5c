"""The HTTP edge of training, for operators: which version is served, runs, and what the platform does now.

It does what the commands do, by the same functions. One flip at a time, over all processes: see `training.lock`.
"""

from collections.abc import Callable
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, Response
from pydantic import BeforeValidator

from infra.access import Access, install_access
from infra.api_docs import install_docs
from infra.bodies import BODY_PROBLEMS, read_model
from infra.http import (
    Problem,
    SlashesInIds,
    add_schemas,
    body_of,
    documented,
    install_outages,
    install_problem_handlers,
    path_id,
)
from infra.keys import Caller
from infra.lake import LakeEmpty, LakeError
from infra.model_registry import ModelRegistryError, NoSuchVersion, VersionPurged
from infra.online_store import OnlineStoreError
from infra.telemetry import render_metrics
from ingest.events import ConsentUnavailable, Id
from training.bundle import Bundle, BundleError, bundle_key
from training.lock import AlreadyTraining, one_at_a_time
from training.messages import (
    HIGHEST,
    ModelMessage,
    Models,
    Operations,
    PersonLists,
    PromotionRequest,
    RollbackRequest,
    Served,
    Version,
)
from training.person_lists import MOST_VERSIONS, lists_of
from training.progress import NoSchedule, Training, ask, read_training
from training.publish import PublishError, current
from training.rollback import ByHand, NothingToRollBackTo, NotLetIn, promote, roll_back
from training.services import COMMON, NEEDS, Operator, Services, Use

MAX_BODY = 16 * 1024
RETRY = {"Retry-After": "2"}

DESCRIPTION = """
What an operator needs to see and to decide: versions of the model, runs, and the platform's figures in one answer.

* **Every route needs a key with the scope `operate`**; a person's own token opens none.
* **It does what the commands do** (`marquee promote`, `rollback`, `train`), with the same rules. Who promoted a
  version, when and why is kept with it.
* One change at a time: while somebody trains or changes what is served, 409 `already_training`.
* Errors are problem documents (RFC 9457) with a stable `code`.
"""
TAGS = [
    {"name": "models", "description": "Versions: what was measured, what the gate said, which is served."},
    {"name": "training", "description": "Runs."},
    {"name": "operations", "description": "The platform as it runs."},
    {"name": "operation", "description": "Probes and metrics; they need no key."},
]
OUTAGES: dict[type[Exception], tuple[str, str]] = {
    **dict.fromkeys(OnlineStoreError, ("store_unavailable", "The online store does not answer.")),
    ModelRegistryError: ("registry_unavailable", "The model registry does not answer."),
    LakeError: ("lake_unavailable", "The lake does not answer."),
    ConsentUnavailable: ("consent_unavailable", "Nobody can tell now what people allow, so nothing is published."),
    PublishError: ("publish_failed", "The version could not be published whole; the old one is still served."),
}
REFUSALS: dict[type[Exception], tuple[int, str]] = {
    NoSuchVersion: (404, "unknown_version"),
    NotLetIn: (409, "gate_refused"),
    NothingToRollBackTo: (409, "nothing_to_roll_back_to"),
    VersionPurged: (409, "version_purged"),
    BundleError: (409, "unreadable_bundle"),
    LakeEmpty: (409, "nothing_landed"),
    AlreadyTraining: (409, "already_training"),
    NoSchedule: (409, "no_schedule"),
}
"""Their messages say what to do."""

UNKNOWN = "`unknown_version`: the registry has no such version."
REFUSED = (
    "`gate_refused`, `nothing_to_roll_back_to`, `version_purged`, `unreadable_bundle`, `nothing_landed`: the version "
    "cannot be served. `already_training`: another one is being made or served now."
)

Limit = Annotated[int, Query(ge=1, le=500, description="So many versions at most.")]
Length = Annotated[int, Query(ge=1, le=100, description="Length of the lists.")]
Versions = Annotated[
    list[Version], Query(max_length=MOST_VERSIONS, description="Of the lists; none: the one that is served.")
]
UserId = Annotated[
    Id, BeforeValidator(path_id), Path(description="The person, as the events carry it.", examples=["u-42"])
]

v1 = APIRouter(prefix="/v1")
operation = APIRouter(tags=["operation"])


def create_app(services: Services, access: Access) -> FastAPI:
    """The operator's API.

    Raises:
        ValueError: a route does not say who may call it.
    """
    app = FastAPI(
        title="Marquee operations",
        version="1",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # A redirect would lead to whatever host the request names.
    )
    app.state.services = services
    app.include_router(v1)
    app.include_router(operation)
    install_docs(app)
    install_access(app, access)
    app.add_middleware(SlashesInIds)
    install_problem_handlers(app)
    add_schemas(app, PromotionRequest, RollbackRequest)
    install_outages(app, OUTAGES, RETRY)
    for refusal, (status, code) in REFUSALS.items():
        app.add_exception_handler(refusal, _refuse_with(status, code))
    return app


# --- versions --------------------------------------------------------------------------------------------------------


@v1.get("/models", tags=["models"], dependencies=NEEDS, responses=documented(COMMON))
def get_models(services: Use, limit: Limit = 50) -> Models:
    """The versions, newest first: figures, the gate's verdicts with reasons, which is served."""
    served, parts = current(services.store), services.parts()
    found = [] if parts is None else parts.registry.versions(limit)
    asks = services.store.pipeline(transaction=False)
    for one in found:
        asks.exists(bundle_key(one.version))
    kept = asks.execute()
    models = [ModelMessage.of(one, served, bool(there)) for one, there in zip(found, kept, strict=True)]
    return Models(served=served, models=models)


async def _promotion(request: Request) -> PromotionRequest:
    return await read_model(request, PromotionRequest, MAX_BODY)


async def _rollback(request: Request) -> RollbackRequest:
    return await read_model(request, RollbackRequest, MAX_BODY)


@v1.post(
    "/models/{version}/promotion",
    tags=["models"],
    responses=documented({**COMMON, **BODY_PROBLEMS, 404: UNKNOWN, 409: REFUSED}),
    openapi_extra=body_of(PromotionRequest),
)
def post_promotion(
    operator: Operator,
    version: Annotated[int, Path(ge=1, le=HIGHEST, examples=[2])],
    said: Annotated[PromotionRequest, Depends(_promotion)],
    services: Use,
) -> Served:
    """Serve a version that passed the gate or, by force and with a reason, one that did not. Who said so is kept."""
    parts, by_hand = services.some_parts(), ByHand(operator.name or operator.key_id, said.reason, said.force)
    with one_at_a_time(services.store):
        promote(parts.registry, parts.publisher, parts.histories, version, by_hand)
    _log("promoted", operator, version)
    return Served(served=version)


@v1.post(
    "/rollback",
    tags=["models"],
    responses=documented({**COMMON, **BODY_PROBLEMS, 404: UNKNOWN, 409: REFUSED}),
    openapi_extra=body_of(RollbackRequest),
)
def post_rollback(operator: Operator, said: Annotated[RollbackRequest, Depends(_rollback)], services: Use) -> Served:
    """Serve another version that may be served, an earlier or a later one, at once."""
    parts = services.some_parts()
    with one_at_a_time(services.store):
        served = roll_back(parts.store, parts.registry, parts.publisher, parts.histories, said.version)
    _log("rolled back", operator, served)
    return Served(served=served)


@v1.get(
    "/users/{user_id}/lists",
    tags=["models"],
    dependencies=NEEDS,
    responses=documented({**COMMON, 404: UNKNOWN, 409: "`version_purged`, `unreadable_bundle`: it cannot be asked."}),
)
def get_lists(user_id: UserId, services: Use, version: Versions = [], k: Length = 10) -> PersonLists:  # noqa: B006
    """What a person's history is, and what each version makes of it today, before hidden items are left out."""

    def bundle_of(number: int) -> Bundle:
        return services.bundles.of(services.some_parts().registry, number)

    return lists_of(services.store, bundle_of, user_id, version, k)


# --- training --------------------------------------------------------------------------------------------------------


@v1.get("/training", tags=["training"], dependencies=NEEDS, responses=documented(COMMON))
def get_training(services: Use) -> Training:
    """Where training stands, whichever process trains, and how the last run ended."""
    return read_training(services.store)


@v1.post(
    "/training",
    status_code=202,
    tags=["training"],
    responses=documented({**COMMON, 409: "`no_schedule`: nobody is there who would take it up."}),
)
def post_training(operator: Operator, services: Use) -> Training:
    """Have the schedule retrain, within a second or two. While a run is under way or asked for, that is the one."""
    found = ask(services.store)
    structlog.get_logger(__name__).info("a run was asked for", key=operator.key_id, state=found.state)
    return found


# --- operations ------------------------------------------------------------------------------------------------------


@v1.get("/operations", tags=["operations"], dependencies=NEEDS, responses=documented(COMMON))
def get_operations(services: Use) -> Operations:
    """What all processes show, the log's lag, landed rows, and what people cost in Redis. What is down is null."""
    return services.watch.look()


@operation.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process runs."""
    return {"status": "ok"}


@operation.get("/readyz")
async def readyz() -> dict[str, str]:
    """The process may be sent traffic: what it cannot reach it says with each answer."""
    return {"status": "ready"}


@operation.get("/metrics", response_class=Response)
def metrics(services: Use) -> Response:
    """Prometheus metrics."""
    content, content_type = render_metrics(services.registry)
    return Response(content, headers={"Content-Type": content_type})


def _log(what: str, operator: Caller, version: int) -> None:
    structlog.get_logger(__name__).info(what, version=version, key=operator.key_id)


def _refuse_with(status: int, code: str) -> Callable[[Request, Exception], Response]:
    return lambda _, error: Problem(status, code, str(error)).response()
