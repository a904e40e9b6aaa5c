"""What the routes of the operator's edge share: the parts they hand over to, who may call, what they may answer."""

from collections.abc import Callable
from typing import Annotated, NamedTuple

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry

from infra.access import DENIED, Needs
from infra.key_file import KeyScope
from infra.keys import Caller
from infra.model_registry import NoSuchVersion
from infra.online_store import OnlineStore
from training.operations import Watch
from training.parts import Parts
from training.person_lists import Bundles

INVALID = "The request is not of the documented form."
BUSY = "An outage: try again after `Retry-After` seconds."
COMMON = {**DENIED, 422: INVALID, 503: BUSY}
Operator = Annotated[Caller, Depends(Needs(KeyScope.OPERATE))]
"""Goes first in a signature: nobody else's body is read."""
NEEDS = [Depends(Needs(KeyScope.OPERATE))]


class Services(NamedTuple):
    """What the edge hands over to.

    Attributes:
        parts: the adapters of the commands; None while there is no registry yet.
        store: the online store, with a short time-out.
        watch: looks at the platform.
        bundles: of versions whose lists are compared.
        registry: of this process's own metrics.
    """

    parts: Callable[[], Parts | None]
    store: OnlineStore
    watch: Watch
    bundles: Bundles
    registry: CollectorRegistry

    def some_parts(self) -> Parts:
        """The adapters.

        Raises:
            NoSuchVersion: there is no registry yet.
        """
        parts = self.parts()
        if parts is None:
            raise NoSuchVersion("there is no version yet: the first retraining makes one")
        return parts


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Use = Annotated[Services, Depends(_services)]
