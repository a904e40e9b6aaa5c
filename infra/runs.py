"""Runs on MLflow: what a retraining or a search was given, what it measured, what came of it."""

import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar

KIND = "kind"
"""Tag of a run: what it was for."""
FAILURE = "failure"
"""Tag of a run that failed: why."""
PURGED = "purged"
"""Tag of a run, and of its version, whose files were removed for good: why."""
PARENT = "mlflow.parentRunId"
LONGEST = 5000
"""Characters of a value; MLflow takes no more than 6000 of a parameter."""
AT_ONCE = 100
"""Parameters, tags, or ids of runs in one call; MLflow takes no more."""
ENDED_WITHOUT_A_WORD = "the process ended without a word"

P = ParamSpec("P")
T = TypeVar("T")
Status = Literal["FINISHED", "FAILED", "KILLED"]


class ModelRegistryError(Exception):
    """The registry cannot be reached or refuses; the message is MLflow's."""


class Run(NamedTuple):
    """A run.

    Attributes:
        status: RUNNING, FINISHED, FAILED, or KILLED.
        artifacts: address of its files.
    """

    run_id: str
    status: str
    started_at: datetime
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    artifacts: str


class Child(NamedTuple):
    """A run below another one, told when it is over.

    Attributes:
        name: of the run.
        seconds: how long it took; it is entered as having ended now.
    """

    name: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    seconds: float
    status: Status = "FINISHED"


