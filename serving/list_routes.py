"""The routes that answer with lists, all but the hot path: they ask the model, or need more than one read."""

from functools import partial
from time import perf_counter
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BeforeValidator

from infra.access import DENIED, Needs, Reach
from infra.bodies import BODY_PROBLEMS, read_model
from infra.http import Problem, body_of, documented, path_id
from infra.key_file import KeyScope
from ingest.events import MAX_ID_BYTES, Id, ItemFilter, ItemRules
from serving.catalogue import Catalogue
from serving.explanations import explain as explained
from serving.explanations import render_explained
from serving.fallback import Ranked, ranked
from serving.filters import CATEGORY, DEFAULT_K, LONGEST, MOST_EXCLUDED, Wanted, parse
from serving.home import DEFAULT_ROWS, LONGEST_ROW, MOST_ROWS, Asked, home, render_page
from serving.messages import HomePage, Recommendations, Session, SimilarItems
from serving.people import Person, read_person
from serving.recommendations import answer
from serving.services import Services, Use
from serving.session import recommend_for
from serving.similar import LIKE_EACH

MAX_SESSION_BODY = 1024 * 1024
REFUSED = {**DENIED, 422: "A value is missing or outside its bounds."}
BUSY = {503: "`overloaded`: too many requests are waiting; try again after `Retry-After` seconds."}
USER, HOME, SIMILAR = "/users/{user_id}/recommendations", "/users/{user_id}/home", "/items/{item_id}/similar"
FILTERED = (USER, HOME, SIMILAR)
"""The routes that take the filters of the domain."""

UserId = Annotated[
    Id, BeforeValidator(path_id), Path(description="The person, as the events carry it.", examples=["u-42"])
]
ItemId = Annotated[
    Id, BeforeValidator(path_id), Path(description="The item, as `PUT /v1/items` names it.", examples=["m1"])
]
K = Annotated[int, Query(ge=1, le=LONGEST, description="Length of the list.")]
RowLength = Annotated[int, Query(ge=1, le=LONGEST_ROW, description="Most items a row.")]
Rows = Annotated[int, Query(ge=1, le=MOST_ROWS, description="Most rows.")]
Explain = Annotated[bool, Query(description="Say of each item why it is there: `because`.")]

OWN = [Depends(Needs(KeyScope.RECOMMENDATIONS, Reach.OWN))]
SHARED = [Depends(Needs(KeyScope.RECOMMENDATIONS, Reach.SHARED))]

lists = APIRouter(tags=["recommendations"])


_TEXT: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES}
_AN_ID = f"[^,]{{0,{MAX_ID_BYTES}}}"


def filter_parameters(rules: ItemRules) -> list[dict[str, Any]]:
    """The filters of a domain, as the documentation of a route has them."""
    unwanted = f"Ids of items that are not wanted, at most {MOST_EXCLUDED}, joined by commas or one a parameter."
    joined = {"type": "string", "pattern": f"^{_AN_ID}(,{_AN_ID})*$"}
    exclude = {"type": "array", "items": joined, "maxItems": MOST_EXCLUDED, "description": unwanted}
    described: dict[str, dict[str, Any]] = filters_schema(rules)["properties"] | {"exclude": exclude}
    return [
        {"name": name, "in": "query", "required": False, "description": schema["description"], "schema": schema}
        for name, schema in described.items()
    ]


def filters_schema(rules: ItemRules) -> dict[str, Any]:
    """The filters of a domain, as the documentation of a body has them."""
    keeps = {"is": "is this, or holds it", "at_most": "is at most this", "at_least": "is at least this"}
    filters = {CATEGORY: ItemFilter(attribute=rules.category, keep="is")} if rules.category else {}
    properties = {
        name: {
            **(_TEXT if one.keep == "is" else {"type": "number"}),
            "description": f"Keep items whose `{one.attribute}` {keeps[one.keep]}.",
        }
        for name, one in (filters | rules.filters).items()
    }
    return {"properties": properties, "additionalProperties": False}


# --- for a person ----------------------------------------------------------------------------------------------------


@lists.get(USER, dependencies=OWN, response_model=Recommendations, responses=documented(REFUSED | BUSY))
async def get_recommendations(
    request: Request, user_id: UserId, services: Use, k: K = DEFAULT_K, explain: Explain = False
) -> Response:
    """The person's list with their newest events in it, else the published one, else the popular one.

    Somebody whom the platform does not know gets the popular list. The headers `marquee-recommendation-id`,
    `marquee-version` and `marquee-tier` say the same as the body.
    """
    # What says nothing of `explain` never comes here: it is answered by the hot path.
    started, catalogue = perf_counter(), services.watch.current
    wanted = parse(request.scope["query_string"], services.domain.items)
    with services.models.turn():
        person = await _person(services, catalogue, user_id)
        made = ranked(catalogue, person.stored, wanted)
        work = partial(_explained, catalogue, person, made, services.domain.items)
        items = await services.models.run(work) if explain else catalogue.join(made.indices)
    services.metrics.corrupt += made.corrupt
    services.metrics.answered(made.tier, perf_counter() - started)
    return _response(answer(services.ids, catalogue.version, made.tier, items))


