"""Composition root of serving: the HTTP edge and the nearline worker."""

import uvicorn

from infra.event_log import open_event_log
from infra.online_store import connect, connect_async
from infra.process import stop_event
from infra.settings import Settings, load_settings
from infra.telemetry import configure_logs, new_registry, serve_metrics
from ingest.events import ConsentProjection, read_domain
from serving.api import Services, ServingApp, create_app
from serving.catalogue import CatalogueWatch
from serving.folding import Folding
from serving.histories import Histories
from serving.lineage import RecommendationIds
from serving.metrics import NearlineMetrics, RecommendationMetrics
from serving.nearline import Nearline
from serving.recommendations import RecommendationsApp
from serving.stored_lists import TIMEOUT_SECONDS, ListReader
from serving.versions import Versions

BUNDLE_TIMEOUT_SECONDS = 10.0
SHUTDOWN_SECONDS = 5


def serve() -> None:
    """Serve recommendations over HTTP until SIGTERM or SIGINT."""
    settings = load_settings()
    configure_logs("serve", settings.log_format)
    uvicorn.run(
        build_app(settings),
        host=settings.host,
        port=settings.serving_port,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def build_app(settings: Settings) -> ServingApp:
    """The serving app with its adapters. Nothing connects before the first request."""
    registry = new_registry()
    metrics = RecommendationMetrics(registry)
    watch = CatalogueWatch(connect(settings.redis_url, BUNDLE_TIMEOUT_SECONDS), registry)
    lists = ListReader(connect_async(settings.redis_url, TIMEOUT_SECONDS), metrics)
    ids = RecommendationIds(settings.secret.get_secret_value())
    api_key = settings.api_key.get_secret_value()
    services = Services(watch, lists, ids, read_domain(settings.domain), registry)
    return create_app(services, RecommendationsApp(watch, lists, ids, metrics, api_key), api_key)


def nearline() -> None:
    """Fold what happens into histories and live lists until SIGTERM or SIGINT."""
    stop = stop_event()
    settings = load_settings()
    configure_logs("nearline", settings.log_format)
    registry = new_registry()
    serve_metrics(registry, settings.host, settings.nearline_metrics_port)
    log = open_event_log(settings.event_log_url, settings.topic, settings.partitions)
    store = connect(settings.redis_url, BUNDLE_TIMEOUT_SECONDS)
    metrics = NearlineMetrics(registry)
    folding = Folding(
        log=log,
        store=store,
        histories=Histories(store, settings.history_ttl_seconds, settings.list_ttl_seconds),
        projection=ConsentProjection(store, settings.secret.get_secret_value()),
        domain=read_domain(settings.domain),
        list_length=settings.list_length,
        metrics=metrics,
    )
    Nearline(log, store, Versions(store, registry), folding, metrics).run(stop)
    log.close()
