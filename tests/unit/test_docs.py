"""The documents and the code agree: an undocumented setting, route or command fails here."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

import marquee
from infra.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented(name: str) -> None:
    """docs/settings.md has a row with the variable's name and the setting's own description."""
    description = Settings.model_fields[name].description
    assert re.search(
        rf"^\| `MARQUEE_{name.upper()}` \|.*{re.escape(str(description))}",
        (ROOT / "docs/settings.md").read_text(),
        re.M,
    )


def test_every_documented_setting_exists() -> None:
    """No document names a MARQUEE_ variable that nobody reads."""
    known = {f"MARQUEE_{name.upper()}" for name in Settings.model_fields}
    known |= {"MARQUEE_REQUIRE_SERVICES", "MARQUEE_TEST_KAFKA", "MARQUEE_TEST_POSTGRES"}
    documents = [README, *(path.read_text() for path in ROOT.glob("docs/**/*.md"))]
    assert {name for text in documents for name in re.findall(r"\bMARQUEE_[A-Z_]*[A-Z]\b", text)} <= known


def test_every_make_target_in_the_readme_exists() -> None:
    """What the README tells people to type is in the Makefile."""
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", "\n".join(_code(README))))
    assert named
    assert named <= set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))


def test_every_command_is_in_the_readme_and_teaches() -> None:
    """Each `marquee` command has a help text, and the README names it."""
    for name, command in get_command(marquee.app).commands.items():  # type: ignore[attr-defined]
        assert command.help, name
        assert f"marquee {name}" in README, name


def test_every_file_of_the_house_is_in_the_readme() -> None:
    """Each module and folder of the stages has its line in the README's map."""
    modules = {
        path.name for stage in ("ingest", "training", "serving", "infra") for path in (ROOT / stage).glob("*.py")
    }
    assert {name for name in modules - {"__init__.py", "main.py"} if name not in README} == set()


def test_the_lock_pins_by_hash_and_names_no_index() -> None:
    """Whoever installs decides where from; what arrives is what was locked."""
    lock = (ROOT / "requirements.lock").read_text()
    pinned = re.findall(r"^[a-z0-9-]+==\S+(?: ; [^\\]+)? \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", lock, re.M)
    assert "".join(pinned) == lock
    assert "://" not in lock


def _code(markdown: str) -> list[str]:
    return ["".join(parts) for parts in re.findall(r"```.*?\n(.*?)```|`([^`\n]+)`", markdown, re.S)]
