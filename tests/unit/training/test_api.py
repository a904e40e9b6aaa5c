"""The operator's API over a real Redis, registry and lake: what it tells, what it changes, what it refuses and how."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
from prometheus_client import CollectorRegistry
from scipy import sparse

from infra.access import Access, Reach, decisions
from infra.http import PROBLEM_JSON
from infra.key_file import KeyFile, KeyScope
from infra.keys import Keys
from infra.lake import Lake
from infra.model_registry import PURGED, ModelRegistry
from infra.online_store import OnlineStore, connect
from infra.settings import Settings, load_settings
from training.algorithms.popularity import Popularity
from training.api import create_app
from training.bundle import (
    CURRENT,
    Bundle,
    Interaction,
    ItemTable,
    Manifest,
    Snapshot,
    bundle_key,
    encode_history,
    history_key,
    list_key,
)
from training.lock import one_at_a_time
from training.operations import Watch
from training.parts import OpenedParts
from training.person_lists import Bundles
from training.progress import taken_up, tell_of_schedule
from training.publish import current
from training.run_record import TRAINING
from training.services import Services
from training.verdict import Verdict, as_tags

Rows = Callable[..., pl.DataFrame]
ITEMS = tuple(f"m{number}" for number in range(9))
AT = datetime(2026, 3, 1, tzinfo=UTC)


class Edge:
    """The operator's API with all its parts."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.file = KeyFile(settings.keys_file)
        self.key = self.file.create("ada of operations", [KeyScope.OPERATE])
        self.parts = OpenedParts(settings)
        self.store = connect(settings.redis_url, 0.5)
        self.watch = Watch(settings.processes, self.store, Lake(settings.lake_uri))
        services = Services(self.parts, self.store, self.watch, Bundles(), CollectorRegistry())
        self.app = create_app(services, Access(Keys(self.file)))

    def call(self, method: str, path: str, key: str | None = None, **said: Any) -> httpx.Response:
        """What it answers."""

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            headers = {"Authorization": f"Bearer {self.key if key is None else key}"}
            async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
                return await client.request(method, path, **said)

        return asyncio.run(ask())

    def get(self, path: str) -> Any:
        """The JSON of what has to be answered."""
        answer = self.call("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any) -> httpx.Response:
        """What it answers to a body."""
        return self.call("POST", path, json=body)

    def close(self) -> None:
        """Give back connections."""
        self.watch.close()
        self.store.close()
        self.parts.close()


@pytest.fixture
def open_edge(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Edge]]:
    """Makes the API of a platform in the test's folder, with settings."""
    opened: list[Edge] = []

    def make(**settings: str) -> Edge:
        chosen = {"DATA": str(tmp_path), "REDIS": redis_url, "SECRET": "a secret of the tests", **settings}
        chosen.setdefault("DOMAIN", str(Path(__file__).parents[3] / "domain.toml"))
        for name, value in chosen.items():
            monkeypatch.setenv(f"MARQUEE_{name}", value)
        opened.append(Edge(load_settings()))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture
def edge(open_edge: Callable[..., Edge], store: OnlineStore) -> Edge:
    """The API of a platform whose registry has not been made."""
    del store
    return open_edge()


def popular_first(items: tuple[str, ...]) -> Bundle:
    """A version for which the first of these items is the most popular one."""
    order = [items.index(item) for item in sorted(items)]
    popularity = np.array([len(items) - place for place in order], np.float32)
    model = Popularity()
    model.fit(sparse.csr_matrix(np.tril(np.ones((len(items), len(items)), np.float32))[:, order]))
    manifest = Manifest(
        algorithm=model.name,
        parameters=model.parameters,
        domain="films",
        history_length=100,
        snapshot=Snapshot(version=1, digest="d", watermark={}, events=1, users=1),
        code="unknown",
        run_id="r",
        trained_at=AT,
        metrics={},
    )
    attributes = tuple({"title": item.upper()} for item in sorted(items))
    return Bundle(manifest, ItemTable(tuple(sorted(items)), attributes, popularity), model, model.arrays())


