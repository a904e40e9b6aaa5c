"""Figures with their intervals, the result file, and the command that writes it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from typer.testing import CliRunner

import marquee
import workshop.main
from workshop.rounds_report import Played, mean
from workshop.world import Plan

ROOT = Path(__file__).parents[3]
ARMS = ("popularity", "stale", "nearline", "fresh", "oracle")
COMMAND = ["audience", "--rounds", "2", "--users", "60"]


def played(worlds: int = 3) -> Played:
    """Rates of .1, .2, … in the first round, .01 more in the second; worlds differ by .01, alike in all arms."""
    arm, round_, world = np.arange(1, 6)[:, None], np.arange(2), np.arange(worlds)[:, None, None]
    return Played("a command", Plan(), ARMS, 0.1 * arm + 0.01 * round_ + 0.01 * world)


def test_the_interval_is_students() -> None:
    """Three worlds have two degrees of freedom: 4.303 standard errors."""
    figure = mean(np.array([1.0, 2.0, 4.0]))
    error = np.std([1, 2, 4], ddof=1) / np.sqrt(3)
    assert (figure.high - figure.value) / error == pytest.approx(4.303, abs=0.001)


def test_differences_are_taken_world_by_world() -> None:
    """What makes all arms of a world better at once is no uncertainty of their difference."""
    one = played()
    assert one.difference("fresh", "nearline") == pytest.approx((0.1, 0.1, 0.1))
    assert one.overall()["fresh"].high - one.overall()["fresh"].low > 0.04


def test_the_result_file_holds_the_command_the_world_and_every_round(tmp_path: Path) -> None:
    picture = played().write(tmp_path / "deep" / "rounds.json")
    result = orjson.loads((tmp_path / "deep" / "rounds.json").read_bytes())
    assert result["command"] == "a command"
    assert result["world"]["drift"] == Plan().drift
    assert result["seeds"] == [1, 2, 3]
    assert result["watch_rate_by_round"]["stale"][1]["value"] == pytest.approx(0.22)
    assert result["difference"]["oracle - fresh"]["value"] == pytest.approx(0.1)
    assert all(f">{arm}<" in picture.read_text() for arm in ARMS), "every line has its name beside it"


def test_one_world_has_figures_but_no_interval() -> None:
    one = played(worlds=1)
    assert one.result()["watch_rate"]["fresh"] == {"value": 0.405, "low": None, "high": None}
    assert one.table().row_count == len(ARMS)


def test_the_figures_in_the_document_are_those_of_the_result_file() -> None:
    """Arm by arm: the mean over all rounds, what it is beyond popularity, and half of each interval."""
    result = orjson.loads((ROOT / "bench/results/rounds.json").read_bytes())
    rows = re.findall(r"^\| (\w+)[:,][^|]*\| ([^|]*) \| ([^|]*) ?\|$", (ROOT / "docs/simulation.md").read_text(), re.M)
    assert [arm for arm, *_ in rows] == list(ARMS)
    for arm, overall, beyond in rows:
        assert overall == written(result["watch_rate"][arm])
        gained = result["difference"].get(f"{arm} - popularity")
        assert beyond.strip() == (written(gained) if gained else "")


def written(figure: dict[str, float]) -> str:
    """As the document writes it.

    >>> written({"value": 0.25, "low": 0.2, "high": 0.3})
    '.250 ± .050'
    """
    return f"{figure['value']:.3f} ± {figure['high'] - figure['value']:.3f}".replace("0.", ".")


def run(out: Path) -> Any:
    return CliRunner().invoke(marquee.app, [*COMMAND, "--seeds", "2", "--out", str(out)])


def test_the_same_command_writes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    done = [run(tmp_path / name) for name in ("one.json", "two.json")]
    assert [each.exit_code for each in done] == [0, 0]
    assert "oracle" in done[0].output
    for suffix in (".json", ".svg"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()
    worlds = orjson.loads((tmp_path / "one.json").read_bytes())["watch_rate"]["fresh"]
    assert worlds["low"] < worlds["high"], "the two worlds are not the same"


@pytest.fixture
def stopped_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Ctrl-C comes in the world of this seed."""
    seeds: list[int] = []
    real = workshop.main.play

    def play(plan: Plan, number: int, seed: int, **more: Any) -> Any:
        if seed in seeds:
            raise KeyboardInterrupt
        return real(plan, number, seed, **more)

    monkeypatch.setattr(workshop.main, "play", play)
    return seeds


def test_ctrl_c_leaves_the_worlds_that_were_done(stopped_in: list[int], tmp_path: Path) -> None:
    stopped_in.append(2)
    done = run(tmp_path / "rounds.json")
    assert done.exit_code == 130
    assert "1 of 2 worlds" in done.output
    assert orjson.loads((tmp_path / "rounds.json").read_bytes())["seeds"] == [1]


def test_ctrl_c_in_the_first_world_says_that_there_is_nothing(stopped_in: list[int], tmp_path: Path) -> None:
    stopped_in.append(1)
    done = run(tmp_path / "rounds.json")
    assert done.exit_code == 130
    assert "nothing to show" in done.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["--rounds", "2", "--rate", "3"], ["--seeds", "3"], ["--out", "x.json"]])
def test_an_option_that_would_do_nothing_is_refused(words: list[str]) -> None:
    done = CliRunner().invoke(marquee.app, ["audience", *words], env={"COLUMNS": "200", "TERM": "dumb"})
    assert done.exit_code == 2
    assert "does nothing" in done.output
