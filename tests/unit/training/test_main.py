"""The commands of training, with settings from the environment: exit codes, what they print, and nothing secret."""

import getpass
import json
import re
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from infra.lake import EVENTS, Lake, Span
from infra.online_store import OnlineStore
from training import main, parts, promotion
from training.progress import read_training
from training.publish import current

Rows = Callable[..., pl.DataFrame]
Grant = Callable[..., None]


@pytest.fixture(autouse=True)
def environment(
    tmp_path: Path, redis_url: str, store: OnlineStore, empty_registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A platform of the test's own."""
    del store
    (tmp_path / "registry.db").write_bytes(empty_registry.read_bytes())
    monkeypatch.setattr(main, "configure_logs", lambda *_: None)
    monkeypatch.setenv("MARQUEE_DATA", str(tmp_path))
    monkeypatch.setenv("MARQUEE_TUNE_SECONDS", "0")
    monkeypatch.setenv("MARQUEE_REDIS", redis_url)
    monkeypatch.setenv("MARQUEE_SECRET", "a secret of the tests")
    monkeypatch.setenv("MARQUEE_DOMAIN", str(Path(__file__).parents[3] / "domain.toml"))


@pytest.fixture
def landed(tmp_path: Path, viewers: Rows, grant: Grant) -> None:
    """Sixty viewers in the lake."""
    rows = viewers()
    Lake(str(tmp_path / "lake")).append(EVENTS, rows, {0: Span(0, rows.height)})
    grant(rows["user_id"].unique())


@pytest.mark.usefixtures("landed")
def test_train_status_and_rollback(store: OnlineStore, capsys: pytest.CaptureFixture[str]) -> None:
    """Two versions, back to the first; the outcome is one line of JSON where nobody looks at a terminal."""
    assert main.train_once() == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["result"] == "published"
    assert main.train_once() == 0
    last = read_training(store).last
    assert last is not None
    assert (last.result, last.version) == ("published", 2)
    assert main.rollback(None) == 0
    assert current(store) == 1
    found = main.status()
    assert (found.served, found.kept, found.landed, found.lake_duplicates) == (1, [1, 2], 720, 0)
    assert [(one.version, one.champion) for one in found.versions] == [(2, False), (1, True)]
    capsys.readouterr()
    assert main.print_status() == 0
    printed = capsys.readouterr().out
    assert "served, champion" in printed
    assert "events in the lake: 720, written twice: 0" in printed
    assert "u001" not in printed


@pytest.mark.usefixtures("landed")
def test_versions_are_shown_compared_tuned_and_promoted(
    store: OnlineStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main.train_once() == 0
    assert main.tune(0.0, "time") == 0
    assert re.search(r"The best of \d+ trials", capsys.readouterr().out)
    with monkeypatch.context() as patch:
        patch.setattr(promotion, "GAIN", 100.0)
        assert main.train_once() == 3
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["result"] == "refused"
    assert main.promote(2, force=False, reason="") == 1
    assert main.promote(2, force=True, reason="[the] hold-out is broken") == 0
    assert current(store) == 2
    capsys.readouterr()

    assert main.print_models(None) == 0
    listed = capsys.readouterr().out
    assert re.search(r"^ 2 .* refused .*served, champion, by force", listed, re.M)
    assert re.search(r"^ 1 .* passed ", listed, re.M)
    assert main.print_models(2) == 0
    shown = capsys.readouterr().out
    for said in (
        "failed: nDCG@10",
        "[the] hold-out is broken",
        getpass.getuser(),
        "snapshot digest",
        "model_card.md",
        "recency.boost",
        "peak_memory_mb",
    ):
        assert said in shown
    card = Path(re.search(r"model card\s+(\S+)", shown)[1])  # type: ignore[index]
    assert card.read_text().startswith("# films, version 2")
    assert main.print_models(2, card=True) == 0
    assert capsys.readouterr().out == card.read_text()

    assert main.print_diff(1, 2, 2000) == 0
    compared = capsys.readouterr().out
    assert "people compared, with the same histories  60" in compared
    assert "u001" not in listed + shown + compared
    assert [main.print_models(9), main.print_diff(1, 9, 2000), main.promote(9, force=True, reason="x")] == [1, 1, 1]


def test_data_that_is_not_fit_ends_with_exit_code_3_and_says_why(
    tmp_path: Path, viewers: Rows, grant: Grant, store: OnlineStore, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = viewers(people=4)
    Lake(str(tmp_path / "lake")).append(EVENTS, rows, {0: Span(0, rows.height)})
    grant(rows["user_id"].unique())
    assert main.train_once() == 3
    outcome = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (outcome["result"], outcome["version"]) == ("data_refused", None)
    assert "48 events of 4 people" in outcome["reasons"][0]
    assert current(store) is None


def test_an_empty_lake_fails_with_exit_code_1(store: OnlineStore) -> None:
    assert main.train_once() == 1
    assert main.rollback(None) == 1
    assert main.rollback(9) == 1
    assert current(store) is None
    assert main.status().landed == 0


def test_a_store_that_is_down_fails_with_exit_code_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MARQUEE_REDIS", f"unix://{tmp_path}/nobody.sock")
    assert [main.train_once(), main.rollback(1), main.print_status()] == [1, 1, 1]
    assert [main.print_models(None), main.print_diff(1, 2, 9), main.tune(1, "time")] == [1, 1, 1]


def test_the_code_names_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parts.code_commit()
    monkeypatch.setenv("GIT_COMMIT", "c0ffee")
    assert parts.code_commit() == "c0ffee"
