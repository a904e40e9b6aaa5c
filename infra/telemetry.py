"""Logs and metrics, the same in every process: structured logs on stderr, Prometheus on /metrics."""

import logging
import sys
from collections.abc import Mapping

import structlog
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Gauge,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
    start_http_server,
)


def configure_logs(process: str, log_format: str = "") -> None:
    """Send structlog's and the standard library's records to stderr: JSON lines, or coloured text on a terminal.

    Args:
        process: bound to every record as `process`.
        log_format: "json", "console", or "" to choose by whether stderr is a terminal.
    """
    console = log_format == "console" or (not log_format and sys.stderr.isatty())
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[structlog.types.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    for chatty in ("kafka", "mlflow", "alembic", "httpx", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(process=process)


class LogLag:
    """The metric `marquee_log_lag`: records of the log that a group has not read yet, by partition of this process.

    Args:
        group: the consumer group.
        registry: takes the metric.
    """

    def __init__(self, group: str, registry: CollectorRegistry) -> None:
        text = "Records of the log that a group has not read yet."
        self._lag = Gauge("marquee_log_lag", text, ["group", "partition"], registry=registry)
        self._group = group

    def show(self, lag: Mapping[int, int]) -> None:
        """Show partition → records; what is no longer ours is no longer shown."""
        self._lag.clear()
        for partition, records in lag.items():
            self._lag.labels(self._group, partition).set(records)


def new_registry() -> CollectorRegistry:
    """A registry of metrics that already carries the process's memory, CPU and Python version."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


def render_metrics(registry: CollectorRegistry) -> tuple[bytes, str]:
    """Body and content type of an answer to GET /metrics."""
    return generate_latest(registry), CONTENT_TYPE_LATEST


def serve_metrics(registry: CollectorRegistry, host: str, port: int) -> None:
    """Serve /metrics from a daemon thread, for processes that have no HTTP edge of their own.

    Raises:
        OSError: the port is taken.
    """
    start_http_server(port, addr=host, registry=registry)
