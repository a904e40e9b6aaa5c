"""What the routes of ingest share: the parts they hand over to, the browser's refusal, what they may answer."""

from collections.abc import Callable
from typing import Annotated, NamedTuple

from anyio import CapacityLimiter
from fastapi import Depends, Header, Request
from prometheus_client import CollectorRegistry

from infra.access import DENIED
from infra.bodies import BODY_PROBLEMS
from ingest.collector import Collector
from ingest.consent import Consents
from ingest.export import Exports
from ingest.quota import Intake

BUSY = "An outage or overload: nothing may be assumed; try again after `Retry-After` seconds."
TOO_MUCH = "`quota_exceeded`: the quota is used up, nothing was done. Send it again after `Retry-After` seconds."
INVALID = "The request is not of the documented form."
COMMON = {**DENIED, 422: INVALID, 503: BUSY}
WITH_BODY = {**COMMON, **BODY_PROBLEMS}

SEC_GPC = Header(
    alias="Sec-GPC", description="`1`: the person's browser refuses, whatever is on record. Pass it on.", examples=["1"]
)


class Services(NamedTuple):
    """What the edge hands over to.

    Attributes:
        collector: takes items.
        intake: takes events.
        exports: tells people what is stored of them.
        ready: whether this process may be sent traffic.
        room: raises `infra.disk.StorageLow` where the disk has no room for what is taken.
        batches: how many batches are worked on at once.
    """

    collector: Collector
    intake: Intake
    consents: Consents
    exports: Exports
    registry: CollectorRegistry
    ready: Callable[[], bool]
    room: Callable[[], None]
    batches: CapacityLimiter


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Use = Annotated[Services, Depends(_services)]


async def _opted_out(request: Request, _: Annotated[str | None, SEC_GPC] = None) -> bool:
    """Whether the person's browser refuses. Of several values, one that does is enough."""
    return "1" in (value.strip() for value in ",".join(request.headers.getlist("sec-gpc")).split(","))


OptedOut = Annotated[bool, Depends(_opted_out)]
