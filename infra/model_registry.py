"""The model registry on MLflow: versions with their bytes, the runs that made them, and one alias, `champion`."""

import fcntl
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from infra.runs import PURGED, ModelRegistryError, Runs, plain_errors

__all__ = ["PURGED", "ModelRegistry", "ModelRegistryError", "ModelVersion", "NoSuchVersion", "VersionPurged"]

CHAMPION = "champion"
ARTIFACT = "bundle.zip"
MOST_VERSIONS = 10_000
"""As many as MLflow gives unless it is told."""
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
"""MLflow is told these things through variables only."""


class NoSuchVersion(ModelRegistryError):
    """The registry has no such version; `versions` lists the ones it has."""


class VersionPurged(ModelRegistryError):
    """The version's files were removed for good; the message says why. Take another version."""


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
        self._client, experiment = _open(uri, artifacts, model)
        self.runs = Runs(self._client, experiment)

    @plain_errors
    def register(self, run_id: str, bundle: bytes, tags: Mapping[str, str]) -> int:
        """Keep a bundle with its run, and register it as the next version.

        Returns:
            The version.
        """
        self.runs.log_files(run_id, {ARTIFACT: bundle})
        source = f"{self._client.get_run(run_id).info.artifact_uri}/{ARTIFACT}"
        made = self._client.create_model_version(self.model, source, run_id, tags=dict(tags))
        return int(made.version)

    @plain_errors
    def tag(self, version: int, tags: Mapping[str, str]) -> None:
        """Say more of a version."""
        for name, value in tags.items():
            self._client.set_model_version_tag(self.model, str(version), name, value)

    @plain_errors
    def promote(self, version: int) -> None:
        """Point the alias `champion` at a version."""
        self._client.set_registered_model_alias(self.model, CHAMPION, str(version))

    @plain_errors
    def versions(self, most: int = MOST_VERSIONS) -> list[ModelVersion]:
        """The versions, newest first, so many at most."""
        newest = ["version_number DESC"]
        found = self._client.search_model_versions(f"name = '{self.model}'", order_by=newest, max_results=most)
        return self._with_runs(found)

    @plain_errors
    def version(self, version: int) -> ModelVersion:
        """One version.

        Raises:
            NoSuchVersion: see there.
        """
        from mlflow.exceptions import MlflowException

        try:
            found = self._client.get_model_version(self.model, str(version))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise NoSuchVersion(f"the registry has no version {version}: `marquee models` lists them") from error
        return self._with_runs([found])[0]

    @plain_errors
    def champion(self) -> int | None:
        """The version that the alias points to; None before the first promotion."""
        return self._champion()

    @plain_errors
    def bundle(self, version: int) -> bytes:
        """The bytes that were registered as this version.

        Raises:
            NoSuchVersion, VersionPurged: see there.
        """
        return self.file(version, ARTIFACT)

    @plain_errors
    def file(self, version: int, name: str) -> bytes:
        """A file of a version's run. Raises as `bundle`."""
        found = self.version(version)
        check_there(found)
        return self.runs.file(found.run_id, name)

    def _with_runs(self, found: Sequence[Any]) -> list[ModelVersion]:
        champion = self._champion()
        runs = self.runs.with_ids([one.run_id for one in found])
        return [
            ModelVersion(
                int(one.version),
                one.run_id,
                datetime.fromtimestamp(one.creation_timestamp / 1000, UTC),
                int(one.version) == champion,
                dict(one.tags),
                runs[one.run_id].metrics if one.run_id in runs else {},
            )
            for one in found
        ]

    def _champion(self) -> int | None:
        alias = self._client.get_registered_model(self.model).aliases.get(CHAMPION)
        return None if alias is None else int(alias)


def check_there(found: ModelVersion) -> None:
    """Whether a version still has its files.

    Raises:
        VersionPurged: see there.
    """
    if PURGED in found.tags:
        raise VersionPurged(f"version {found.version} is purged: {found.tags[PURGED]}")


@plain_errors
def _open(uri: str, artifacts: Path, model: str) -> tuple[Any, str]:
    """A client, and the id of the model's experiment; both are made where they do not exist."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # MLflow sets its own level when it is imported.
    place = None if uri.startswith(("http://", "https://")) else artifacts.absolute().as_uri()
    with _alone(uri):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        found = client.get_experiment_by_name(model)
        experiment = found.experiment_id if found else client.create_experiment(model, artifact_location=place)
        try:
            client.get_registered_model(model)
        except MlflowException:
            client.create_registered_model(model)
    return client, experiment


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Where the registry is a file, nobody else opens it meanwhile: two who make its tables at once both fail."""
    file = uri.removeprefix("sqlite:///")
    if file == uri:
        yield
        return
    folder = os.open(Path(file).parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
