"""The whole platform, as real processes: the demo's own checks are the assertions, its summary is what is compared."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
import sqlalchemy

from infra.online_store import OnlineStore
from workshop.invented import generate

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
PROCESSES = ("redis", "land", "ingest", "nearline", "train", "serve")
USERS, ITEMS, ACTS = 600, 400, 60_000
QUICK = {"MARQUEE_TUNE_SECONDS": "0"}
"""No search for a recipe: `make demo` has one."""
REAL = ROOT.parent / "shared/data/ml-latest-small"
"""MovieLens, where it lies beside the checkout."""


@pytest.fixture(scope="module")
def movielens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of invented ratings in the layout of ml-latest-small."""
    folder = tmp_path_factory.mktemp("ml")
    dataset = generate(USERS, ITEMS, ACTS, seed=7)
    users = {user: number for number, user in enumerate(dataset.users, 1)}
    items = {item.item_id: number for number, item in enumerate(dataset.items, 1)}
    ratings = [
        f"{users[user]},{items[item]},{4.0 if kind == 'thumbs_up' else 3.0},{int(at.timestamp())}"
        for user, item, kind, at in dataset.acts.select("user_id", "item_id", "type", "occurred_at").iter_rows()
    ]
    titles = [f'{items[item.item_id]},"{item.attributes["title"]}",Drama' for item in dataset.items]
    (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *ratings]) + "\n")
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *titles]) + "\n")
    return folder


def test_the_loop_holds_on_redis_streams_and_sqlite_whatever_process_is_killed(movielens: Path, tmp_path: Path) -> None:
    """Each process is killed once while events come in; no acknowledged event is lost or landed twice."""
    demo = start_demo(movielens, tmp_path / "demo", {})
    killed = kill_each(demo.pid, PROCESSES, tmp_path / "demo")
    assert not (tmp_path / "demo" / "registry.db").exists(), "the traffic was over before the last kill"
    summary = finish(demo, tmp_path / "demo")
    assert killed == set(PROCESSES)
    assert summary["events_accepted"] + summary["events_refused"] == ACTS + 40
    check(summary)


@pytest.mark.kafka
@pytest.mark.postgres
def test_the_loop_holds_on_kafka_redis_and_postgresql(
    movielens: Path, tmp_path: Path, kafka_url: str, postgres_url: str, redis_url: str, store: OnlineStore
) -> None:
    """The same demo, the parts chosen by URL alone; on real ratings where there are any."""
    urls = {
        "MARQUEE_EVENT_LOG": kafka_url,
        "MARQUEE_TOPIC": f"e2e-{uuid4()}",
        "MARQUEE_REDIS": redis_url,
        "MARQUEE_DATABASE": postgres_url,
        "MARQUEE_REGISTRY": postgres_url,
    }
    demo = start_demo(REAL if REAL.is_dir() else movielens, tmp_path / "demo", urls)
    check(finish(demo, tmp_path / "demo"))
    assert places_in_postgres(postgres_url, "c0ffee-not-there") == 0
    assert places_in_postgres(postgres_url, "gate.popularity") > 0, "the search finds what is there"
    assert places_in_postgres(postgres_url, "the-forgotten-viewer") == 0, "ledger and registry know no person"


def places_in_postgres(url: str, needle: str) -> int:
    """Rows of any table, and files of the write-ahead log, that have it in them."""
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:

        def count(query: str) -> int:
            return int(connection.execute(sqlalchemy.text(query), {"needle": needle}).scalar_one())

        tables = connection.execute(sqlalchemy.text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
        rows = sum(count(f'SELECT count(*) FROM "{t}" AS t WHERE strpos(t::text, :needle) > 0') for (t,) in tables)
        segments = (
            "SELECT count(*) FROM pg_ls_waldir() AS w WHERE name ~ '^[0-9A-F]{24}$' AND "
            "position(convert_to(:needle, 'UTF8') IN pg_read_binary_file('pg_wal/' || w.name)) > 0"
        )
        reads_files = count("SELECT count(*) FROM pg_roles WHERE rolname = current_user AND rolsuper AND :needle <> ''")
        found = rows + (count(segments) if reads_files else 0)
    engine.dispose()
    return found


def start_demo(data: Path, folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """`marquee demo` in a process of its own, its output beside the platform's folder."""
    command = [sys.executable, "-m", "marquee", "demo", "--data", str(data), "--folder", str(folder)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MARQUEE_")}
    with (folder.parent / "demo.out").open("wb") as output:
        return subprocess.Popen(
            command, cwd=ROOT, env={**clean, **QUICK, **environment}, stdout=output, stderr=subprocess.STDOUT
        )


def kill_each(pid: int, names: tuple[str, ...], folder: Path) -> set[str]:
    """Kill -9 each of the platform's processes once, while the demo's traffic runs."""
    wait_for_traffic(folder)
    killed = set()
    for name in names:
        for process in psutil.Process(pid).children(recursive=True):
            if is_named(process, name):
                process.kill()
                killed.add(name)
                break
        time.sleep(0.5)
    return killed


def is_named(process: psutil.Process, name: str) -> bool:
    """Whether the process is the platform's `name`."""
    try:
        words = process.cmdline()
    except psutil.NoSuchProcess:
        return False
    return "redis.sock" in " ".join(words) if name == "redis" else words[1:4] == ["-m", "marquee", name]


def wait_for_traffic(folder: Path) -> None:
    """Until events come in: until the lake has its first rows."""
    deadline = time.monotonic() + 180
    while not list(folder.glob("lake/events/day=*/*.parquet")):
        assert time.monotonic() < deadline, (folder.parent / "demo.out").read_text()
        time.sleep(0.1)


def finish(demo: subprocess.Popen[bytes], folder: Path) -> dict[str, float]:
    """The summary of a demo that ended well."""
    code = demo.wait(500)
    assert code == 0, (folder.parent / "demo.out").read_text()[-5000:]
    summary: dict[str, float] = json.loads((folder / "summary.json").read_text())
    return summary


def check(summary: dict[str, float]) -> None:
    """What holds for every run of the demo."""
    assert summary["events_landed"] == summary["events_accepted"]
    assert summary["events_refused"] > 0
    assert summary["lake_duplicates"] == 0
    assert summary["model_versions"] == 2
    assert summary["ndcg_at_10"] > summary["popularity_ndcg_at_10"] > 0
    assert summary["users_published"] > 0.7 * USERS * 0.8
    assert summary["erased_user_traces"] == 0
