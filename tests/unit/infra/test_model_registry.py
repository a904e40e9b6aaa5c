"""The registry keeps runs, versions and one champion, in a real MLflow on SQLite."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.model_registry import ModelRegistry, ModelRegistryError, NoSuchVersion


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a registry that the tests of this module share: MLflow takes seconds to make its tables."""
    return tmp_path_factory.mktemp("registry")


@pytest.fixture
def registry(place: Path, request: pytest.FixtureRequest) -> ModelRegistry:
    """A model of the test's own name."""
    return ModelRegistry(f"sqlite:///{place / 'registry.db'}", place / "artifacts", request.node.name)


def register(registry: ModelRegistry, bundle: bytes = b"bundle", verdict: str = "passed") -> int:
    with registry.runs.run("training") as run_id:
        registry.runs.log(run_id, parameters={"algorithm": "als", "factors": 64}, metrics={"ndcg_at_10": 0.25})
        return registry.register(run_id, bundle, {"verdict": verdict})


def test_versions_rise_and_carry_their_figures_and_tags(registry: ModelRegistry) -> None:
    assert [register(registry), register(registry, verdict="refused")] == [1, 2]
    newest, oldest = registry.versions()
    assert (newest.version, newest.tags["verdict"], oldest.tags["verdict"]) == (2, "refused", "passed")
    assert oldest.metrics == {"ndcg_at_10": 0.25}
    assert newest.registered_at.tzinfo is not None
    assert newest.run_id != oldest.run_id


def test_the_champion_is_who_was_promoted_last(registry: ModelRegistry) -> None:
    assert registry.champion() is None
    first, second = register(registry), register(registry)
    registry.promote(second)
    registry.promote(first)
    assert registry.champion() == first
    assert [one.champion for one in registry.versions()] == [False, True]


def test_the_bytes_of_a_version_come_back(registry: ModelRegistry) -> None:
    versions = [register(registry, bytes([number]) * 1000) for number in range(2)]
    assert [registry.bundle(version) for version in versions] == [b"\x00" * 1000, b"\x01" * 1000]


def test_a_version_that_does_not_exist_is_named(registry: ModelRegistry) -> None:
    for ask in (registry.bundle, registry.version):
        with pytest.raises(NoSuchVersion, match="no version 7"):
            ask(7)
    with pytest.raises(ModelRegistryError):
        registry.promote(7)


def test_more_is_said_of_a_version_later(registry: ModelRegistry) -> None:
    version = register(registry)
    registry.tag(version, {"promoted_by": "ada", "verdict": "refused"})
    found = registry.version(version)
    assert (found.version, found.champion, found.metrics) == (version, False, {"ndcg_at_10": 0.25})
    assert found.tags == {"promoted_by": "ada", "verdict": "refused"}
    assert found == registry.versions()[0]


def test_a_registry_opened_again_holds_what_it_held(registry: ModelRegistry, place: Path) -> None:
    registry.promote(register(registry))
    again = ModelRegistry(f"sqlite:///{place / 'registry.db'}", place / "artifacts", registry.model)
    assert again.champion() == 1
    assert again.bundle(1) == b"bundle"


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRegistryError, match="gopher"):
        ModelRegistry("gopher://nowhere", tmp_path, "films")
    with pytest.raises(ModelRegistryError):
        ModelRegistry("http://127.0.0.1:9", tmp_path, "films")


def test_the_registry_says_nothing_on_the_terminal(place: Path) -> None:
    """No progress bars, no hints about git, no telemetry notes."""
    code = (
        "from pathlib import Path; from infra.model_registry import ModelRegistry\n"
        f"place = Path({str(place)!r})\n"
        "registry = ModelRegistry(f'sqlite:///{place}/registry.db', place / 'artifacts', 'quiet')\n"
        "with registry.runs.run('training') as run_id: version = registry.register(run_id, b'x', {})\n"
        "registry.promote(version); registry.versions(); registry.bundle(version)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_two_who_open_a_new_registry_at_once_both_have_it(tmp_path: Path) -> None:
    """A command and the schedule do, on a platform's first day; MLflow alone makes one of them fail."""
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    words = "from pathlib import Path; from infra.model_registry import ModelRegistry; import mlflow, time; "
    opening = f"ModelRegistry({url!r}, Path({str(tmp_path)!r}), 'films')"
    begun = time.time() + 6
    both = [
        subprocess.Popen(
            [sys.executable, "-c", f"{words}time.sleep(max(0, {begun} - time.time())); {opening}"],
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [one.communicate(timeout=120)[1] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
