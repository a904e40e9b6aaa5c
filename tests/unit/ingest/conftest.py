"""Ingest as its composition root builds it, on a real Redis and a ledger in a file."""

import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import uvicorn
from prometheus_client import CollectorRegistry

from infra.access import Access
from infra.database import Ledger
from infra.event_log.redis_streams import RedisStreamsEventLog
from infra.key_file import KeyFile, KeyScope, Quota
from infra.keys import Keys
from infra.lake import Lake
from infra.online_store import OnlineStore, connect
from infra.tokens import Tokens
from ingest.api import create_app
from ingest.chain import seal_with, verify
from ingest.collector import Collector
from ingest.consent import Consents
from ingest.erasure import ErasureKeeper
from ingest.events import ConsentProjection, LogRecord, decode, now, read_domain
from ingest.export import Exports
from ingest.gate import Gate, Passage
from ingest.lander import Lander
from ingest.main import STORE_SECONDS
from ingest.quota import Floods, Intake, Quotas

ROOT = Path(__file__).parents[3]
SECRET = "a secret"
API_KEY = "a key"
LOGIN = "what the login and the platform share"


class Ingest:
    """All the parts of the ingest process; log and projection may stand on different servers."""

    def __init__(self, folder: Path, redis_url: str, log_url: str, topic: str | None = None) -> None:
        self.folder = folder
        self.store: OnlineStore = connect(redis_url, STORE_SECONDS)
        self.log = RedisStreamsEventLog(log_url, topic or uuid.uuid4().hex, partitions=2)
        self.ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
        self.ledger.create_tables()
        self.registry = CollectorRegistry()
        self.passage = Passage()
        self.consents = Consents(self.ledger, self.store, self.log, SECRET, self.passage)
        self.projection = ConsentProjection(self.store, SECRET)
        domain = read_domain(ROOT / "domain.toml")
        self.clock = 0.0
        self.gate = Gate(self.projection, guards=redis_url == log_url, clock=lambda: self.clock)
        self.collector = Collector(domain, self.gate, self.log, self.passage, self.registry)
        self.floods = Floods(2000, clock=lambda: self.clock)
        intake = Intake(self.collector, Quotas(self.store, SECRET), self.floods, self.registry)
        self.ready = threading.Event()
        self.lake = Lake(str(folder / "lake"))
        exports = Exports(self.lake, self.consents, self.store)
        self.file = KeyFile(folder / "keys.json")
        self.keys = Keys(self.file, API_KEY)
        (folder / "login").write_text(LOGIN)
        access = Access(self.keys, Tokens(folder / "login", "marquee", "", Quota.of(10)))
        self.app = create_app(
            self.collector, intake, self.consents, exports, self.registry, ready=self.ready.is_set, access=access
        )

    def key(self, *scopes: KeyScope, quota: Quota | None = None) -> str:
        """A new key, in force."""
        made = self.file.create("test", scopes, quota)
        self.keys._look()
        return made

    def token(self, user_id: str) -> str:
        """A token of this person's own."""
        return jwt.encode({"sub": user_id, "aud": "marquee", "exp": time.time() + 60}, LOGIN, "HS256")

    def rebuild(self) -> None:
        """Do what the process does once a second."""
        self.gate.compare(self.consents.rebuild)
        self.ready.set()

    def allow(self, user_id: str = "u1", *purposes: str) -> int:
        """Grant; returns the receipt's number."""
        return self.consents.grant(user_id, purposes or ("personalization",), "2026-01", "test").number

    def land(self) -> None:
        """Land all there is in the log, as one process.

        How far a log goes does not say that: one that went on above its fences ends above what it holds.
        """
        keeper = ErasureKeeper(self.ledger, self.log)
        lander = Lander(self.log, self.lake, self.projection, keeper, CollectorRegistry())
        while lander.step(timeout=0.2) or lander._consumer.assigned() != self.log.end_offsets().keys():
            pass
        lander.close()

    def verify(self) -> int:
        """Receipts of the ledger, all of them as they were recorded."""
        return verify(self.ledger, seal_with(SECRET)).number

    def logged(self) -> list[LogRecord]:
        """Every record of the log."""
        consumer = self.log.consumer(uuid.uuid4().hex)
        found, end = [], sum(self.log.end_offsets().values())
        while len(found) < end:
            found += [decode(record.value) for record in consumer.poll(1)]
        consumer.close()
        return found

    def count(self, name: str, **labels: str) -> float:
        """A metric's value; 0 where it was never counted."""
        return self.registry.get_sample_value(name, labels) or 0.0

    def close(self) -> None:
        """Give back connections."""
        self.collector.close()
        self.consents.close()
        self.log.close()
        self.store.close()
        self.ledger.close()


@pytest.fixture
def ingest(tmp_path: Path, redis_url: str, log_url: str, store: OnlineStore) -> Iterator[Ingest]:
    """Ingest with an empty ledger, its projection whole."""
    ingest = Ingest(tmp_path, redis_url, log_url)
    ingest.rebuild()
    yield ingest
    ingest.close()


@contextmanager
def serving(app: Any) -> Iterator[httpx.Client]:
    """The app behind a real server, and a client that holds the key."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        config = uvicorn.Config(app, loop="uvloop", http="httptools", log_config=None, access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.005)
        headers = {"Authorization": f"Bearer {API_KEY}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as client:
            yield client
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def client(ingest: Ingest) -> Iterator[httpx.Client]:
    """A client of the ingest API."""
    with serving(ingest.app) as client:
        yield client


@pytest.fixture(name="serving")
def serving_fixture() -> Any:
    """`serving`, for tests that build their own ingest."""
    return serving


@pytest.fixture
def new_ingest() -> type[Ingest]:
    """`Ingest`, for tests that build their own."""
    return Ingest


def event(**changes: Any) -> dict[str, Any]:
    """A valid event as a client sends it, with changes; None takes a field away."""
    fields: dict[str, Any] = {
        "event_id": uuid.uuid4().hex,
        "type": "play",
        "user_id": "u1",
        "item_id": "m1",
        "occurred_at": now().isoformat(),
    }
    return {name: value for name, value in {**fields, **changes}.items() if value is not None}


@pytest.fixture(name="event")
def event_fixture() -> Any:
    """`event`."""
    return event
