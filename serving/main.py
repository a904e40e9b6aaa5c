"""Composition root of serving: the HTTP edge and the nearline worker."""

from infra.access import open_access
from infra.event_log import open_event_log
from infra.key_file import KeysError
from infra.limited_http import run_edge
from infra.online_store import connect
from infra.process import allow_open_files, stop_event
from infra.settings import Settings, load_settings
from infra.telemetry import configure_logs, new_registry, serve_metrics
from ingest.events import ConsentProjection, Domain, read_domain
from serving.api import ServingApp, create_app
from serving.catalogue_watch import CatalogueWatch
from serving.cluster_lists import open_list_reader
from serving.direct_http import DirectHttp
from serving.folding import Folding
from serving.following import Following
from serving.histories import Histories
from serving.lineage import RecommendationIds
from serving.login import DemoLogin, install_login
from serving.metrics import NearlineMetrics, RecommendationMetrics
from serving.model_work import ModelWork
from serving.nearline import Nearline
from serving.pages import Edges, install_pages
from serving.rebuilding import Rebuilding, Source, from_the_log_alone
from serving.recommendations import RecommendationsApp
from serving.services import Services
from serving.similar import SimilarItems
from serving.static_list import StaticList
from serving.versions import Versions

BUNDLE_TIMEOUT_SECONDS = 10.0


def serve() -> None:
    """Serve recommendations over HTTP until SIGTERM or SIGINT."""
    settings = load_settings()
    configure_logs("serve", settings.log_format)
    allow_open_files()
    try:
        app = build_app(settings)
    except KeysError as error:
        raise SystemExit(f"Cannot start: {error}") from None
    run_edge(app, settings.host, settings.serving_port, DirectHttp)


def build_app(settings: Settings) -> ServingApp:
    """The serving app with its adapters. Nothing connects before the first request.

    Raises:
        KeysError: there are no keys, or they cannot be read.
    """
    registry = new_registry()
    metrics = RecommendationMetrics(registry)
    domain = read_domain(settings.domain)
    static = StaticList(settings.data / "serving/static.json")
    watch = CatalogueWatch(connect(settings.redis_url, BUNDLE_TIMEOUT_SECONDS), registry, domain.items, static)
    lists = open_list_reader(settings.redis_url, metrics)
    ids = RecommendationIds(settings.signing_secret)
    access = open_access(settings)
    services = Services(watch, lists, ids, domain, metrics, registry, ModelWork(), SimilarItems())
    hot = RecommendationsApp(watch, lists, ids, metrics, access, most_waiting=settings.serving_most_waiting)
    app = create_app(services, hot, access)
    install_pages(app, Edges(settings.host, settings.ingest_port, settings.operator_port, settings.demo_login))
    if settings.demo_login:
        login = DemoLogin(settings.login_key_file, settings.jwt_audience, settings.jwt_issuer)
        install_login(app, login, access, settings.host, settings.serving_port)
    return app


def nearline() -> None:
    """Fold what happens into histories and live lists until SIGTERM or SIGINT."""
    stop = stop_event()
    settings = load_settings()
    configure_logs("nearline", settings.log_format)
    secret, registry = settings.signing_secret, new_registry()
    serve_metrics(registry, settings.host, settings.nearline_metrics_port)
    log = open_event_log(settings.event_log_url, settings.topic, settings.partitions, fences=None)
    store = connect(settings.redis_url, BUNDLE_TIMEOUT_SECONDS)
    domain, metrics = read_domain(settings.domain), NearlineMetrics(registry)
    histories = Histories(store, settings.history_ttl_seconds, settings.list_ttl_seconds, domain.popularity)
    folding = Folding(
        log=log,
        store=store,
        histories=histories,
        projection=ConsentProjection(store, secret),
        domain=domain,
        list_length=settings.list_length,
        metrics=metrics,
    )
    Nearline(
        log=log,
        store=store,
        following=Following(store, Versions(store, registry)),
        folding=folding,
        histories=histories,
        rebuilding=Rebuilding(store, _source(settings, folding, domain)),
        metrics=metrics,
    ).run(stop)
    log.close()


def _source(settings: Settings, folding: Folding, domain: Domain) -> Source:
    """Where a lost store is rebuilt from: the lake, where this process has what reads it."""
    try:
        from infra.lake import Lake
        from serving.lake_histories import LakeHistories
    except ImportError:
        return from_the_log_alone
    return LakeHistories(Lake(settings.lake_uri), folding, domain, settings.history_ttl_seconds)
