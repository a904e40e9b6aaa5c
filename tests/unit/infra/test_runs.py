"""Runs hold what they are told, in a real MLflow on SQLite, and say how they ended."""

import time
from pathlib import Path

import pytest

from infra.model_registry import ModelRegistry
from infra.runs import ENDED_WITHOUT_A_WORD, FAILURE, PARENT, PURGED, Child, Runs


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a registry that the tests of this module share: MLflow takes seconds to make its tables."""
    return tmp_path_factory.mktemp("registry")


@pytest.fixture
def runs(place: Path, request: pytest.FixtureRequest) -> Runs:
    """The runs of an experiment of the test's own name."""
    return ModelRegistry(f"sqlite:///{place / 'registry.db'}", place / "artifacts", request.node.name).runs


def test_a_run_holds_parameters_figures_words_and_files(runs: Runs) -> None:
    with runs.run("training", {"code": "c0ffee"}) as run_id:
        runs.log(
            run_id, parameters={"factors": 64}, metrics={"ndcg_at_10": 0.25}, tags={"gate.coverage": "passed: 3 %"}
        )
        runs.log_files(run_id, {"card.md": b"# films", "plot.png": b"\x89PNG"})
    run = runs.with_ids([run_id])[run_id]
    assert (run.status, run.parameters, run.metrics) == ("FINISHED", {"factors": "64"}, {"ndcg_at_10": 0.25})
    assert {"code": "c0ffee", "gate.coverage": "passed: 3 %", "kind": "training"}.items() <= run.tags.items()
    assert runs.file(run_id, "card.md") == b"# films"
    assert Path(f"{run.artifacts.removeprefix('file://')}/plot.png").read_bytes() == b"\x89PNG"
    assert run.started_at.tzinfo is not None


def test_more_than_mlflow_takes_at_once_is_told_in_parts(runs: Runs) -> None:
    many = {f"name{number}": str(number) for number in range(250)}
    with runs.run("training") as run_id:
        runs.log(run_id, parameters=many, tags=many, metrics={name: float(value) for name, value in many.items()})
        runs.log(run_id, tags={"long": "x" * 10_000})
    run = runs.with_ids([run_id])[run_id]
    assert (len(run.parameters), len(run.metrics)) == (250, 250)
    assert many.items() <= run.tags.items()
    assert run.tags["long"].endswith("x …")


def test_a_run_that_raises_ends_as_failed_with_the_reason(runs: Runs) -> None:
    with pytest.raises(ZeroDivisionError), runs.run("training"):
        raise ZeroDivisionError("by the test")
    run = runs.of_kind("training")[0]
    assert (run.status, run.tags[FAILURE]) == ("FAILED", "ZeroDivisionError: by the test")


def test_an_interrupted_run_ends_as_failed_too(runs: Runs) -> None:
    with pytest.raises(KeyboardInterrupt), runs.run("tuning"):
        raise KeyboardInterrupt
    assert runs.of_kind("tuning")[0].status == "FAILED"


def test_runs_of_killed_processes_are_ended_those_of_other_kinds_left_alone(runs: Runs) -> None:
    killed, other = runs.start("training", {}), runs.start("tuning", {})
    with runs.run("training") as ended:
        pass
    assert runs.end_abandoned("training") == 1
    found = runs.with_ids([killed, other, ended])
    assert [found[one].status for one in (killed, other, ended)] == ["FAILED", "RUNNING", "FINISHED"]
    assert found[killed].tags[FAILURE] == ENDED_WITHOUT_A_WORD


def test_runs_of_a_kind_are_listed_newest_first(runs: Runs) -> None:
    made = []
    for kind in ("training", "tuning", "training"):
        made.append(runs.start(kind, {}))
        time.sleep(0.002)  # They are ordered by the millisecond.
    assert [run.run_id for run in runs.of_kind("training")] == [made[2], made[0]]


def test_children_hang_below_their_run_with_state_and_duration(runs: Runs) -> None:
    with runs.run("tuning") as run_id:
        runs.log_children(
            run_id,
            [
                Child("trial 0", {"factors": 64}, {"ndcg_at_10": 0.2}, {"state": "complete"}, 2.5),
                Child("trial 1", {"factors": 32}, {}, {"state": "pruned"}, 0.5, "KILLED"),
            ],
        )
    found = {run.tags["mlflow.runName"]: run for run in runs.below(run_id)}
    assert [found[name].status for name in ("trial 0", "trial 1")] == ["FINISHED", "KILLED"]
    assert (found["trial 0"].parameters, found["trial 0"].metrics) == ({"factors": "64"}, {"ndcg_at_10": 0.2})
    assert {run.tags[PARENT] for run in found.values()} == {run_id}
    assert [run.run_id for run in runs.of_kind("tuning")] == [run_id], "children are no runs of the kind"


def test_many_runs_are_found_by_their_ids(runs: Runs) -> None:
    made = [runs.start("training", {}) for _ in range(103)]
    assert runs.with_ids(made).keys() == set(made)


def test_all_runs_of_a_kind_are_found_however_many_there_are(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow gives them a page at a time."""
    made = [runs.start("training", {}) for _ in range(5)]
    runs.start("tuning", {})
    monkeypatch.setattr("infra.runs.AT_ONCE", 2)
    assert {run.run_id for run in runs.all_of_kind("training")} == set(made)


def test_a_purged_run_has_no_files_and_keeps_its_figures(runs: Runs) -> None:
    """Purging it again, where it was cut short, does no harm."""
    run_id = runs.start("training", {})
    runs.log(run_id, metrics={"ndcg_at_10": 0.25})
    runs.log_files(run_id, {"bundle.zip": b"learned from somebody"})
    [run] = runs.all_of_kind("training")
    folder = Path(run.artifacts.removeprefix("file://"))
    assert (folder / "bundle.zip").exists()
    for _ in range(2):
        runs.purge(run, "somebody was erased")
    assert not folder.exists()
    [after] = runs.all_of_kind("training")
    assert (after.metrics["ndcg_at_10"], after.tags[PURGED]) == (0.25, "somebody was erased")
