"""Versions whose lists tell which version they are of: an odd one lists items of odd numbers only, an even one of even.

Every item also carries the version as an attribute, so that a list of one version rendered with the items of another
shows. The model is popularity, so that a live list tells it too.

    python -m bench.editions REDIS VERSION USERS     publish one with training's own publisher
"""

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import polars as pl

from infra.online_store import OnlineStore, connect
from ingest.events import CONSENT_HEAD, PERSONALIZATION, Consent, ConsentProjection, consent_key, subject
from training.algorithms.popularity import Popularity
from training.bundle import (
    CURRENT,
    KEPT,
    Bundle,
    ItemTable,
    Manifest,
    Snapshot,
    bundle_key,
    encode_list,
    list_key,
)
from training.columns import Column
from training.interactions import Catalogue, IdMap, Interactions
from training.publish import Publisher

ITEMS = 2000
LENGTH = 100
GENRES = ("Comedy", "Crime", "Drama", "Fantasy", "Musical", "Mystery", "Thriller", "Western")
ACTS_A_USER = 5
LIFETIME_SECONDS = 86_400
PATIENT_SECONDS = 60.0
AT_ONCE = 1000


def user(number: int) -> str:
    """Name of a person."""
    return f"u{number}"


def edition(version: int, watermark: dict[int, int] | None = None) -> Bundle:
    """A version's bundle."""
    item_ids = tuple(f"m{number:04}" for number in range(ITEMS))
    attributes = tuple(
        {"title": f"Film {n}", "genres": [GENRES[n // 2 % len(GENRES)]], "edition": version} for n in range(ITEMS)
    )
    ours = np.arange(ITEMS) % 2 == version % 2
    popularity = np.where(ours, 10.0 * ITEMS, 0.0) + np.arange(ITEMS, 0, -1)
    model = Popularity.from_arrays({}, {"popularity": popularity.astype(np.float32)})
    manifest = Manifest(
        algorithm=model.name,
        parameters=model.parameters,
        domain="drill",
        history_length=1000,
        snapshot=Snapshot(version=0, digest="", watermark=watermark or {}, events=0, users=0),
        code="unknown",
        run_id=f"drill-{version}",
        trained_at=datetime.now(UTC),
        metrics={},
    )
    return Bundle(manifest, ItemTable(item_ids, attributes, popularity.astype(np.float32)), model, model.arrays())


def put(store: OnlineStore, version: int, users: Sequence[str]) -> None:
    """Put a version into the store as a publish leaves it, with a list of its own for everybody, and serve it.

    A list is a run of the items, so that every genre is in it often enough for a short list of one genre.
    """
    random = np.random.default_rng(version)
    ours = np.arange(version % 2, ITEMS, 2)
    store.sadd(KEPT, version)
    for start in range(0, len(users), AT_ONCE):
        writes = store.pipeline(transaction=False)
        for name in users[start : start + AT_ONCE]:
            run = ours[(random.integers(len(ours)) + np.arange(LENGTH)) % len(ours)]
            picked = encode_list(random.permutation(run))
            writes.set(list_key(version, name), picked, ex=LIFETIME_SECONDS)
        writes.execute()
    store.set(bundle_key(version), edition(version).dump(), ex=LIFETIME_SECONDS)
    store.set(CURRENT, version)


def mixes(body: bytes, *, tier: str) -> bool:
    """Whether an answer holds anything of another version than the one that it names.

    Popular lists go by votes too, which are of all versions: of them only the items' attribute tells.
    """
    answer: dict[str, Any] = orjson.loads(body)
    version, items = answer["version"], answer["items"]
    if tier in ("live", "personal") and any(int(item["item_id"][1:]) % 2 != version % 2 for item in items):
        return True
    return any(item["edition"] != version for item in items)


def grant_everybody(store: OnlineStore, users: Sequence[str], secret: str) -> None:
    """Let everybody allow it, in the projection alone: for a platform without ingest."""
    for start in range(0, len(users), AT_ONCE):
        writes = store.pipeline(transaction=False)
        for number, name in enumerate(users[start : start + AT_ONCE], start + 1):
            granted = Consent(number, 0, frozenset({PERSONALIZATION}))
            writes.set(consent_key(subject(name, secret)), granted.encode())
        writes.execute()
    store.set(CONSENT_HEAD, len(users))


def interactions(version: int, users: Sequence[str]) -> Interactions:
    """Everybody's history: a few items of the version's own."""
    count = len(users)
    random = np.random.default_rng(version)
    items = np.sort(random.integers(0, ITEMS // 2, (count, ACTS_A_USER)), axis=1) * 2 + version % 2
    rows = pl.DataFrame(
        {
            Column.USER_INDEX: pl.Series(np.repeat(np.arange(count), ACTS_A_USER), dtype=pl.Int32),
            Column.ITEM_INDEX: pl.Series(items.ravel(), dtype=pl.Int32),
            Column.AT_MS: pl.Series(np.full(count * ACTS_A_USER, 1_700_000_000_000)),
            Column.WEIGHT: pl.Series(np.ones(count * ACTS_A_USER), dtype=pl.Float32),
            Column.RECEIPT: pl.Series(np.repeat(np.arange(1, count + 1), ACTS_A_USER)),
        }
    ).unique([Column.USER_INDEX, Column.ITEM_INDEX], keep="first", maintain_order=True)
    table = edition(version).items
    return Interactions.of(IdMap(tuple(sorted(users))), Catalogue(IdMap(table.item_ids), table.attributes), rows)


def publish(redis: str, version: int, count: int, secret: str) -> tuple[int, float]:
    """Publish a version for so many people; returns the number of lists and the seconds that it took."""
    store = connect(redis, PATIENT_SECONDS)
    held = interactions(version, [user(number) for number in range(count)])
    publisher = Publisher(store, ConsentProjection(store, secret), LENGTH, LIFETIME_SECONDS)
    begin = time.monotonic()
    lists = publisher.publish(version, edition(version), held)
    return lists, time.monotonic() - begin


def main() -> None:
    """Publish, as the arguments say; the secret comes on standard input."""
    redis, version, users = sys.argv[1:]
    lists, seconds = publish(redis, int(version), int(users), sys.stdin.read().strip())
    sys.stdout.write(orjson.dumps({"lists": lists, "seconds": round(seconds, 2)}).decode())


if __name__ == "__main__":
    main()
