"""HTTP edge of serving: the hot path goes straight to its own app, everything else through FastAPI."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Path, Response
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from infra.access import Access, Needs, Reach, install_access
from infra.api_docs import install_docs
from infra.http import Problem, SlashesInIds, add_schemas, documented, install_problem_handlers
from infra.key_file import KeyScope
from infra.telemetry import render_metrics
from ingest.events import Domain
from serving.lineage import ForgedRecommendationId
from serving.list_routes import FILTERED, REFUSED, filter_parameters, filters_schema, lists
from serving.messages import DomainMessage, ModelLineage, Readiness, RecommendationLineage, Session
from serving.model_work import ModelWork
from serving.overload import TurningAway
from serving.recommendations import RecommendationsApp, serves
from serving.services import Services, Use
from training.bundle import Manifest, manifest_key

DESCRIPTION = """
Ranked lists of items, made by the published model and served from memory and one read of the online store.

* Every list names its `version`, its `tier` and a `recommendation_id`: send the id back with the impressions and plays
  that follow from the list.
* **An outage of the online store is no error**: lists then come from memory, and `tier` says so.
* Items that were hidden, or whose time is over, are in no list.
* Errors are problem documents (RFC 9457) with a stable `code`.
"""
TAGS = [
    {"name": "recommendations", "description": "Lists."},
    {"name": "lineage", "description": "Why a list was what it was."},
    {"name": "domain", "description": "What is recommended."},
    {"name": "operation", "description": "Probes and metrics; they need no key."},
]


class ServingApp(FastAPI):
    """A FastAPI app whose hot path is answered before any of it runs.

    Attributes:
        recommendations: the hot path.
        models: whose turns are all taken when too many ask the model.
        turn_away: answers those who come then, before a framework has spent a millisecond on them.
    """

    recommendations: RecommendationsApp
    models: ModelWork
    turn_away: TurningAway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        if serves(scope):
            await self.recommendations(scope, receive, send)
        elif self.models.full and _asks_the_model(scope):
            await self.turn_away(send)
        else:
            await super().__call__(scope, receive, send)


RecommendationId = Annotated[str, Path(max_length=256, description="As a list, a row or a header carried it.")]

lineage = APIRouter(tags=["lineage"])
about = APIRouter(tags=["domain"])
operation = APIRouter(tags=["operation"])


def create_app(services: Services, recommendations: RecommendationsApp, access: Access) -> ServingApp:
    """The serving API.

    Raises:
        ValueError: a route does not say who may call it.
    """
    app = ServingApp(
        title="Marquee serving",
        version="1",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        lifespan=_follow_versions,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # A redirect would lead to whatever host the request names.
    )
    app.state.services = services
    app.recommendations = recommendations
    app.models, app.turn_away = services.models, TurningAway(services.metrics)
    for router in (lists, lineage, about):
        app.include_router(router, prefix="/v1")
    app.include_router(operation)
    install_docs(app)
    install_access(app, access)
    app.add_middleware(SlashesInIds)
    install_problem_handlers(app)
    add_schemas(app, Session)
    _document_domain(app, services.domain)
    return app


def _asks_the_model(scope: Scope) -> bool:
    """Whether a request that is not the hot path's is for a list."""
    if scope["type"] != "http":
        return False
    path: str = scope["path"]
    return path.startswith("/v1/") and not path.startswith("/v1/recommendations/")


@contextlib.asynccontextmanager
async def _follow_versions(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    following = asyncio.create_task(services.watch.follow())
    yield
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    services.models.close()
    await services.lists.close()


def _document_domain(app: FastAPI, domain: Domain) -> None:
    """Filters and types of events are the domain's: they stand in no route's signature."""
    build, rules = app.openapi, domain.items

    def openapi() -> dict[str, Any]:
        described = build()
        for path in FILTERED:
            parameters = described["paths"][f"/v1{path}"]["get"]["parameters"]
            there = {parameter["name"] for parameter in parameters}
            parameters += [parameter for parameter in filter_parameters(rules) if parameter["name"] not in there]
        schemas = described["components"]["schemas"]
        schemas["Session"]["properties"]["filters"] |= filters_schema(rules)
        schemas["SessionAct"]["properties"]["type"]["anyOf"][0] = {"enum": list(domain.events.types)}
        return described

    app.openapi = openapi  # type: ignore[method-assign]


# --- lineage ---------------------------------------------------------------------------------------------------------


@lineage.get(
    "/recommendations/{recommendation_id}",
    dependencies=[Depends(Needs(KeyScope.OPERATE, Reach.SHARED))],
    responses=documented({**REFUSED, 404: "`unknown_recommendation`: the id is forged, altered or mistyped."}),
)
async def get_lineage(recommendation_id: RecommendationId, services: Use) -> RecommendationLineage:
    """What a recommendation id says of the list it was given with, and of the model that made it."""
    try:
        said = services.ids.resolve(recommendation_id)
    except ForgedRecommendationId:
        detail = "No list of this platform was given this id: it is forged, altered or mistyped."
        raise Problem(404, "unknown_recommendation", detail) from None
    manifest = await _manifest(services, said.version)
    return RecommendationLineage(
        recommendation_id=recommendation_id,
        version=said.version,
        tier=said.tier.label,
        at=said.at,
        row=said.kind.label,
        position=said.position,
        model=ModelLineage.of(manifest) if manifest else None,
    )


async def _manifest(services: Services, version: int) -> Manifest | None:
    """The manifest of a version: known from serving it, or read; None where neither helps."""
    known = services.watch.manifests
    if version and version not in known:
        values = await services.lists.values([manifest_key(version)])
        with contextlib.suppress(ValidationError):
            if values:
                known[version] = Manifest.model_validate_json(values[0] or b"")
    return known.get(version)


# --- domain ----------------------------------------------------------------------------------------------------------


@about.get(
    "/domain",
    dependencies=[Depends(Needs(KeyScope.RECOMMENDATIONS, Reach.SHARED))],
    responses=documented(REFUSED),
)
async def get_domain(services: Use) -> DomainMessage:
    """What is recommended here, and which acts count."""
    return DomainMessage.of(services.domain)


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
