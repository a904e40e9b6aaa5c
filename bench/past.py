"""A published version of generated data, put together without lake and registry: for load tests that begin at once."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from scipy import sparse

from infra.online_store import OnlineStore
from ingest.events import read_domain
from training.algorithms.ials import IALS
from training.bundle import (
    CURRENT,
    KEPT,
    Bundle,
    Interaction,
    ItemTable,
    Manifest,
    Snapshot,
    bundle_key,
    encode_history,
    encode_list,
    history_key,
    list_key,
    recommend,
)
from workshop.datasets import Dataset
from workshop.invented import generate

ROOT = Path(__file__).parents[1]
VERSION = 1
VIEWERS, FILMS, ACTS, LENGTH = 1000, 1200, 60_000, 100


def publish_past(store: OnlineStore) -> Sequence[str]:
    """Publish version 1: a model of invented viewers, their lists and histories. Returns their names."""
    dataset = generate(VIEWERS, FILMS, ACTS)
    domain = read_domain(ROOT / "domain.toml")
    acts = dataset.acts.filter(pl.col("type").is_in(list(domain.history_weights)))
    acts = acts.with_columns(
        weight=pl.col("type").replace_strict(domain.history_weights, return_dtype=pl.Float64),
        at_ms=pl.col("occurred_at").dt.epoch("ms"),
    )
    people = sorted(acts["user_id"].unique())
    user_items, bundle = _model(dataset, acts, people)
    indices, _ = recommend(bundle.model, bundle.popular, user_items, LENGTH)
    writes = store.pipeline(transaction=False)
    for name, found in zip(people, indices, strict=True):
        writes.set(list_key(VERSION, name), encode_list(found))
    for (name,), of in acts.group_by("user_id"):
        history = {act["item_id"]: Interaction(act["at_ms"], act["weight"]) for act in of.iter_rows(named=True)}
        writes.set(history_key(str(name)), encode_history(history))
    writes.set(bundle_key(VERSION), bundle.dump())
    writes.sadd(KEPT, VERSION)
    writes.set(CURRENT, VERSION)
    writes.execute()
    return people


def _model(dataset: Dataset, acts: pl.DataFrame, people: Sequence[str]) -> tuple[sparse.csr_matrix, Bundle]:
    """The viewers' histories (people, films), and iALS fitted to them."""
    films = sorted(dataset.items, key=lambda item: item.item_id)
    item_ids = tuple(film.item_id for film in films)
    rows = acts["user_id"].cast(pl.Enum(people)).to_physical().to_numpy()
    columns = acts["item_id"].cast(pl.Enum(item_ids)).to_physical().to_numpy()
    weights = acts["weight"].to_numpy().astype(np.float32)
    user_items = sparse.csr_matrix((weights, (rows, columns)), shape=(len(people), len(films)))
    model = IALS()
    positive = user_items.copy()
    positive.eliminate_zeros()
    model.fit(positive)
    popularity = np.bincount(positive.indices, minlength=len(films)).astype(np.float32)
    manifest = Manifest(
        algorithm=model.name,
        parameters=model.parameters,
        domain="films",
        history_length=1000,
        snapshot=Snapshot(version=0, digest="", watermark={}, events=acts.height, users=len(people)),
        code="unknown",
        run_id="generated",
        trained_at=datetime.now(UTC),
        metrics={},
    )
    table = ItemTable(item_ids, tuple(film.attributes for film in films), popularity)
    return user_items, Bundle(manifest, table, model, model.arrays())
