"""Does a model retrained after an erasure know anything of who was erased? It has to be the model of those who stayed.

    .venv/bin/python -m bench.unlearning

For each of twenty people: a lake that held everybody forgets the person as the lander does it, and is read, fitted and
bundled as the retraining job does it. Beside it the same for a lake in which the person never was. Recipes are fixed: a
search by the clock tries what there is time for. The models are the same when what they do (the bundle's digest), what
they were trained on (the snapshot's) and the popular list have the same bytes. Writes bench/results/unlearning.json.
"""

import json
import shutil
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import polars as pl
from rich.console import Console
from rich.progress import track

from bench.serving_store import running_redis
from infra.lake import EVENTS, TABLES, Lake, Span
from infra.online_store import OnlineStore
from ingest.events import (
    CONSENT_HEAD,
    PERSONALIZATION,
    Consent,
    ConsentProjection,
    Domain,
    consent_key,
    now,
    read_domain,
    subject,
)
from training.bundle import Bundle, ItemTable, Manifest
from training.evaluation import fit
from training.recipe import Recipe
from training.snapshot import read_lake
from workshop.invented import generate

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench/results/unlearning.json"
SECRET = "of the pseudonyms in this lake"  # noqa: S105
PEOPLE, VIEWERS, ITEMS, ACTS = 20, 400, 200, 12_000
RECIPES = (Recipe("ease", {}), Recipe("als", {"factors": 16, "iterations": 5}))
ERASED = 2
"""Number of the receipt by which a person is erased; everybody's grant is receipt 1."""


class Unlearned(NamedTuple):
    """How many of the models retrained after an erasure are those of a platform that never held the person.

    Attributes:
        people: erased, each once.
        same: of them, whose models are the same, by algorithm.
        different: whose models differ from the one with everybody: what is compared can tell.
    """

    people: int
    same: dict[str, int]
    different: dict[str, int]


def main() -> None:
    """Measure and write what came out."""
    with tempfile.TemporaryDirectory(prefix="mq-bench-") as folder, running_redis(Path(folder)) as store:
        found = unlearn(store, Path(folder), PEOPLE)
    report = {
        "command": ".venv/bin/python -m bench.unlearning",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "viewers": VIEWERS,
        "items": ITEMS,
        "events": ACTS,
        "people_erased": found.people,
        "same_as_never_held": found.same,
        "differ_from_before": found.different,
    }
    RESULT.write_text(json.dumps(report, indent=2) + "\n")
    Console().print_json(data=report)


def unlearn(store: OnlineStore, folder: Path, people: int, recipes: Sequence[Recipe] = RECIPES) -> Unlearned:
    """Erase that many people, each from a lake of everybody.

    Args:
        store: an empty online store; gets everybody's consents.
        folder: where the lakes go.
        people: how many; spread from the busiest to the quietest.
        recipes: what is fitted.
    """
    domain, rows = read_domain(ROOT / "domain.toml"), _rows()
    everybody = folder / "everybody"
    _fill(everybody, rows)
    _allow(store, rows["user_id"].unique())
    before = models(everybody, store, domain, recipes)
    viewers = rows.group_by("user_id").len().sort("len", "user_id")["user_id"]
    same, different = ({recipe.algorithm: 0 for recipe in recipes} for _ in range(2))
    chosen = viewers.gather_every(max(1, len(viewers) // people))[:people]
    for person in track(chosen, "Erasing", console=Console(stderr=True)):
        erased = models(_without(everybody, folder / "erased", person, store), store, domain, recipes)
        _allow(store, [person])
        _fill(folder / "never", rows.filter(pl.col("user_id") != person))
        never = models(folder / "never", store, domain, recipes)
        for name in same:
            same[name] += erased[name] == never[name]
            different[name] += erased[name] != before[name]
        for lake in ("erased", "never"):
            shutil.rmtree(folder / lake)
    return Unlearned(len(chosen), same, different)


def models(lake: Path, store: OnlineStore, domain: Domain, recipes: Sequence[Recipe]) -> dict[str, str]:
    """Algorithm → SHA-256 of what a retraining on this lake makes: snapshot, interactions, fit, bundle."""
    reading = read_lake(Lake(str(lake)), ConsentProjection(store, SECRET), domain)
    interactions = reading.histories()
    items = ItemTable(interactions.catalogue.items.ids, interactions.catalogue.attributes, interactions.popularity)
    found = {}
    for recipe in recipes:
        model = fit(recipe.whole(), interactions)
        manifest = Manifest(
            algorithm=model.name,
            parameters=model.parameters,
            domain=domain.name,
            history_length=domain.history.length,
            snapshot=reading.describe(interactions),
            code="",
            run_id="",
            trained_at=now(),
            metrics={},
        )
        bundle = Bundle(manifest, items, model, model.arrays())
        digests = bundle.digest() + manifest.snapshot.digest
        found[recipe.algorithm] = sha256(digests.encode() + items.popularity.tobytes()).hexdigest()
    return found


def _without(everybody: Path, place: Path, person: str, store: OnlineStore) -> Path:
    """The lake of everybody after an erasure, as the gate and the lander leave it."""
    shutil.copytree(everybody, place)
    store.set(consent_key(subject(person, SECRET)), Consent(0, ERASED).encode())
    lake = Lake(str(place))
    lake.forget(EVENTS, {person: ERASED})
    lake.purge()
    return place


def _rows() -> pl.DataFrame:
    acts = generate(VIEWERS, ITEMS, ACTS, seed=7, until=datetime(2026, 1, 1, tzinfo=UTC)).acts
    rows = acts.with_row_index("offset").with_columns(
        pl.format("e{}", "offset").alias("event_id"),
        pl.col("occurred_at").alias("accepted_at"),
        pl.col("occurred_at").dt.date().alias("day"),
        recommendation_id=None,
        receipt=1,
        partition=0,
    )
    return rows.select(pl.col(name).cast(kind) for name, kind in TABLES[EVENTS].items())


def _fill(place: Path, rows: pl.DataFrame) -> None:
    lake, half = Lake(str(place)), rows.height // 2
    for start, end in ((0, half), (half, rows.height)):
        lake.append(EVENTS, rows[start:end], {0: Span(start, end)})


def _allow(store: OnlineStore, people: Sequence[str] | pl.Series) -> None:
    writes = store.pipeline(transaction=True)
    for person in people:
        writes.set(consent_key(subject(person, SECRET)), Consent(1, 0, frozenset({PERSONALIZATION})).encode())
    writes.set(CONSENT_HEAD, ERASED)
    writes.execute()


if __name__ == "__main__":
    main()
