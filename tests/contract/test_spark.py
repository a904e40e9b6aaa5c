"""Training on a real Spark: `local[2]`, and a master with two workers, one of which is killed under way.

Whatever Spark makes is compared with what one process makes of the same lake, by the same rules.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest

from bench.agreement import SECRET, DataSet, by_time, compare, land, latest_small, spark_engine, stores
from bench.own_platform import free_ports
from infra.lake import Lake
from infra.model_registry import ModelRegistry
from infra.online_store import OnlineStore
from ingest.events import CONSENT_HEAD, Consent, ConsentProjection, Domain, consent_key, read_domain, subject
from tests.conftest import ROOT, require_spark
from training.bundle import Bundle, ItemTable, Manifest, list_key, load, published_parts_key
from training.engine import EngineError
from training.interactions import Interactions
from training.job import Job
from training.publish import Lists, Publisher, current
from training.recipe import Recipe
from training.snapshot import read_lake
from training.spark.session import open_session

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::FutureWarning:pyspark"),  # Of a pandas that is newer than Spark's.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # Sockets between Python and Java.
]

RECIPE = Recipe("als", {"factors": 8, "iterations": 4})
QUICK = Recipe("als", {"factors": 32, "iterations": 8, "regularization": 10.0, "alpha": 3.0})
"""`make bench-scale` and `python -m bench.agreement` have the whole one."""
PEOPLE, WITHDRAWN = 60, "u03"
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)


class World(NamedTuple):
    """A lake of sixty people with four tastes, one of whom withdrew, and the Redis that executors find."""

    folder: Path
    lake: Lake
    store: OnlineStore
    consents: ConsentProjection
    domain: Domain

    def interactions(self) -> Interactions:
        """What one process reads."""
        return read_lake(self.lake, self.consents, self.domain).histories()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    require_spark()
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(prefix="mq-") as folder,
        stores(Path(folder), patch.setenv) as store,
    ):
        lake, domain = Lake(f"{folder}/lake"), read_domain(ROOT / "domain.toml")
        land(acts(), lake, store)
        store.set(consent_key(subject(WITHDRAWN, SECRET)), Consent(1, 2, frozenset()).encode())
        store.set(CONSENT_HEAD, 2)
        yield World(Path(folder), lake, store, ConsentProjection(store, SECRET), domain)


@pytest.fixture(scope="module")
def spark(world: World) -> Iterator[Any]:
    """A session on two cores of this machine."""
    with open_session("local[2]", {"spark.sql.shuffle.partitions": "2"}) as session:
        yield session


def acts(seed: int = 0) -> pl.DataFrame:
    """user_id, item_id, type, occurred_at: some twice, some thumbs down, in the order of time."""
    random, rows = np.random.default_rng(seed), list[tuple[str, str, str, datetime]]()
    for person in range(PEOPLE):
        for item in [*random.permutation(20)[:14], *random.permutation(20)[:3]]:
            kind = str(random.choice(["play", "complete", "thumbs_down"], p=[0.7, 0.2, 0.1]))
            when = BEGIN + timedelta(minutes=int(random.integers(0, 100_000)))
            rows.append((f"u{person:02}", f"m{person % 4}-{item:02}", kind, when))
    names = dict.fromkeys(("user_id", "item_id", "type"), pl.String())
    schema: dict[str, pl.DataType] = {**names, "occurred_at": pl.Datetime("us", "UTC")}
    return pl.DataFrame(rows, schema=schema, orient="row").sort("occurred_at")


def bundle_of(world: World, interactions: Interactions) -> Bundle:
    model = RECIPE.make()
    model.fit(interactions.positives)
    snapshot = read_lake(world.lake, world.consents, world.domain).describe(interactions)
    manifest = Manifest(
        algorithm=model.name,
        parameters=model.parameters,
        domain="films",
        history_length=world.domain.history.length,
        snapshot=snapshot,
        code="c0ffee",
        run_id="r",
        trained_at=BEGIN,
        metrics={},
    )
    items = ItemTable(interactions.catalogue.items.ids, interactions.catalogue.attributes, interactions.popularity)
    return Bundle(manifest, items, model, model.arrays())


def lists_of(world: World, version: int) -> dict[str, bytes | None]:
    """person → the published list."""
    people = [f"u{person:02}" for person in range(PEOPLE)]
    return dict(zip(people, world.store.mget([list_key(version, person) for person in people]), strict=True))


def batches_written(store: OnlineStore) -> int:
    """How many batches of lists the store was ever sent."""
    return int(store.info("commandstats").get("cmdstat_eval", {"calls": 0})["calls"])


@pytest.mark.parametrize("share", [None, 0.8])
def test_executors_read_the_same_interactions_as_one_process(
    world: World, spark: Any, monkeypatch: pytest.MonkeyPatch, share: float | None
) -> None:
    reading = read_lake(world.lake, world.consents, world.domain)
    split = by_time(reading, world.domain)
    interactions, before_ms = (reading.histories(), None) if share is None else (split.train, split.cut_ms)
    seen = dict[str, Any]()

    def stop(_self: Any, rows: Any) -> None:
        seen["rows"] = rows.toArrow()
        raise EngineError("seen")

    monkeypatch.setattr("pyspark.ml.recommendation.ALS.fit", stop)
    with pytest.raises(EngineError, match="seen"):
        spark_engine(spark, world.lake, world.domain).fit(RECIPE, interactions, before_ms)
    found = pl.DataFrame(seen["rows"])
    matrix = interactions.positives
    assert found.height == matrix.nnz
    assert found.select("user", "item").is_unique().all()
    assert sorted(found.group_by("user").len()["len"]) == sorted(np.diff(matrix.indptr))
    wanted = pl.DataFrame({"item": matrix.indices, "rating": matrix.data * 3.0 - 1.0}).sort("item", "rating")
    np.testing.assert_allclose(found.sort("item", "rating")["rating"], wanted["rating"], rtol=1e-6)
    assert found.sort("item", "rating")["item"].to_list() == wanted["item"].to_list()


def test_what_spark_fits_is_as_good(world: World, spark: Any, tmp_path: Path) -> None:
    """On MovieLens where it lies beside this checkout (always in CI), else on the people of this file."""
    shared = ROOT.parent / "shared/data"
    data = DataSet("small", acts(), by_time, True)
    if (shared / "ml-latest-small").exists():
        data = latest_small(shared)
    lake = Lake(str(tmp_path / "lake"))
    land(data.rows, lake, world.store)
    engine = spark_engine(spark, lake, world.domain)
    found = compare(data, engine, lake, world.consents, world.domain, recipe=QUICK)
    assert found["agree"], found


def test_lists_are_those_of_one_process_to_the_byte(world: World, spark: Any) -> None:
    interactions = world.interactions()
    bundle = bundle_of(world, interactions)
    count = Lists(world.store, world.consents, 100, 1000).write(1, bundle, interactions)
    assert spark_engine(spark, world.lake, world.domain).write(2, bundle, interactions) == count == PEOPLE - 1
    one, other = lists_of(world, 1), lists_of(world, 2)
    assert one == other
    assert one[WITHDRAWN] is None
    assert all(one[person] for person in one if person != WITHDRAWN)


def test_a_part_that_was_published_is_not_published_again(world: World, spark: Any) -> None:
    interactions, engine = world.interactions(), spark_engine(spark, world.lake, world.domain)
    bundle = bundle_of(world, interactions)
    assert engine.write(3, bundle, interactions) == PEOPLE - 1
    written, progress = batches_written(world.store), published_parts_key(3)
    [half, _] = world.store.hkeys(progress)
    world.store.hdel(progress, half)
    assert engine.write(3, bundle, interactions) == PEOPLE - 1
    assert batches_written(world.store) == written + 1


def test_it_takes_the_best_als_that_was_found_and_searches_for_none(world: World) -> None:
    engine = spark_engine(None, world.lake, world.domain)
    found = [Recipe("ease", {}), Recipe("als", {"factors": 16}), Recipe("als", {"factors": 32})]
    assert engine.choose(found) == Recipe("als", {"factors": 16})
    assert engine.choose([Recipe("ease", {})]) == Recipe("als", {})


def test_the_job_publishes_a_version_that_nobody_can_tell_from_another(
    world: World, spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = ModelRegistry(f"sqlite:///{tmp_path / 'registry.db'}", tmp_path / "artifacts", "films")
    engine = spark_engine(spark, world.lake, world.domain)
    monkeypatch.setattr(engine, "choose", lambda _: RECIPE)
    outcome = Job(
        lake=world.lake,
        consents=world.consents,
        registry=registry,
        publisher=Publisher(world.store, world.consents, 100, 1000, engine.write),
        domain=world.domain,
        code="c0ffee",
        engine=engine,
    ).run()
    assert (outcome.result, outcome.algorithm, outcome.users_published) == ("published", "als", PEOPLE - 1)
    version = outcome.version or 0
    assert current(world.store) == registry.champion() == version
    model = load(registry.bundle(version))
    assert model.arrays["item_factors"].any(axis=1).all()
    assert registry.runs.with_ids([registry.version(version).run_id]).popitem()[1].tags["engine"] == "spark"
    lists = lists_of(world, version)
    assert all(lists[person] for person in lists if person != WITHDRAWN)


def test_a_worker_is_killed_and_nothing_is_lost_or_published_twice(world: World, spark: Any) -> None:
    spark.stop()
    interactions = world.interactions()
    bundle = bundle_of(world, interactions)
    Lists(world.store, world.consents, 100, 1000).write(4, bundle, interactions)
    written, progress, parts_wanted = batches_written(world.store), published_parts_key(5), 8
    with cluster(world.folder) as (url, workers), open_session(url, FEW) as session:
        engine = spark_engine(session, world.lake, world.domain)
        engine.least_partitions = parts_wanted

        def kill() -> None:
            while not (done := world.store.hlen(progress)):
                time.sleep(0.01)
            os.killpg(workers[0].pid, signal.SIGKILL)
            under_way.append(done < parts_wanted)

        under_way = list[bool]()
        killing = threading.Thread(target=kill, daemon=True)
        killing.start()
        assert engine.write(5, bundle, interactions) == PEOPLE - 1
        killing.join(10)
    assert under_way == [True]
    assert workers[0].wait(10) == -signal.SIGKILL
    assert lists_of(world, 5) == lists_of(world, 4)
    parts_of = world.store.hgetall(progress)
    assert len(parts_of) == parts_wanted
    assert sum(map(int, parts_of.values())) == PEOPLE - 1
    # What the killed executor had in hand may have been written and not yet noted: one part, the same bytes.
    assert parts_wanted <= batches_written(world.store) - written <= parts_wanted + 1


MASTER, WORKER = "org.apache.spark.deploy.master.Master", "org.apache.spark.deploy.worker.Worker"
FEW = {"spark.executor.memory": "512m", "spark.shuffle.io.maxRetries": "1", "spark.shuffle.io.retryWait": "1s"}


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, list["subprocess.Popen[bytes]"]]]:
    """A standalone master and two workers with a core each, on loopback: its URL, and the workers."""
    program = require_spark() / "bin/spark-class"
    port, page = free_ports(2)
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    environment["SPARK_DAEMON_MEMORY"] = "256m"
    url = f"spark://127.0.0.1:{port}"
    with ExitStack() as stack:
        output = stack.enter_context((folder / "spark.out").open("wb"))

        def start(*words: str) -> "subprocess.Popen[bytes]":
            process = subprocess.Popen(
                [str(program), *words], env=environment, stdout=output, stderr=output, start_new_session=True
            )
            stack.callback(process.wait, 30)
            stack.callback(end, process)
            return process

        here = ("--host", "127.0.0.1")
        start(MASTER, *here, "--port", str(port), "--webui-port", str(page))
        wait_until_it_listens(port)  # Who asks it before that asks again in twenty seconds.
        has = ("--cores", "1", "--memory", "1g", "--webui-port", "0", "--work-dir", str(folder / "work"))
        yield url, [start(WORKER, *here, *has, url) for _ in range(2)]


def wait_until_it_listens(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)


def test_without_spark_or_java_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with pytest.raises(EngineError, match="make spark"), open_session("local[2]"):
        pass
    monkeypatch.undo()
    require_spark()
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EngineError, match="Java 17"), open_session("local[2]"):
        pass