@pytest.fixture(scope="module")
def three_versions(empty_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry's database with three versions: the gate let 1 and 2 pass, and refused 3."""
    path = shutil.copy(empty_registry, tmp_path_factory.mktemp("versions") / "registry.db")
    registry = ModelRegistry(f"sqlite:///{path}", path.parent / "artifacts", "films")
    for number in range(3):
        said = Verdict("popularity", number < 2, f"{number} % better")
        tags = {"algorithm": "popularity", "recipe": "popularity", "verdict": "passed" if number < 2 else "refused"}
        tags |= {"reasons": str(said)} | as_tags("gate", [said])
        with registry.runs.run(TRAINING, {}) as run_id:
            registry.runs.log(run_id, metrics={"ndcg_at_10": 0.25 + number / 100, "broken": float("nan")})
            registry.register(run_id, popular_first((*ITEMS[number:], *ITEMS[:number])).dump(), tags)
    return path


@pytest.fixture
def versions(three_versions: Path, tmp_path: Path) -> ModelRegistry:
    """A registry of the test's own with the three versions."""
    path = shutil.copy(three_versions, tmp_path / "registry.db")
    return ModelRegistry(f"sqlite:///{path}", tmp_path / "artifacts", "films")


@pytest.fixture
def served(versions: ModelRegistry, store: OnlineStore) -> OnlineStore:
    """Versions 1 to 3 in the store, 2 of them served."""
    for number in (1, 2, 3):
        store.set(bundle_key(number), versions.bundle(number))
    store.set(CURRENT, 2)
    versions.promote(2)
    return store


def refused(answer: httpx.Response, status: int, code: str) -> str:
    """The detail of a problem."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM_JSON), answer.text
    assert (answer.json()["status"], answer.json()["code"]) == (status, code)
    assert (status == 503) == ("retry-after" in answer.headers)
    return str(answer.json()["detail"])


# --- who may call ----------------------------------------------------------------------------------------------------


def test_every_route_is_an_operators_alone(edge: Edge) -> None:
    found = decisions(edge.app)
    assert len(found) == 7
    assert {(needs.scope, needs.reach) for needs in found.values()} == {(KeyScope.OPERATE, Reach.CLOSED)}
    others = edge.file.create("shop", [scope for scope in KeyScope if scope is not KeyScope.OPERATE])
    app = Edge(edge.settings)
    for method, path in found:
        at = path.format(version=1, user_id="u1")
        refused(app.call(method, at, key=""), 401, "unauthorized")
        refused(app.call(method, at, key=others), 403, "scope_missing")
    app.close()


# --- versions --------------------------------------------------------------------------------------------------------


def test_before_the_first_version_there_are_none_and_asking_makes_no_registry(edge: Edge) -> None:
    assert edge.get("/v1/models") == {"served": None, "models": []}
    refused(edge.post("/v1/models/1/promotion", {}), 404, "unknown_version")
    refused(edge.post("/v1/rollback", {}), 404, "unknown_version")
    assert edge.get("/v1/users/u1/lists") == {"user_id": "u1", "history": [], "lists": []}
    assert not (edge.settings.data / "registry.db").exists()


def test_versions_are_listed_with_figures_verdicts_and_who_promoted_them(edge: Edge, served: OnlineStore) -> None:
    served.delete(bundle_key(1))
    found = edge.get("/v1/models")
    assert found["served"] == 2
    assert [(one["version"], one["served"], one["kept"]) for one in found["models"]] == [
        (3, False, True),
        (2, True, True),
        (1, False, False),
    ]
    three = found["models"][0]
    assert three["gate"] == {
        "passed": False,
        "verdicts": [{"check": "popularity", "passed": False, "reason": "2 % better"}],
    }
    assert three["metrics"] == {"ndcg_at_10": 0.27}
    assert (three["algorithm"], three["recipe"], three["promotion"]) == ("popularity", "popularity", None)
    assert found["models"][1]["gate"]["passed"] is True
    assert [one["version"] for one in edge.get("/v1/models?limit=1")["models"]] == [3]


def test_a_refused_version_is_served_by_force_only_and_who_said_so_is_kept(
    edge: Edge, served: OnlineStore, versions: ModelRegistry
) -> None:
    assert "2 % better" in refused(edge.post("/v1/models/3/promotion", {}), 409, "gate_refused")
    for reason in ("", "  "):
        refused(edge.post("/v1/models/3/promotion", {"force": True, "reason": reason}), 422, "invalid_request")
    assert current(served) == versions.champion() == 2

    answer = edge.post("/v1/models/3/promotion", {"force": True, "reason": "the hold-out is broken"})
    assert (answer.status_code, answer.json()) == (200, {"served": 3})
    assert current(served) == versions.champion() == 3
    promoted = edge.get("/v1/models")["models"][0]["promotion"]
    assert datetime.fromisoformat(promoted.pop("at")) <= datetime.now(UTC)
    assert promoted == {"by": "ada of operations", "reason": "the hold-out is broken", "forced": True}


def test_back_and_forward_again(edge: Edge, served: OnlineStore, versions: ModelRegistry) -> None:
    assert edge.post("/v1/rollback", {"version": None}).json() == {"served": 1}
    assert current(served) == versions.champion() == 1
    refused(edge.post("/v1/rollback", {}), 409, "nothing_to_roll_back_to")
    assert edge.post("/v1/rollback", {"version": 2}).json() == {"served": 2}
    refused(edge.post("/v1/rollback", {"version": 3}), 409, "gate_refused")
    refused(edge.post("/v1/rollback", {"version": 99}), 404, "unknown_version")
    assert current(served) == versions.champion() == 2


def test_a_version_that_left_the_store_is_published_again_with_todays_histories(
    edge: Edge, served: OnlineStore, versions: ModelRegistry, landed: pl.DataFrame
) -> None:
    del landed
    served.delete(bundle_key(1))
    assert edge.post("/v1/models/1/promotion", {}).json() == {"served": 1}
    assert current(served) == versions.champion() == 1
    assert served.exists(list_key(1, "u001"))


def test_without_a_lake_nothing_can_be_published_again(edge: Edge, served: OnlineStore) -> None:
    served.delete(bundle_key(1))
    refused(edge.post("/v1/models/1/promotion", {}), 409, "nothing_landed")
    assert current(served) == 2


def test_what_was_purged_is_neither_served_nor_shown(edge: Edge, served: OnlineStore, versions: ModelRegistry) -> None:
    assert edge.get("/v1/users/u1/lists?version=1")["lists"]
    versions.tag(1, {PURGED: "it knew who was erased"})
    for answer in (edge.post("/v1/models/1/promotion", {}), edge.call("GET", "/v1/users/u1/lists?version=1")):
        assert "it knew who was erased" in refused(answer, 409, "version_purged")
    assert edge.get("/v1/models")["models"][2]["purged"] is True
    assert current(served) == 2


def test_one_change_at_a_time(edge: Edge, served: OnlineStore) -> None:
    """Whoever trains or flips, here or on the command line."""
    with one_at_a_time(served):
        refused(edge.post("/v1/models/1/promotion", {}), 409, "already_training")
        refused(edge.post("/v1/rollback", {}), 409, "already_training")
        assert current(served) == 2
    assert edge.post("/v1/rollback", {}).json() == {"served": 1}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/models/1/promotion", [1]),
        ("/v1/models/1/promotion", {"force": True, "reason": "x" * 1001}),
        ("/v1/models/1/promotion", {"reason": "a\u0000b"}),
        ("/v1/models/1/promotion", {"who": "me"}),
        ("/v1/models/0/promotion", {}),
        (f"/v1/models/{2**31}/promotion", {}),
        ("/v1/models/one/promotion", {}),
        ("/v1/rollback", {"version": 0}),
        ("/v1/rollback", {"version": 2**31}),
        ("/v1/rollback", {"version": "1"}),
        ("/v1/models/1/promotion", {"force": 0}),
    ],
)
def test_what_is_not_of_the_documented_form_is_refused(edge: Edge, path: str, body: Any) -> None:
    refused(edge.post(path, body), 422, "invalid_request")


def test_a_body_is_read_with_limits(edge: Edge) -> None:
    refused(edge.call("POST", "/v1/rollback", content=b"{"), 400, "malformed_json")
    refused(edge.call("POST", "/v1/rollback", content=b" " * (16 * 1024 + 1)), 413, "too_large")


# --- lists -----------------------------------------------------------------------------------------------------------


def test_versions_are_asked_with_the_same_history(edge: Edge, served: OnlineStore) -> None:
    history = {"m4": Interaction(2, 1.0), "m0": Interaction(1, 1.0), "gone": Interaction(3, 1.0)}
    served.set(history_key("u/1"), encode_history(history))
    found = edge.get("/v1/users/u%2F1/lists?version=1&version=3&version=1&k=3")
    assert found["user_id"] == "u/1"
    assert found["history"] == [{"item_id": "gone"}, {"item_id": "m4", "title": "M4"}, {"item_id": "m0", "title": "M0"}]
    assert [(one["version"], one["served"]) for one in found["lists"]] == [(1, False), (3, False)]
    shown = [[item["item_id"] for item in one["items"]] for one in found["lists"]]
    assert shown == [["m1", "m2", "m3"], ["m2", "m3", "m5"]]
    assert found["lists"][0]["items"][0] == {"item_id": "m1", "title": "M1"}


def test_of_somebody_unknown_the_popular_list_of_the_version_that_is_served(edge: Edge, served: OnlineStore) -> None:
    del served
    [one] = edge.get("/v1/users/nobody/lists?k=2")["lists"]
    assert (one["version"], one["served"]) == (2, True)
    assert [item["item_id"] for item in one["items"]] == ["m1", "m2"]


@pytest.mark.usefixtures("served")
def test_lists_that_cannot_be_made_are_refused(edge: Edge) -> None:
    refused(edge.call("GET", "/v1/users/u1/lists?version=9"), 404, "unknown_version")
    for wrong in ("version=0", "k=0", "k=101", "version=1&version=1&version=1&version=1&version=1"):
        refused(edge.call("GET", f"/v1/users/u1/lists?{wrong}"), 422, "invalid_request")


# --- training --------------------------------------------------------------------------------------------------------


def test_a_run_is_asked_for_once_however_many_ask(edge: Edge, store: OnlineStore) -> None:
    assert edge.get("/v1/training") == {"state": "idle", "schedule": False, "run": None, "last": None}
    refused(edge.call("POST", "/v1/training"), 409, "no_schedule")
    assert not taken_up(store)
    tell_of_schedule(store)
    for _ in range(2):
        answer = edge.call("POST", "/v1/training")
        assert (answer.status_code, answer.json()["state"]) == (202, "asked")
    assert edge.get("/v1/training")["state"] == "asked"
    assert (taken_up(store), taken_up(store)) == (True, False)


# --- outages ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("versions")
def test_without_the_online_store_what_can_be_told_is_told(open_edge: Callable[..., Edge], tmp_path: Path) -> None:
    edge = open_edge(REDIS=f"unix://{tmp_path / 'nobody.sock'}")
    for method, path in [("GET", "/v1/models"), ("GET", "/v1/training"), ("POST", "/v1/training")]:
        refused(edge.call(method, path), 503, "store_unavailable")
    refused(edge.call("GET", "/v1/users/u1/lists"), 503, "store_unavailable")
    refused(edge.post("/v1/rollback", {}), 503, "store_unavailable")
    found = edge.get("/v1/operations")
    assert (found["redis"], found["landed_rows"]) == (None, 0)


@pytest.mark.usefixtures("store")
def test_without_the_registry_what_can_be_told_is_told(open_edge: Callable[..., Edge], tmp_path: Path) -> None:
    edge = open_edge()
    (tmp_path / "registry.db").write_bytes(b"no database" * 1000)
    refused(edge.call("GET", "/v1/models"), 503, "registry_unavailable")
    refused(edge.post("/v1/models/1/promotion", {}), 503, "registry_unavailable")
    assert edge.get("/v1/training")["state"] == "idle"
    assert edge.get("/v1/operations")["redis"]["people"] == 0


@pytest.mark.usefixtures("store")
def test_without_the_lake_what_can_be_told_is_told(edge: Edge, tmp_path: Path) -> None:
    (tmp_path / "lake/events/_delta_log").mkdir(parents=True)
    (tmp_path / "lake/events/_delta_log/00000000000000000000.json").write_text("no log")
    found = edge.get("/v1/operations")
    assert found["landed_rows"] is None
    assert found["redis"]["used_bytes"] > 0


def test_probes_and_metrics_need_no_key(edge: Edge) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"):
        assert edge.call("GET", path, key="").status_code == 200
