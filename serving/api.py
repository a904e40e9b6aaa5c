"""HTTP edge of serving: the hot path goes straight to its own app, everything else through FastAPI."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from infra.http import Problem, add_schemas, body_of, documented, install_problem_handlers, read_json, require_key
from infra.telemetry import render_metrics
from ingest.events import MAX_ID_BYTES, Domain, Id
from serving.catalogue import LONGEST, CatalogueWatch
from serving.lineage import ForgedRecommendationId, RecommendationIds
from serving.messages import ModelLineage, Readiness, RecommendationLineage, Recommendations, Session, SimilarItems
from serving.recommendations import DEFAULT_K, RecommendationsApp, answer, serves
from serving.session import recommend_for
from serving.stored_lists import ListReader

MAX_SESSION_BODY = 1024 * 1024
DESCRIPTION = """
Ranked lists of items, made by the published model and served from memory and one read of the online store.

* Every list names its `version`, its `tier` and a `recommendation_id`: send the id back with the impressions and plays
  that follow from the list.
* **An outage of the online store is no error**: lists then come from memory, and `tier` says so.
* Errors are problem documents (RFC 9457) with a stable `code`.
"""
TAGS = [
    {"name": "recommendations", "description": "Lists."},
    {"name": "lineage", "description": "Why a list was what it was."},
    {"name": "operation", "description": "Probes and metrics; they need no key."},
]
COMMON = {401: "The key is missing or wrong.", 422: "A value is missing or outside its bounds."}

UserId = Annotated[Id, Path(description="The person, as the events carry it.", examples=["u-42"])]
ItemId = Annotated[str, Path(min_length=1, max_length=MAX_ID_BYTES, examples=["m1"])]
K = Annotated[int, Query(ge=1, le=LONGEST, description="Length of the list.")]


class Services(NamedTuple):
    """What the edge hands over to.

    Attributes:
        watch: the catalogue; polled while the app runs.
        lists: people's stored lists; closed when the app stops.
        ids: makes and reads recommendation ids.
        domain: what the acts of a session weigh.
        registry: what /metrics shows.
    """

    watch: CatalogueWatch
    lists: ListReader
    ids: RecommendationIds
    domain: Domain
    registry: CollectorRegistry


class ServingApp(FastAPI):
    """A FastAPI app whose hot path is answered before any of it runs.

    Attributes:
        recommendations: the hot path.
    """

    recommendations: RecommendationsApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        if serves(scope):
            await self.recommendations(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


v1 = APIRouter(prefix="/v1")
operation = APIRouter(tags=["operation"])


def create_app(services: Services, recommendations: RecommendationsApp, api_key: str) -> ServingApp:
    """The serving API.

    Raises:
        ValueError: the key is empty.
    """
    app = ServingApp(
        title="Marquee serving", version="1", description=DESCRIPTION, openapi_tags=TAGS, lifespan=_follow_versions
    )
    app.state.services = services
    app.recommendations = recommendations
    app.include_router(v1, dependencies=[Depends(require_key(api_key))])
    app.include_router(operation)
    install_problem_handlers(app)
    add_schemas(app, Session)
    return app


@contextlib.asynccontextmanager
async def _follow_versions(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    following = asyncio.create_task(services.watch.follow())
    yield
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await services.lists.close()


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Use = Annotated[Services, Depends(_services)]


# --- lists -----------------------------------------------------------------------------------------------------------


@v1.get(
    "/users/{user_id}/recommendations",
    tags=["recommendations"],
    response_model=Recommendations,
    responses=documented(COMMON),
)
async def get_recommendations(user_id: UserId, k: K = DEFAULT_K) -> Response:
    """The person's list with their newest events in it, else the published one, else the popular one.

    Somebody whom the platform does not know gets the popular list. The headers `marquee-recommendation-id`,
    `marquee-version` and `marquee-tier` say the same as the body.
    """
    raise AssertionError("ServingApp answers this before routing")


async def _session(request: Request) -> Session:
    body = await read_json(request, MAX_SESSION_BODY)
    try:
        return Session.model_validate(body)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_input=False)) from None


@v1.post(
    "/recommendations",
    tags=["recommendations"],
    response_model=Recommendations,
    responses=documented({**COMMON, 400: "The body is no JSON.", 413: "The body is too long."}),
    openapi_extra=body_of(Session),
)
def post_recommendations(session: Annotated[Session, Depends(_session)], services: Use) -> Response:
    """A list for somebody who did not opt in: the history comes with the request, and nothing of it is kept.

    The tier is `live` when the served model knows something of the history, else `popular`.
    """
    catalogue, domain = services.watch.current, services.domain
    tier, items = recommend_for(session, catalogue, domain.history_weights, domain.events.types.keys())
    headers, body = answer(services.ids, catalogue.version, tier, items)
    return Response(body, headers={name.decode(): value.decode() for name, value in headers})


@v1.get(
    "/items/{item_id:path}/similar",
    tags=["recommendations"],
    response_model=SimilarItems,
    responses=documented({**COMMON, 404: "`unknown_item`: the served version does not know it."}),
)
def get_similar(item_id: ItemId, services: Use, k: K = DEFAULT_K) -> Response:
    """The items that the served model finds most like this one, without those that are hidden."""
    catalogue = services.watch.current
    bundle = catalogue.bundle
    if bundle is None or item_id not in bundle.item_index:
        raise Problem(404, "unknown_item", "The served version of the model does not know this item.")
    wanted = min(k + len(catalogue.hidden), len(bundle.items.item_ids))
    indices, _ = bundle.model.similar_items(bundle.item_index[item_id], wanted)
    items = catalogue.render_indices(indices.tolist(), k)
    return Response(b'{"version":%d,"items":[%b]}' % (catalogue.version, items), media_type="application/json")


# --- lineage ---------------------------------------------------------------------------------------------------------


@v1.get(
    "/recommendations/{recommendation_id}",
    tags=["lineage"],
    responses=documented({**COMMON, 404: "`unknown_recommendation`: the id is forged, altered or mistyped."}),
)
async def get_lineage(recommendation_id: Annotated[str, Path(max_length=256)], services: Use) -> RecommendationLineage:
    """What a recommendation id says of the list it was given with, and of the model that made it."""
    try:
        version, at, tier = services.ids.resolve(recommendation_id)
    except ForgedRecommendationId:
        detail = "No list of this platform was given this id: it is forged, altered or mistyped."
        raise Problem(404, "unknown_recommendation", detail) from None
    manifest = services.watch.manifests.get(version)
    return RecommendationLineage(
        recommendation_id=recommendation_id,
        version=version,
        tier=tier.label,
        at=at,
        model=ModelLineage.of(manifest) if manifest else None,
    )


# --- operation -------------------------------------------------------------------------------------------------------


@operation.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process runs."""
    return {"status": "ok"}


@operation.get("/readyz", responses=documented({503: "It has not looked for a version yet."}))
async def readyz(services: Use) -> Readiness:
    """The process may be sent traffic: it has looked for a version, whether or not the online store answered."""
    watch = services.watch
    if not watch.looked:
        raise Problem(503, "not_ready", "It has not looked for a version yet.", {"Retry-After": "1"})
    store = "answers" if watch.store_answers else "silent"
    return Readiness(status="ready", version=watch.current.version, online_store=store)


@operation.get("/metrics", response_class=Response)
def metrics(services: Use) -> Response:
    """Prometheus metrics."""
    content, content_type = render_metrics(services.registry)
    return Response(content, headers={"Content-Type": content_type})
