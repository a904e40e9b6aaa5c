"""Logs and metrics, the same in every process."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from prometheus_client import Counter

from infra.telemetry import configure_logs, new_registry, render_metrics


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Put the log configuration back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """What was logged, a JSON object a line."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_record_is_a_line_of_json_that_names_its_process(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("lander", "json")
    structlog.get_logger("ingest.lander").info("landed", rows=3)
    (record,) = lines(capsys)
    assert record["process"] == "lander"
    assert record["event"] == "landed"
    assert record["rows"] == 3
    assert record["level"] == "info"
    assert str(record["timestamp"]).endswith("Z")


def test_records_of_libraries_look_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("ingest", "json")
    logging.getLogger("uvicorn.error").warning("started on %s", "8001")
    (record,) = lines(capsys)
    assert (record["process"], record["event"], record["level"]) == ("ingest", "started on 8001", "warning")


def test_an_exception_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("ingest", "json")
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger().exception("failed")
    (record,) = lines(capsys)
    assert "ValueError: broken" in str(record["exception"])


def test_a_console_gets_text(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("ingest", "console")
    structlog.get_logger().info("started")
    assert "started" in capsys.readouterr().err


def test_registries_share_nothing_and_carry_the_process() -> None:
    one, two = new_registry(), new_registry()
    Counter("landed_rows", "Rows landed.", registry=one).inc(3)
    body, content_type = render_metrics(one)
    assert b"landed_rows_total 3.0" in body
    assert b"process_resident_memory_bytes" in body
    assert content_type.startswith("text/plain")
    assert b"landed_rows" not in render_metrics(two)[0]
