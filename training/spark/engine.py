"""The Spark engine: fits and publishes from the files of the lake's snapshot, people by people.

Everything that is of people stays in partitions: rows are read from the Delta table's files, brought to their person's
partition, and become histories there by the code of the one-process engine. The driver keeps what is of items, and what
the gate asks about.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import structlog

from infra.lake import EVENTS, Lake
from training.algorithms.als import ALS
from training.algorithms.base import Algorithm
from training.bundle import Bundle, Scores
from training.columns import Column
from training.engine import EngineError
from training.evaluation import fit
from training.interactions import Interactions
from training.recipe import Recipe
from training.spark.people import COLUMNS, Publishing, Reading, publish, weigh
from training.spark.session import first_line

if TYPE_CHECKING:
    from pyarrow import RecordBatch
    from pyspark.sql import DataFrame, SparkSession

ROWS_A_PARTITION = 1_000_000
"""About 100 MB on an executor while they become histories."""
LEAST_CONFIDENCE = 1e-6
ATTEMPTS = 3
"""A purge may remove files while they are read: the newest version has the same rows."""

T = TypeVar("T")


class SparkEngine:
    """See `training.engine.Engine`. Recipes of ALS are fitted on the cluster, any other in this process.

    Args:
        session: of Spark.
        lake: what was collected; its files are read by the executors, at the same paths or URLs.
        weights: event type → weight, of those that enter a history.
        length: the newest items of a person that a history keeps.
        list_length: length of the lists.
        ttl_seconds: lifetime of the lists.

    Attributes:
        least_partitions: so many at least; where 0, as many as the executors have cores.
    """

    name = "spark"

    def __init__(
        self,
        session: "SparkSession",
        lake: Lake,
        *,
        weights: Mapping[str, float],
        length: int,
        list_length: int,
        ttl_seconds: int,
    ) -> None:
        self._session = session
        self._lake = lake
        self._weights = weights
        self._length = length
        self._list_length = list_length
        self._ttl = ttl_seconds
        self.least_partitions = 0

    def choose(self, recipes: Sequence[Recipe]) -> Recipe | None:
        """The first that Spark can fit, or ALS as it is by default: nothing is searched for on a cluster."""
        return next((one for one in recipes if one.algorithm == ALS.name), Recipe(ALS.name, {}))

    def fit(self, recipe: Recipe, train: Interactions, before_ms: int | None = None) -> Algorithm:
        """See `Engine.fit`. Of `train`, only the items and their number of interactions are looked at.

        `pyspark.ml.recommendation.ALS` with implicit preferences is the algorithm of Hu, Koren and Volinsky 2008, as
        `implicit`'s; two things differ. There an interaction counts 1 + alpha * rating, here alpha * weight: so a
        rating is alpha * weight - 1, and Spark's own alpha is 1. And there the regularization is multiplied by the
        number of interactions of the person or item (Zhou et al. 2008), here it is not: so Spark gets it divided by the
        number of interactions that an interaction's person and item have in the geometric mean.
        """
        if recipe.algorithm != ALS.name:
            return fit(recipe, train)
        parameters = ALS(**recipe.parameters).parameters
        pull = parameters["regularization"] / _typical_count(train)
        vectors = self._read(partial(self._fitted, train, before_ms, parameters, pull))
        return ALS.from_arrays(parameters, {"item_factors": vectors})

    def write(self, version: int, bundle: Bundle, interactions: Interactions) -> int:
        """Write everybody's list, each partition on its executor: see `training.publish.WriteLists`.

        Raises:
            EngineError: a partition failed on every try. What was written is not written again by the next call.
        """
        dumped = self._session.sparkContext.broadcast(bundle.dump())
        try:
            return self._read(partial(self._published, version, dumped, interactions))
        finally:
            dumped.destroy()

    def _published(self, version: int, dumped: object, interactions: Interactions, rows: "DataFrame", of: str) -> int:
        partitions = rows.rdd.getNumPartitions()
        attempt = f"{of}/{partitions}"
        publishing = Publishing(version, dumped, attempt, self._list_length, self._ttl)
        reading = self._reading(interactions, None)

        def work(batches: Iterator["RecordBatch"]) -> Iterator["RecordBatch"]:
            return publish(batches, reading, publishing, _partition())

        counts = rows.mapInArrow(work, "part int, lists long").collect()
        return sum(int(row["lists"]) for row in counts)

    def _fitted(
        self,
        train: Interactions,
        before_ms: int | None,
        parameters: dict[str, float],
        pull: float,
        rows: "DataFrame",
        _of: str,
    ) -> Scores:
        from pyspark.ml.recommendation import ALS as SparkALS  # noqa: N811 - ours has the same name
        from pyspark.sql import functions

        partitions = rows.rdd.getNumPartitions()
        reading = self._reading(train, before_ms)

        def work(batches: Iterator["RecordBatch"]) -> Iterator["RecordBatch"]:
            return weigh(batches, reading, _partition(), partitions)

        weighed = rows.mapInArrow(work, "user int, item int, weight float")
        rating = functions.greatest(
            functions.col("weight") * parameters["alpha"] - 1, functions.lit(LEAST_CONFIDENCE)
        ).cast("float")
        als = SparkALS(
            rank=int(parameters["factors"]),
            maxIter=int(parameters["iterations"]),
            regParam=pull,
            alpha=1.0,
            implicitPrefs=True,
            seed=int(parameters["seed"]),
            userCol="user",
            itemCol="item",
            ratingCol="rating",
            numUserBlocks=partitions,
            numItemBlocks=partitions,
        )
        found = als.fit(weighed.select("user", "item", rating.alias("rating"))).itemFactors.toArrow()
        vectors = np.zeros((len(train.catalogue.items), int(parameters["factors"])), np.float32)
        if found.num_rows:
            features = found["features"].combine_chunks().values.to_numpy()
            vectors[found["id"].to_numpy()] = features.reshape(found.num_rows, -1)
        return vectors

    def _reading(self, interactions: Interactions, before_ms: int | None) -> Reading:
        items = self._session.sparkContext.broadcast(interactions.catalogue.items.ids)
        return Reading(self._weights, self._length, items, before_ms)

    def _read(self, work: Callable[["DataFrame", str], T]) -> T:
        """What `work` makes of the rows of the newest snapshot, each in its person's partition, and of its name."""
        from pyspark.errors import PySparkException

        for left in reversed(range(ATTEMPTS)):
            table = self._lake.read(EVENTS, lambda table: table)
            cores = self._session.sparkContext.defaultParallelism
            partitions = max(self.least_partitions or cores, -(-len(table) // ROWS_A_PARTITION))
            rows = self._session.read.parquet(*table.files).select(*COLUMNS).repartition(partitions, Column.USER)
            try:
                return work(rows, str(table.version))
            except PySparkException as error:
                if not left or "FILE_NOT_EXIST" not in str(error):
                    raise EngineError(f"Spark gave up: {first_line(error)}") from error
                structlog.get_logger(__name__).warning("the lake was purged meanwhile: reading it again")
        raise AssertionError("unreachable")


def _partition() -> int:
    from pyspark import TaskContext

    context = TaskContext.get()
    assert context is not None
    return int(context.partitionId())


def _typical_count(train: Interactions) -> float:
    """Interactions that the person and the item of an interaction have, in the geometric mean over interactions."""
    matrix = train.positives
    if not matrix.nnz:
        return 1.0
    counts = (np.diff(matrix.indptr), train.popularity)
    logs = (float(one @ np.log(np.maximum(one, 1))) / matrix.nnz for one in counts)
    return float(np.exp(sum(logs) / 2))
