"""What an operator sees of the platform: as much of it as answers."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import polars as pl
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from infra.lake import Lake
from infra.online_store import OnlineStore
from infra.telemetry import LogLag, render_metrics
from training import operations
from training.bundle import CURRENT, WRITTEN, history_key, list_key, live_key
from training.messages import BytesAPerson, Lag, Process, Sample
from training.operations import PEOPLE_SAMPLED, Watch, bytes_a_person, scrape


@contextmanager
def answering(content: bytes, status: int = 200) -> Iterator[str]:
    """A server that answers everything with the same; its address."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def silent() -> Iterator[str]:
    """A server that takes connections and says nothing, as a process that hangs; its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def lagging(group: str, lag: dict[int, int]) -> bytes:
    """What a process shows whose group is so many records behind, by partition."""
    registry = CollectorRegistry()
    LogLag(group, registry).show(lag)
    return render_metrics(registry)[0]


def test_samples_are_told_by_process_with_their_labels() -> None:
    registry = CollectorRegistry()
    Counter("marquee_events", "…", ["verdict"], registry=registry).labels("accepted").inc(7)
    Histogram("marquee_seconds", "…", buckets=(1,), registry=registry).observe(0.5)
    Gauge("marquee_broken", "…", registry=registry).set(float("nan"))
    Gauge("python_info", "…", registry=registry).set(1)
    with answering(render_metrics(registry)[0]) as url:
        found = scrape("ingest", url)
    assert found is not None
    told = {(one.process, one.name, *one.labels.values()): one.value for one in found}
    assert told == {
        ("ingest", "marquee_events_total", "accepted"): 7,
        ("ingest", "marquee_seconds_bucket", "1.0"): 1,
        ("ingest", "marquee_seconds_bucket", "+Inf"): 1,
        ("ingest", "marquee_seconds_count"): 1,
        ("ingest", "marquee_seconds_sum"): 0.5,
    }


@pytest.mark.parametrize(("content", "status"), [(b"<html>", 200), (b"\xff", 200), (b"a 1\n", 503)])
def test_what_answers_anything_else_does_not_answer(content: bytes, status: int) -> None:
    with answering(content, status) as url:
        assert scrape("ingest", url) is None


def test_what_is_down_or_hangs_holds_nobody_up_and_the_rest_is_told(
    store: OnlineStore, lake: Lake, land: Callable[[pl.DataFrame], None], viewers: Callable[..., pl.DataFrame]
) -> None:
    rows = viewers()
    land(rows)
    with answering(lagging("lander", {0: 3, 1: 4})) as lander, silent() as hanging, answering(b"") as ingest:
        down = "http://127.0.0.1:1"
        processes = {"ingest": ingest, "lander": lander, "nearline": hanging, "trainer": down, "serving": down}
        watch = Watch(processes, store, lake)
        found = watch.look()
        watch.close()
    answers = {"ingest": True, "lander": True, "nearline": False, "trainer": False, "serving": False}
    assert found.processes == [Process(name=name, answers=there) for name, there in answers.items()]
    assert found.lag == Lag(lander=7, nearline=None, trainer=None)
    assert found.samples[0] == Sample(
        process="lander", name="marquee_log_lag", labels={"group": "lander", "partition": "0"}, value=3
    )
    assert found.landed_rows == rows.height
    assert found.redis is not None
    assert (found.redis.people, found.redis.bytes_a_person) == (0, None)
    assert found.redis.used_bytes > 0


def test_rows_are_counted_and_people_sampled_once_in_a_while(
    store: OnlineStore, lake: Lake, land: Callable[[pl.DataFrame], None], viewers: Callable[..., pl.DataFrame]
) -> None:
    """However many operators look."""
    watch = Watch({"serving": "http://127.0.0.1:1"}, store, lake)
    first = watch.look()
    land(viewers())
    store.set(history_key("u1"), b"x")
    store.zadd(WRITTEN, {"u1": 1})
    second = watch.look()
    watch.close()
    assert (first.landed_rows, second.landed_rows) == (0, 0)
    assert first.redis is not None
    assert second.redis is not None
    assert (second.redis.people, second.redis.bytes_a_person) == (1, None)


def test_what_a_person_costs_is_the_mean_over_people(store: OnlineStore) -> None:
    assert bytes_a_person(store) is None
    store.set(CURRENT, 2)
    store.set(list_key(1, "old"), b"x" * 5000)
    for user in ("u:1", "u2"):
        store.set(list_key(2, user), b"x" * 400)
    store.set(live_key(2, "u:1"), b"x" * 400)
    store.set(history_key("u:1"), b"x" * 1000)
    store.set(history_key("u3"), b"x" * 1000)
    size = {key: store.memory_usage(key) or 0 for key in (list_key(2, "u2"), live_key(2, "u:1"), history_key("u3"))}
    found = bytes_a_person(store)
    assert found is not None
    assert found.list == pytest.approx(2 / 3 * size[list_key(2, "u2")], rel=0.1)
    assert found.live == pytest.approx(1 / 3 * size[live_key(2, "u:1")], rel=0.1)
    assert found.history == pytest.approx(2 / 3 * size[history_key("u3")], rel=0.1)
    assert found.total == pytest.approx(found.list + found.live + found.history)


@pytest.mark.one_redis
def test_the_sample_does_not_grow_with_the_store(store: OnlineStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.set(CURRENT, 1)
    store.mset({list_key(1, f"u{number}"): b"x" for number in range(5000)})
    monkeypatch.setattr(operations, "SCAN_COUNT", 100)
    store.config_resetstat()
    found = bytes_a_person(store)
    assert isinstance(found, BytesAPerson)
    calls = {name: figures["calls"] for name, figures in store.info("commandstats").items()}
    assert calls["cmdstat_memory|usage"] == 3 * PEOPLE_SAMPLED
    assert calls["cmdstat_scan"] <= PEOPLE_SAMPLED * 2 // 100 + 1


def test_a_store_without_people_is_not_searched_to_its_end(store: OnlineStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.mset({f"{{consent}}:{number}": b"x" for number in range(3000)})
    monkeypatch.setattr(operations, "SCAN_COUNT", 10)
    store.config_resetstat()
    assert bytes_a_person(store) is None
    assert 0 < store.info("commandstats")["cmdstat_scan"]["calls"] <= operations.MOST_SCANS
