"""Every lesson runs as a learner would run it, and ends in a figure that it made."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

pytestmark = [pytest.mark.e2e]

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "workshop/lessons"
LESSONS = sorted(path.name for path in FOLDER.glob("lesson_*.py"))
LONGEST_SECONDS = 280
README = (FOLDER / "README.md").read_text()


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_runs_and_leaves_its_figure(name: str) -> None:
    done = subprocess.run(
        [sys.executable, FOLDER / name], cwd=ROOT, capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    [figure] = re.findall(r"^Your figure: (var/lessons/\S+)$", done.stdout, re.M)
    assert f'"{figure}"' in (FOLDER / name).read_text()
    assert drawn(ROOT / figure) > 1, "an empty figure"


def test_an_empty_figure_is_found_out(tmp_path: Path) -> None:
    empty, _ = plt.subplots(2, 1)
    empty.suptitle("Nothing but words")
    empty.savefig(tmp_path / "empty.svg")
    plt.close(empty)
    assert drawn(tmp_path / "empty.svg") == 0


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_says_what_is_learnt_and_needed_and_how_long_it_takes_and_ends_with_what_to_try(name: str) -> None:
    text = (FOLDER / name).read_text()
    head = text.partition("# %%\n")[0]
    assert head.startswith(f"# %% [markdown]\n# # {name.split('_')[1]}. ")
    assert {"**You will learn**", "**You need**", "**Time**: 15 to 20 minutes"} <= set(
        re.findall(r"\*\*[^*]+\*\*(?:: 15 to 20 minutes)?", head)
    )
    assert text.count("**?**") >= 3
    assert "\n# ## Try this\n" in text


def test_the_table_of_lessons_is_whole() -> None:
    assert re.findall(r"^\| \d \| \[.*?\]\((lesson_\d_\w+\.py)\)", README, re.M) == LESSONS


def drawn(picture: Path) -> int:
    """How many lines, bars and sets of points an SVG of matplotlib's shows, axes and words left out."""
    axes = [group for group in ET.parse(picture).iter() if group.get("id", "").startswith("axes_")]
    frame = 5  # A background and four sides; a side that is hidden makes room for a mark, which is well enough.
    marks = ("patch_", "line2d_", "PathCollection_", "FillBetween", "LineCollection_")
    return sum(max(0, sum(part.get("id", "").startswith(marks) for part in one) - frame) for one in axes)