@lists.get(
    HOME,
    dependencies=OWN,
    response_model=HomePage,
    response_model_exclude_unset=True,
    responses=documented(REFUSED | BUSY),
)
async def get_home(
    request: Request, user_id: UserId, services: Use, k: RowLength = DEFAULT_K, rows: Rows = DEFAULT_ROWS
) -> Response:
    """The rows of a home page, each with an id of its own.

    What was begun; the top picks, spread over categories; what is like the newest items of the history; what is
    trending; and categories, for as many as there is room. Rows without enough items are left out.
    """
    catalogue, wanted = services.watch.current, _wanted(request, services, "rows")
    with services.models.turn():
        asked = Asked(wanted, rows, await _person(services, catalogue, user_id))
        page = await services.models.run(partial(_page, services, catalogue, asked))
    headers = {"cache-control": "no-store", "marquee-version": str(catalogue.version)}
    return Response(page, headers=headers, media_type="application/json")


async def _person(services: Services, catalogue: Catalogue, user_id: str) -> Person:
    if not catalogue.version:
        return Person(None, {}, 0)
    person = await read_person(services.lists, catalogue.version, user_id)
    services.metrics.corrupt += person.corrupt
    return person


def _explained(catalogue: Catalogue, person: Person, made: Ranked, rules: ItemRules) -> bytes:
    reasons = explained(catalogue, person.history, made.tier, made.indices)
    return render_explained(catalogue, made.indices, reasons, rules)


def _page(services: Services, catalogue: Catalogue, asked: Asked) -> bytes:
    return render_page(catalogue, services.ids, home(catalogue, asked, services.domain, services.similar))


# --- for a session ---------------------------------------------------------------------------------------------------


async def _session(request: Request) -> Session:
    return await read_model(request, Session, MAX_SESSION_BODY)


@lists.post(
    "/recommendations",
    dependencies=SHARED,
    response_model=Recommendations,
    responses=documented({**REFUSED, **BUSY, **BODY_PROBLEMS}),
    openapi_extra=body_of(Session),
)
async def post_recommendations(session: Annotated[Session, Depends(_session)], services: Use) -> Response:
    """A list for somebody who did not opt in: the history comes with the request, and nothing of it is kept.

    The tier is `live` when the served model knows something of the history, else `popular`.
    """
    catalogue = services.watch.current
    with services.models.turn():
        tier, items = await services.models.run(partial(recommend_for, session, catalogue, services.domain))
    return _response(answer(services.ids, catalogue.version, tier, items))


# --- for an item -----------------------------------------------------------------------------------------------------


@lists.get(
    SIMILAR,
    dependencies=SHARED,
    response_model=SimilarItems,
    responses=documented({**REFUSED, **BUSY, 404: "`unknown_item`: the served version does not know it."}),
)
async def get_similar(request: Request, item_id: ItemId, services: Use, k: K = DEFAULT_K) -> Response:
    """The items that the served model finds most like this one, without those that are hidden or have expired."""
    catalogue, wanted = services.watch.current, _wanted(request, services)
    if catalogue.bundle is None or item_id not in catalogue.bundle.item_index:
        raise Problem(404, "unknown_item", "The served version of the model does not know this item.")
    with services.models.turn():
        items = await services.models.run(partial(_similar, services, catalogue, item_id, wanted))
    return Response(b'{"version":%d,"items":[%b]}' % (catalogue.version, items), media_type="application/json")


def _similar(services: Services, catalogue: Catalogue, item_id: str, wanted: Wanted) -> bytes:
    bundle = catalogue.bundle
    assert bundle is not None
    index = bundle.item_index[item_id]
    alike = services.similar.like(bundle, index)
    found = catalogue.pick(alike, wanted)
    if len(found) < wanted.k and len(alike) == LIKE_EACH:  # most of them are hidden or filtered out
        every, _ = bundle.model.similar_items(index, len(bundle.items.item_ids))
        found = catalogue.pick(every.tolist(), wanted)
    return catalogue.join(found)


# --- what they share -------------------------------------------------------------------------------------------------


def _wanted(request: Request, services: Services, *others: str) -> Wanted:
    """What a query wants that cannot have `explain`, the parameters `others` aside."""
    given = [(name, value) for name, value in request.query_params.multi_items() if name not in others]
    if any(name == "explain" for name, _ in given):
        raise Problem(422, "invalid_request", "explain is for a person's list and for sessions: leave it out here.")
    return parse(urlencode(given).encode(), services.domain.items)


def _response(answered: tuple[list[tuple[bytes, bytes]], bytes]) -> Response:
    headers, body = answered
    return Response(body, headers={name.decode(): value.decode() for name, value in headers})