def plain_errors(method: Callable[P, T]) -> Callable[P, T]:
    """MLflow's errors as ours; the warnings of its dependencies are nothing that our callers could act on."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mlflow.exceptions import MlflowException
            from sqlalchemy.exc import SQLAlchemyError

            try:
                return method(*args, **kwargs)
            except (MlflowException, SQLAlchemyError) as error:
                raise ModelRegistryError(f"the model registry: {type(error).__name__}: {error}") from error

    return call


class Runs:
    """The runs of one experiment.

    Args:
        client: MLflow's.
        experiment: id of the experiment.
    """

    def __init__(self, client: Any, experiment: str) -> None:
        self._client = client
        self._experiment = experiment

    @contextmanager
    def run(self, kind: str, tags: Mapping[str, str] | None = None) -> Iterator[str]:
        """A run while the block runs: its id. A block that raises ends it as failed, with the reason.

        Args:
            kind: what it is for.
            tags: what is known of it from the beginning.

        Raises:
            ModelRegistryError: see there; an error of the block's own goes first.
        """
        run_id = self.start(kind, tags or {})
        try:
            yield run_id
        except BaseException as error:
            with suppress(ModelRegistryError):
                self.log(run_id, tags={FAILURE: f"{type(error).__name__}: {error}"})
                self.end(run_id, "FAILED")
            raise
        self.end(run_id, "FINISHED")

    @plain_errors
    def start(self, kind: str, tags: Mapping[str, str]) -> str:
        """Begin a run and return its id."""
        run_id: str = self._client.create_run(self._experiment, tags={**_cut(tags), KIND: kind}).info.run_id
        return run_id

    @plain_errors
    def log(
        self,
        run_id: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Enter parameters, figures and words into a run."""
        from mlflow.entities import Metric, Param, RunTag

        moment = _now()
        figures = [Metric(name, float(value), moment, 0) for name, value in (metrics or {}).items()]
        self._client.log_batch(run_id, metrics=figures)
        for some in _chunks(_cut(parameters or {}).items()):
            self._client.log_batch(run_id, params=[Param(name, value) for name, value in some])
        for some in _chunks(_cut(tags or {}).items()):
            self._client.log_batch(run_id, tags=[RunTag(name, value) for name, value in some])

    @plain_errors
    def log_children(self, run_id: str, children: Iterable[Child]) -> None:
        """Enter the runs below one, in three calls each: a hundred take about two seconds on SQLite."""
        from mlflow.entities import Metric, Param

        moment = _now()
        for child in children:
            tags = {**_cut(child.tags), PARENT: run_id}
            began = moment - int(child.seconds * 1000)
            made = self._client.create_run(self._experiment, start_time=began, tags=tags, run_name=child.name)
            figures = [Metric(name, float(value), moment, 0) for name, value in child.metrics.items()]
            words = [Param(name, value) for name, value in _cut(child.parameters).items()]
            self._client.log_batch(made.info.run_id, metrics=figures, params=words[:AT_ONCE])
            self._client.set_terminated(made.info.run_id, child.status, moment)

    @plain_errors
    def log_files(self, run_id: str, files: Mapping[str, bytes]) -> None:
        """Keep files with a run, by name."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            self._client.log_artifacts(run_id, folder)

    @plain_errors
    def end(self, run_id: str, status: Status) -> None:
        """End a run."""
        self._client.set_terminated(run_id, status)

    @plain_errors
    def end_abandoned(self, kind: str) -> int:
        """End the runs whose process was killed, as failed. To be called where no other run of the kind can be alive.

        Returns:
            How many there were.
        """
        found = self._search(f"attributes.status = 'RUNNING' and tags.{KIND} = '{kind}'")
        for run in found:
            self.log(run.run_id, tags={FAILURE: ENDED_WITHOUT_A_WORD})
            self.end(run.run_id, "FAILED")
        return len(found)

    @plain_errors
    def of_kind(self, kind: str) -> list[Run]:
        """The newest hundred runs of a kind, newest first."""
        return self._search(f"tags.{KIND} = '{kind}'")

    @plain_errors
    def below(self, run_id: str) -> list[Run]:
        """The newest hundred runs below one."""
        return self._search(f"tags.`{PARENT}` = '{run_id}'")

    @plain_errors
    def with_ids(self, run_ids: Sequence[str]) -> dict[str, Run]:
        """run_id → the run."""
        found: dict[str, Run] = {}
        for some in _chunks(run_ids):
            named = ",".join(f"'{run_id}'" for run_id in some)
            found |= {run.run_id: run for run in self._search(f"attributes.run_id IN ({named})")}
        return found

    @plain_errors
    def file(self, run_id: str, name: str) -> bytes:
        """The content of a run's file."""
        with tempfile.TemporaryDirectory() as folder:
            return Path(self._client.download_artifacts(run_id, name, folder)).read_bytes()

    @plain_errors
    def all_of_kind(self, kind: str) -> list[Run]:
        """Every run of a kind, newest first."""
        runs: list[Run] = []
        page: str | None = ""
        while page is not None:
            order = ["attributes.start_time DESC"]
            found = self._client.search_runs(
                [self._experiment], f"tags.{KIND} = '{kind}'", max_results=AT_ONCE, order_by=order, page_token=page
            )
            runs += [_run(one) for one in found]
            page = found.token
        return runs

    @plain_errors
    def purge(self, run: Run, why: str) -> None:
        """Remove a run's files for good; parameters, figures and words stay. Again where it was cut short."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        get_artifact_repository(run.artifacts, tracking_uri=self._client.tracking_uri).delete_artifacts()
        self.log(run.run_id, tags={PURGED: why})

    def _search(self, condition: str) -> list[Run]:
        order = ["attributes.start_time DESC"]
        found = self._client.search_runs([self._experiment], condition, max_results=AT_ONCE, order_by=order)
        return [_run(one) for one in found]


def _run(found: Any) -> Run:
    started = datetime.fromtimestamp(found.info.start_time / 1000, UTC)
    data, info = found.data, found.info
    metrics, tags = dict(data.metrics), dict(data.tags)
    return Run(info.run_id, info.status, started, dict(data.params), metrics, tags, info.artifact_uri)


def _now() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


def _cut(words: Mapping[str, Any]) -> dict[str, str]:
    """As text that MLflow takes."""
    texts = {name: str(value) for name, value in words.items()}
    return {name: text if len(text) <= LONGEST else f"{text[: LONGEST - 2]} …" for name, text in texts.items()}


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    everything = list(items)
    return (everything[start : start + AT_ONCE] for start in range(0, len(everything), AT_ONCE))
