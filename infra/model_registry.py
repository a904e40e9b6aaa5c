"""The model registry on MLflow: runs with their figures, versions with their bytes, and one alias, `champion`."""

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

CHAMPION = "champion"
ARTIFACT = "bundle.zip"
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
"""MLflow is told these things through variables only."""

P = ParamSpec("P")
T = TypeVar("T")


class ModelRegistryError(Exception):
    """The registry cannot be reached or refuses; the message is MLflow's."""


class NoSuchVersion(ModelRegistryError):
    """The registry has no such version; `versions` lists the ones it has."""


class ModelVersion(NamedTuple):
    """A registered version.

    Attributes:
        version: rises by one with each registration.
        run_id: the run that made it.
        registered_at: in UTC.
        champion: whether the alias points to it.
        tags: what was said of it when it was registered.
        metrics: its run's figures.
    """

    version: int
    run_id: str
    registered_at: datetime
    champion: bool
    tags: Mapping[str, str]
    metrics: Mapping[str, float]


def _plain_errors(method: Callable[P, T]) -> Callable[P, T]:
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


class ModelRegistry:
    """One registered model on an MLflow server or database.

    Args:
        uri: `sqlite:///…`, `postgresql+psycopg://…` or `http://…`. Databases are made and brought up to date.
        artifacts: folder of the runs' files. A server (http) keeps them where it was told to.
        model: name of the registered model.

    Raises:
        ModelRegistryError: the registry cannot be reached.
    """

    def __init__(self, uri: str, artifacts: Path, model: str) -> None:
        os.environ.update(ENVIRONMENT)
        self.model = model
        self._client, self._experiment = _open(uri, artifacts, model)

    @_plain_errors
    def start_run(self, parameters: Mapping[str, Any]) -> str:
        """Begin a run and return its id."""
        from mlflow.entities import Param

        run_id: str = self._client.create_run(self._experiment).info.run_id
        self._client.log_batch(run_id, params=[Param(name, str(value)) for name, value in parameters.items()])
        return run_id

    @_plain_errors
    def register(self, run_id: str, bundle: bytes, metrics: Mapping[str, float], tags: Mapping[str, str]) -> int:
        """End the run with its figures and its bundle, and register that as the next version.

        Returns:
            The version.
        """
        from mlflow.entities import Metric

        moment = int(datetime.now(UTC).timestamp() * 1000)
        self._client.log_batch(run_id, metrics=[Metric(name, value, moment, 0) for name, value in metrics.items()])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / ARTIFACT
            path.write_bytes(bundle)
            self._client.log_artifact(run_id, str(path))
        self._client.set_terminated(run_id)
        source = f"{self._client.get_run(run_id).info.artifact_uri}/{ARTIFACT}"
        made = self._client.create_model_version(self.model, source, run_id, tags=dict(tags))
        return int(made.version)

    @_plain_errors
    def promote(self, version: int) -> None:
        """Point the alias `champion` at a version."""
        self._client.set_registered_model_alias(self.model, CHAMPION, str(version))

    @_plain_errors
    def versions(self) -> list[ModelVersion]:
        """All versions, newest first."""
        champion = self._champion()
        found = self._client.search_model_versions(f"name = '{self.model}'", order_by=["version_number DESC"])
        return [
            ModelVersion(
                int(one.version),
                one.run_id,
                datetime.fromtimestamp(one.creation_timestamp / 1000, UTC),
                int(one.version) == champion,
                dict(one.tags),
                dict(self._client.get_run(one.run_id).data.metrics),
            )
            for one in found
        ]

    @_plain_errors
    def champion(self) -> int | None:
        """The version that the alias points to; None before the first promotion."""
        return self._champion()

    @_plain_errors
    def bundle(self, version: int) -> bytes:
        """The bytes that were registered as this version.

        Raises:
            NoSuchVersion: see there.
        """
        from mlflow.exceptions import MlflowException

        try:
            run_id = self._client.get_model_version(self.model, str(version)).run_id
        except MlflowException as error:
            raise NoSuchVersion(f"the registry has no version {version}: `marquee status` lists them") from error
        with tempfile.TemporaryDirectory() as folder:
            return Path(self._client.download_artifacts(run_id, ARTIFACT, folder)).read_bytes()

    def _champion(self) -> int | None:
        alias = self._client.get_registered_model(self.model).aliases.get(CHAMPION)
        return None if alias is None else int(alias)


@_plain_errors
def _open(uri: str, artifacts: Path, model: str) -> tuple[Any, str]:
    """A client, and the id of the model's experiment; both are made where they do not exist."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # MLflow sets its own level when it is imported.
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    place = None if uri.startswith(("http://", "https://")) else artifacts.absolute().as_uri()
    found = client.get_experiment_by_name(model)
    experiment = found.experiment_id if found else client.create_experiment(model, artifact_location=place)
    try:
        client.get_registered_model(model)
    except MlflowException:
        client.create_registered_model(model)
    return client, experiment
