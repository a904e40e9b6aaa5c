"""The store of the serving benchmarks: a Redis of their own, a published version in it, a list for everybody."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from infra.embedded import redis_command
from infra.online_store import OnlineStore, OnlineStoreError, connect
from training.algorithms.popularity import Popularity
from training.bundle import CURRENT, Bundle, ItemTable, Manifest, Snapshot, bundle_key, encode_list, list_key

VERSION = 1
WEEK_SECONDS = 7 * 86400
GENRES = ["Action", "Comedy", "Drama", "Documentary", "Horror", "Romance", "Thriller", "Western"]
AT_ONCE = 1000


@contextmanager
def running_redis(folder: Path) -> Iterator[OnlineStore]:
    """The embedded Redis, on `redis.sock` in `folder`."""
    server = subprocess.Popen(redis_command(folder / "redis.sock"), stdout=subprocess.DEVNULL)
    store = connect(f"unix://{folder / 'redis.sock'}", timeout=10)
    try:
        for _ in range(100):
            try:
                store.ping()
                break
            except OnlineStoreError:
                time.sleep(0.05)
        yield store
    finally:
        store.close()
        server.terminate()
        server.wait(10)


def fill(store: OnlineStore, users: int, items: int, length: int) -> float:
    """Publish a version with a list for every user, with the lifetimes that publish gives; returns the bytes a user.

    The bytes are all that Redis took for the lists: keys, lifetimes and its own tables among them.
    """
    store.set(bundle_key(VERSION), bundle_of(items).dump(), ex=WEEK_SECONDS)
    random = np.random.default_rng(1)
    before = store.info("memory")["used_memory"]
    for start in range(0, users, AT_ONCE):
        writes = store.pipeline(transaction=False)
        for user in range(start, min(start + AT_ONCE, users)):
            picked = encode_list(random.choice(items, length, replace=False))
            writes.set(list_key(VERSION, f"u{user}"), picked, ex=WEEK_SECONDS)
        writes.execute()
    after = store.info("memory")["used_memory"]
    store.set(CURRENT, VERSION)
    return float(after - before) / users


def bundle_of(items: int) -> Bundle:
    """A version of the popularity model over so many films, in eight genres."""
    model = Popularity()
    manifest = Manifest(
        algorithm=model.name,
        parameters={},
        domain="bench",
        history_length=1000,
        snapshot=Snapshot(version=0, digest="", watermark={}, events=0, users=0),
        code="unknown",
        run_id="bench",
        trained_at=datetime.now(UTC),
        metrics={},
    )
    popularity = np.arange(items, 0, -1, dtype=np.float32)
    films = tuple(
        {"title": f"Film number {i}", "genres": [GENRES[i % len(GENRES)]], "year": 1930 + i % 100} for i in range(items)
    )
    table = ItemTable(tuple(f"m{i}" for i in range(items)), films, popularity)
    return Bundle(manifest, table, model, {"popularity": popularity})
