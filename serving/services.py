"""What the routes of serving hand over to."""

from typing import Annotated, NamedTuple

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry

from ingest.events import Domain
from serving.catalogue_watch import CatalogueWatch
from serving.lineage import RecommendationIds
from serving.metrics import RecommendationMetrics
from serving.model_work import ModelWork
from serving.similar import SimilarItems
from serving.stored_lists import ReadsLists


class Services(NamedTuple):
    """What the edge hands over to.

    Attributes:
        watch: the catalogue; polled while the app runs.
        lists: people's stored lists; closed when the app stops.
        ids: makes and reads recommendation ids.
        domain: what acts weigh, and what items carry.
        metrics: where answers are counted.
        registry: what /metrics shows.
        models: asks models in threads; closed when the app stops.
        similar: items like an item.
    """

    watch: CatalogueWatch
    lists: ReadsLists
    ids: RecommendationIds
    domain: Domain
    metrics: RecommendationMetrics
    registry: CollectorRegistry
    models: ModelWork
    similar: SimilarItems


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Use = Annotated[Services, Depends(_services)]
