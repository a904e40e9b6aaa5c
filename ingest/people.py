"""The routes about one person: what that person allows, what is stored, and forgetting."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BeforeValidator

from infra.access import DENIED, Needs, Reach, not_yours
from infra.bodies import BODY_PROBLEMS, read_model
from infra.http import Problem, body_of, documented, path_id
from infra.key_file import KeyScope
from infra.keys import Caller
from ingest.events import Id
from ingest.messages import ConsentMessage, ConsentRequest, ErasureMessage, ReceiptMessage
from ingest.services import COMMON, TOO_MUCH, OptedOut, Services, Use

MAX_CONSENT_BODY = 16 * 1024
NDJSON = "application/x-ndjson"

GPC_REFUSES = (
    "The browser sends Sec-GPC: 1, which counts as a refusal, so nothing was recorded. "
    "Who wants to allow it turns the signal off for this site, and says so again."
)

UserId = Annotated[
    Id, BeforeValidator(path_id), Path(description="The person, as the events carry it.", examples=["u-42"])
]
PolicyVersion = Annotated[Id, Query(description="Of the text that the person was shown.")]
Source = Annotated[Id, Query(description="Where the person said so.", examples=["settings page"])]

_needs_own = Depends(Needs(KeyScope.PEOPLE, Reach.OWN))


def _count(services: Use, caller: Annotated[Caller, _needs_own]) -> None:
    services.intake.quotas.take_call(caller)


OWN = [_needs_own, Depends(_count)]
ANSWERS = {**COMMON, 429: TOO_MUCH}
OPTED_OUT = "`opted_out`: the request carries `Sec-GPC: 1`; nothing was recorded."

people = APIRouter()


async def _consent_request(request: Request) -> ConsentRequest:
    return await read_model(request, ConsentRequest, MAX_CONSENT_BODY)


@people.put(
    "/users/{user_id}/consent",
    tags=["consent"],
    responses=documented({**ANSWERS, **BODY_PROBLEMS, 403: f"{DENIED[403]} {OPTED_OUT}"}),
    dependencies=OWN,
    openapi_extra=body_of(ConsentRequest),
)
def put_consent(
    user_id: UserId,
    said: Annotated[ConsentRequest, Depends(_consent_request)],
    services: Use,
    opted_out: OptedOut,
) -> ReceiptMessage:
    """Record what the person allows from here on. Purposes that are not named are withdrawn."""
    if opted_out:
        raise Problem(403, "opted_out", GPC_REFUSES)
    services.room()
    return ReceiptMessage.of(services.consents.grant(user_id, said.purposes, said.policy_version, said.source))


@people.get("/users/{user_id}/consent", tags=["consent"], responses=documented(ANSWERS), dependencies=OWN)
def get_consent(user_id: UserId, services: Use) -> ConsentMessage:
    """What the person allows now, and every receipt."""
    return ConsentMessage.of(*services.consents.current(user_id))


@people.delete("/users/{user_id}/consent", tags=["consent"], responses=documented(ANSWERS), dependencies=OWN)
def delete_consent(
    user_id: UserId, services: Use, policy_version: PolicyVersion = "unversioned", source: Source = "api"
) -> ReceiptMessage:
    """Withdraw everything. When this is answered, nothing of the person is collected any more, and what was goes."""
    return ReceiptMessage.of(services.consents.withdraw(user_id, policy_version, source))


@people.get(
    "/users/{user_id}/data",
    tags=["consent"],
    response_class=StreamingResponse,
    dependencies=OWN,
    responses={
        **documented({**ANSWERS, 404: "`nothing_stored`: nothing is stored of this person."}),
        200: {"content": {NDJSON: {}}, "description": "One JSON object a line, told apart by `kind`."},
    },
)
def get_data(user_id: UserId, services: Use) -> Response:
    """All that is stored of the person: receipts, events in the lake, dead letters, history."""
    lines = services.exports.of(user_id)
    if lines is None:
        raise Problem(404, "nothing_stored", "Nothing is stored of this person.")
    return StreamingResponse(lines, media_type=NDJSON)


@people.delete("/users/{user_id}", status_code=202, tags=["consent"], responses=documented(ANSWERS), dependencies=OWN)
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


@people.get(
    "/erasures/{erasure_id}",
    tags=["consent"],
    responses=documented({**COMMON, 404: "`unknown_erasure`: there is none of that id."}),
)
def get_erasure(
    erasure_id: Annotated[Id, Path()],
    services: Use,
    caller: Annotated[Caller, Depends(Needs(KeyScope.PEOPLE, Reach.CHECKED))],
) -> ErasureMessage:
    """The receipt: per store what was removed and when, and what remains until when."""
    return _erasure(services, erasure_id, caller.user_id)


def _erasure(services: Services, erasure_id: str, user_id: str | None = None) -> ErasureMessage:
    state = services.consents.erasure(erasure_id, user_id)
    if state is None and user_id is not None:
        raise not_yours()
    if state is None:
        raise Problem(404, "unknown_erasure", "There is no erasure of that id.")
    return ErasureMessage.of(state)
