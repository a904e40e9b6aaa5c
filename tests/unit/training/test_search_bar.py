"""A search shows on a terminal how far it is, and keeps still where nobody looks."""

import pytest

from training.recipe import Recipe
from training.search_bar import SearchBar

ALS, EASE = Recipe("als", {}), Recipe("ease", {})


def search() -> None:
    with SearchBar(60) as bar:
        bar.trying(ALS)
        bar.tried(ALS, 0.3)
        bar.trying(EASE)
        bar.tried(EASE, 0.2)


def test_a_terminal_shows_what_is_tried_and_the_best_so_far(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    search()
    shown = capfd.readouterr().err
    assert "Searching" in shown
    assert "best nDCG@10 0.3000 (als)" in shown
    assert "0.2000" not in shown


def test_a_log_file_is_not_filled_with_bars(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    search()
    assert capfd.readouterr().err == ""
