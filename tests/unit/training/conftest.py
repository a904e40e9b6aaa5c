"""Small viewers with tastes, a lake that holds them, their consents, and a model registry."""

import shutil
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from infra.lake import EVENTS, TABLES, Lake, Span
from infra.model_registry import ModelRegistry
from infra.online_store import OnlineStore
from ingest.events import (
    CONSENT_HEAD,
    PERSONALIZATION,
    Consent,
    ConsentProjection,
    Domain,
    consent_key,
    read_domain,
    subject,
)
from training.job import Job
from training.publish import Publisher

SECRET = "a secret of the tests"
START = datetime(2024, 1, 1, tzinfo=UTC)

Rows = Callable[..., pl.DataFrame]
Viewers = Callable[..., pl.DataFrame]
Grant = Callable[..., None]
Land = Callable[[pl.DataFrame], None]


@pytest.fixture(scope="session")
def domain() -> Domain:
    """The domain of the repository."""
    return read_domain(Path(__file__).parents[3] / "domain.toml")


@pytest.fixture(scope="session")
def event_rows() -> Rows:
    """Rows of the lake's table of events from (user_id, item_id, minute[, type]) tuples, in the order of the log."""

    def make(acts: Iterable[tuple[str, str, int] | tuple[str, str, int, str]], receipt: int = 1) -> pl.DataFrame:
        rows = [
            {
                "event_id": f"e{offset}",
                "type": act[3] if len(act) > 3 else "play",
                "user_id": act[0],
                "item_id": act[1],
                "recommendation_id": None,
                "occurred_at": START + timedelta(minutes=act[2]),
                "accepted_at": START + timedelta(minutes=act[2]),
                "receipt": receipt,
                "partition": 0,
                "offset": offset,
                "day": (START + timedelta(minutes=act[2])).date(),
            }
            for offset, act in enumerate(acts)
        ]
        return pl.DataFrame(rows, schema=dict(TABLES[EVENTS]))

    return make


@pytest.fixture(scope="session")
def viewers(event_rows: Rows) -> Viewers:
    """Events of viewers with four tastes: each plays most items of one taste, and a popular item that all like."""

    def make(people: int = 60, seed: int = 0) -> pl.DataFrame:
        random = np.random.default_rng(seed)
        acts: list[tuple[str, str, int]] = []
        for person in range(people):
            liked = [f"m{person % 4}-{item:02}" for item in random.permutation(15)[:11]]
            acts += [(f"u{person:03}", item, int(random.integers(0, 100_000))) for item in [*liked, "m-popular"]]
        return event_rows(sorted(acts, key=lambda act: act[2]))

    return make


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake."""
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def land(lake: Lake) -> Callable[[pl.DataFrame], None]:
    """Puts rows into the lake's table of events, after those that are there."""

    def append(rows: pl.DataFrame) -> None:
        start = lake.landed(EVENTS).get(0, 0)
        moved = rows.with_columns((pl.col("offset") + start).alias("offset"))
        lake.append(EVENTS, moved, {0: Span(start, start + rows.height)})

    return append


@pytest.fixture(scope="session")
def grant_in() -> Grant:
    """Writes consents into the projection of a store: see `grant`."""

    def write(
        store: OnlineStore, people: Iterable[str], granted: int = 1, revoked: int = 0, purpose: str = PERSONALIZATION
    ) -> None:
        consent = Consent(granted, revoked, frozenset({purpose}))
        for person in people:
            store.set(consent_key(subject(person, SECRET)), consent.encode())
        store.set(CONSENT_HEAD, max(granted, revoked))

    return write


@pytest.fixture
def grant(store: OnlineStore, grant_in: Grant) -> Grant:
    """Writes consents into the projection: `grant(people)` allows, `grant(people, revoked=5)` withdraws."""
    return partial(grant_in, store)


@pytest.fixture
def consents(store: OnlineStore) -> ConsentProjection:
    """What people allow, in the test's Redis."""
    return ConsentProjection(store, SECRET)


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry's database with its tables: MLflow takes seconds to make them."""
    path = tmp_path_factory.mktemp("registry") / "registry.db"
    ModelRegistry(f"sqlite:///{path}", path.parent / "artifacts", "template")
    return path


@pytest.fixture
def registry(empty_registry: Path, tmp_path: Path) -> ModelRegistry:
    """An empty model registry."""
    shutil.copy(empty_registry, tmp_path / "registry.db")
    return ModelRegistry(f"sqlite:///{tmp_path / 'registry.db'}", tmp_path / "artifacts", "films")


@pytest.fixture
def publisher(store: OnlineStore, consents: ConsentProjection) -> Publisher:
    """Publishes lists of five."""
    return Publisher(store, consents, 5, 1000)


@pytest.fixture
def job(lake: Lake, consents: ConsentProjection, registry: ModelRegistry, publisher: Publisher, domain: Domain) -> Job:
    """The job of these stores."""
    return Job(lake=lake, consents=consents, registry=registry, publisher=publisher, domain=domain, code="c0ffee")


@pytest.fixture
def landed(viewers: Rows, land: Land, grant: Grant) -> pl.DataFrame:
    """The events of sixty viewers who all allow it, in the lake."""
    rows = viewers()
    land(rows)
    grant(rows["user_id"].unique())
    return rows
