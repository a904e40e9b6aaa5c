"""What `bench.training` measures, a process each.

Run as `python -m bench.training_steps STEP LAKE REDIS ROUNDS ITERATIONS`.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from implicit.cpu.als import AlternatingLeastSquares

from bench.training_data import SECRET
from infra.lake import Lake
from infra.online_store import connect
from ingest.events import ConsentProjection, read_domain
from training.algorithms.als import ALS
from training.algorithms.base import Algorithm
from training.algorithms.blas import one_blas_thread
from training.bundle import Bundle, ItemTable, Manifest, recommend
from training.interactions import Interactions
from training.publish import BATCH, Publisher
from training.snapshot import Reading, read_lake

ROOT = Path(__file__).parents[1]
PATIENT_SECONDS = 60
LIST_LENGTH = 100
TTL_SECONDS = 86_400
FACTORS = 64

Figures = dict[str, Any]


class Bench:
    """One lake, one Redis.

    Args:
        lake: folder of the lake.
        redis: URL of the online store.
        rounds: how often times are taken.
        iterations: rounds of fitting.
    """

    def __init__(self, lake: str, redis: str, rounds: int, iterations: int) -> None:
        self.lake = Lake(lake)
        self.domain = read_domain(ROOT / "domain.toml")
        self.store = connect(redis, PATIENT_SECONDS)
        self.consents = ConsentProjection(self.store, SECRET)
        self.rounds = rounds
        self.iterations = iterations

    def read(self) -> Figures:
        """Lake → `user_items`: seconds of each round."""
        return {"seconds": [_timed(lambda: self._reading().histories().positives) for _ in range(self.rounds)]}

    def memory(self) -> Figures:
        """The most that reading and fitting hold, beyond what the process held when all was imported."""
        before = _memory("VmRSS")
        reading = self._reading()
        interactions = reading.histories()
        read = _memory("VmHWM")
        self._als().fit(interactions.positives)
        matrix = interactions.positives
        return {
            "matrix_bytes": matrix.indptr.nbytes + matrix.indices.nbytes + matrix.data.nbytes,
            "factor_bytes": sum(matrix.shape) * FACTORS * 4,
            "read_peak_bytes": read - before,
            "peak_bytes": _memory("VmHWM") - before,
            "rows": reading.counts.rows,
            "people": matrix.shape[0],
            "items": matrix.shape[1],
            "nnz": matrix.nnz,
        }

    def fit(self) -> Figures:
        """Our fit and the library's on the same matrix, by turns: seconds of each round."""
        user_items = self._reading().histories().positives
        ours: list[float] = []
        librarys: list[float] = []
        for number in range(self.rounds):
            turns = [(ours, lambda: self._als().fit(user_items)), (librarys, lambda: self._library(user_items))]
            for seconds, fit in turns if number % 2 else reversed(turns):
                seconds.append(_timed(fit))
        return {"seconds": ours, "library_seconds": librarys}

    def publish(self) -> Figures:
        """The bare loop over `recommend`, and a publish of the same lists, by turns: seconds of each round.

        Of the versions published before, all but the last go, as they do every day.
        """
        interactions = self._reading().histories()
        model = self._als()
        model.fit(interactions.positives)
        bundle = bundle_of(model, interactions)
        publisher = Publisher(self.store, self.consents, LIST_LENGTH, TTL_SECONDS)
        bare: list[float] = []
        published: list[float] = []
        versions = iter(range(1, self.rounds + 3))
        for version in (next(versions), next(versions)):
            publisher.publish(version, bundle, interactions)
        for version in versions:
            bare.append(_timed(lambda: _recommend_all(bundle, interactions)))
            published.append(_timed(lambda v=version: publisher.publish(v, bundle, interactions)))
        return {"seconds": published, "recommend_seconds": bare, "lists": len(interactions.users)}

    def _reading(self) -> Reading:
        return read_lake(self.lake, self.consents, self.domain)

    def _als(self) -> ALS:
        return ALS(factors=FACTORS, iterations=self.iterations)

    def _library(self, user_items: Any) -> None:
        words = self._als().parameters
        with one_blas_thread():
            AlternatingLeastSquares(random_state=words.pop("seed"), **words).fit(user_items, show_progress=False)


def _recommend_all(bundle: Bundle, interactions: Interactions) -> None:
    for start in range(0, len(interactions.users), BATCH):
        user_items = interactions.histories_of(slice(start, start + BATCH)).user_items
        recommend(bundle.model, bundle.popular, user_items, LIST_LENGTH)


def bundle_of(model: Algorithm, interactions: Interactions) -> Bundle:
    """The bundle of a model that was fitted in a benchmark."""
    manifest = Manifest(
        algorithm=model.name,
        parameters=model.parameters,
        domain="bench",
        history_length=0,
        snapshot={"version": 0, "digest": "", "watermark": {}, "events": 0, "users": len(interactions.users)},
        code="unknown",
        run_id="bench",
        trained_at=datetime.now(UTC),
        metrics={},
    )
    catalogue = interactions.catalogue
    items = ItemTable(catalogue.items.ids, catalogue.attributes, interactions.popularity)
    return Bundle(manifest, items, model, model.arrays())


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _memory(name: str) -> int:
    """A figure of this process in bytes: VmRSS what it holds, VmHWM the most it has held.

    Not `ru_maxrss`: that also counts what the parent held when it started us.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    step, lake, redis, rounds, iterations = sys.argv[1:]
    steps: Mapping[str, Callable[[Bench], Figures]] = {
        "read": Bench.read,
        "memory": Bench.memory,
        "fit": Bench.fit,
        "publish": Bench.publish,
    }
    sys.stdout.write(json.dumps(steps[step](Bench(lake, redis, int(rounds), int(iterations)))))
