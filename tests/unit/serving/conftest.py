"""A small published model of known answer, and the serving app over a real Redis."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import jwt
import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from scipy import sparse

from infra.access import Access
from infra.key_file import KeyFile, KeyScope, Quota
from infra.keys import Keys
from infra.online_store import OnlineStore, connect
from infra.tokens import Tokens
from ingest.events import Domain, read_domain
from serving.api import create_app
from serving.catalogue_watch import CatalogueWatch
from serving.cluster_lists import open_list_reader
from serving.lineage import RecommendationIds
from serving.metrics import RecommendationMetrics
from serving.model_work import ModelWork
from serving.recommendations import RecommendationsApp
from serving.services import Services
from serving.similar import SimilarItems
from serving.static_list import StaticList
from training.algorithms.item_item import ItemItem
from training.bundle import CURRENT, KEPT, Bundle, ItemTable, Manifest, Snapshot, bundle_key

KEY = "test-key"
LOGIN = "what the login and the platform share"
ITEMS = [f"m{index}" for index in range(8)]

MakeBundle = Callable[..., Bundle]
Publish = Callable[[OnlineStore, int, Bundle], None]


@pytest.fixture
def domain() -> Domain:
    """The domain that the repository ships."""
    return read_domain(Path(__file__).parents[3] / "domain.toml")


@pytest.fixture
def make_bundle() -> MakeBundle:
    """A checkerboard of 8 items: who likes an even one likes the even ones. m0 is the most popular, m7 the least."""

    def make(
        item_ids: Sequence[str] = ITEMS, watermark: Mapping[int, int] | None = None, run_id: str = "run-1"
    ) -> Bundle:
        rows = [[1, 0, 1, 0, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1, 0, 1], [1, 0, 1, 0, 0, 0, 0, 0], [0, 1, 0, 1, 0, 0, 0, 0]]
        user_items = sparse.csr_matrix(np.array(rows, np.float32))
        model = ItemItem(weighting="cosine")
        model.fit(user_items)
        snapshot = Snapshot(version=3, digest="d" * 64, watermark=dict(watermark or {}), events=12, users=4)
        manifest = Manifest(
            algorithm=model.name,
            parameters=model.parameters,
            domain="films",
            history_length=1000,
            snapshot=snapshot,
            code="c0ffee",
            run_id=run_id,
            trained_at=datetime(2026, 1, 2, tzinfo=UTC),
            metrics={"ndcg_at_10": 0.5},
        )
        titles = tuple({"title": f"Film {item_id}"} for item_id in item_ids)
        items = ItemTable(tuple(item_ids), titles, np.arange(len(item_ids), 0, -1, dtype=np.float32))
        return Bundle(manifest, items, model, model.arrays())

    return make


@pytest.fixture
def cinema() -> Bundle:
    """60 items of 6 categories, the first the largest and most popular; what is of one category is alike."""
    sizes = {"Drama": 20, "Comedy": 14, "War": 10, "Horror": 8, "Noir": 5, "Musical": 3}
    of_item = [category for category, size in sizes.items() for _ in range(size)]
    likes = [category for category in sizes for _ in range(4)]
    rows = [
        [float(of == who and (item + seat) % 4 > 0) for item, of in enumerate(of_item)]
        for seat, who in enumerate(likes)
    ]
    model = ItemItem(weighting="cosine")
    model.fit(sparse.csr_matrix(np.array(rows, np.float32)))
    snapshot = Snapshot(version=3, digest="d" * 64, watermark={0: 5}, events=12, users=24)
    manifest = Manifest(
        algorithm=model.name,
        parameters=model.parameters,
        domain="films",
        history_length=1000,
        snapshot=snapshot,
        code="c0ffee",
        run_id="run-1",
        trained_at=datetime(2026, 1, 2, tzinfo=UTC),
        metrics={},
    )
    attributes = tuple(
        {"title": f"Film {item}", "genres": [of], "age_rating": 18 if item % 2 else 6}
        for item, of in enumerate(of_item)
    )
    items = ItemTable(tuple(f"f{item:02}" for item in range(60)), attributes, np.arange(60, 0, -1, dtype=np.float32))
    return Bundle(manifest, items, model, model.arrays())


@pytest.fixture
def publish() -> Publish:
    """Publish a bundle as training does, lists aside."""

    def to(store: OnlineStore, version: int, bundle: Bundle) -> None:
        store.set(bundle_key(version), bundle.dump())
        store.sadd(KEPT, version)
        store.set(CURRENT, version)

    return to


class Serving:
    """The serving app without its background poll: a test says when to look for a version."""

    def __init__(self, redis_url: str, domain: Domain, timeout: float, folder: Path) -> None:
        registry = CollectorRegistry()
        self.metrics = RecommendationMetrics(registry)
        static = StaticList(folder / "static.json")
        self.watch = CatalogueWatch(connect(redis_url), registry, domain.items, static)
        self.lists = open_list_reader(redis_url, self.metrics, timeout)
        self.ids = RecommendationIds("secret")
        self.file = KeyFile(folder / "keys.json")
        self.keys = Keys(self.file, KEY)
        (folder / "login").write_text(LOGIN)
        access = Access(self.keys, Tokens(folder / "login", "marquee", "", Quota.of(10)))
        hot = RecommendationsApp(self.watch, self.lists, self.ids, self.metrics, access, most_waiting=1024)
        self.services = Services(
            self.watch, self.lists, self.ids, domain, self.metrics, registry, ModelWork(), SimilarItems()
        )
        self.app = create_app(self.services, hot, access)
        self._runner = asyncio.Runner()

    def key(self, *scopes: KeyScope, quota: Quota | None = None) -> str:
        """A new key, in force."""
        made = self.file.create("test", scopes, quota)
        self.keys._look()
        return made

    def token(self, user_id: str) -> str:
        """A token of this person's own."""
        return jwt.encode({"sub": user_id, "aud": "marquee", "exp": time.time() + 60}, LOGIN, "HS256")

    def get(self, path: str, **options: Any) -> httpx.Response:
        """One GET with the key."""
        return self.all([path], **options)[0]

    def all(self, paths: Sequence[str], method: str = "GET", **options: Any) -> list[httpx.Response]:
        """Requests that are all under way at once."""
        options = {"headers": {"Authorization": f"Bearer {KEY}"}} | options

        async def ask() -> list[httpx.Response]:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await asyncio.gather(*(client.request(method, path, **options) for path in paths))

        return self._runner.run(ask())

    def wait(self, seconds: float) -> None:
        """Let what runs in the background run."""
        self._runner.run(asyncio.sleep(seconds))

    def close(self) -> None:
        """Stop what runs in the background."""
        self.services.models.close()
        self._runner.run(self.lists.close())
        self._runner.close()


@pytest.fixture
def serve(domain: Domain, tmp_path: Path) -> Iterator[Callable[[str, float], Serving]]:
    """Make the serving app over the Redis of a URL."""
    made: list[Serving] = []

    def over(redis_url: str, timeout: float) -> Serving:
        made.append(Serving(redis_url, domain, timeout, tmp_path))
        return made[-1]

    yield over
    for serving in made:
        serving.close()


@pytest.fixture
def serving(serve: Callable[[str, float], Serving], redis_url: str, store: OnlineStore) -> Serving:
    """The serving app over an empty Redis."""
    return serve(redis_url, 5.0)
