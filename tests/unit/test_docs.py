"""The documents and the code agree: an undocumented setting, route or command fails here."""

import re
from pathlib import Path

import pytest
from pydantic import SecretStr
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


def test_the_example_of_an_environment_names_every_secret_and_every_store_and_sets_nothing() -> None:
    """`.env.example` is in step with the settings, and nobody's secret is in it."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    fields = Settings.model_fields.items()
    secret = {name for name, field in fields if field.annotation is SecretStr or not field.repr}
    files = {name for name in Settings.model_fields if name.endswith("_file")} | {"keys", "lake", "plain_hosts"}
    named = {line.removeprefix("# ").partition("=")[0]: line.partition("=")[2] for line in lines if "MARQUEE_" in line}
    assert all(not line or line.startswith("#") for line in lines)
    assert named.keys() == {f"MARQUEE_{name.upper()}" for name in secret | files}
    assert all(not named[f"MARQUEE_{name}"] for name in ("API_KEY", "SECRET"))
    assert all("USER:PASSWORD@" in value for value in named.values() if "://" in value)


def test_every_secret_and_every_url_of_a_store_is_kept_out_of_a_printed_setting() -> None:
    """Whoever adds one has to say so."""
    for name, field in Settings.model_fields.items():
        if re.search(r"secret|password|api_key", name) or "://" in str(field.description):
            assert field.annotation is SecretStr or not field.repr, name
        assert not (field.annotation is SecretStr and field.default.get_secret_value()), name


def test_every_module_and_test_of_the_threat_model_exists() -> None:
    """And each of the ten risks has its row."""
    model = (ROOT / "docs/threat-model.md").read_text()
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", model))
    assert {name for name in named if f"def {name}(" not in tests} == set()
    assert {path for path in re.findall(r"`([a-z_]+/[a-z_/]+\.[a-z]+)`", model) if not _is_there(path)} == set()
    assert re.findall(r"^\| (API\d+) ", model, re.M) == [f"API{number}" for number in range(1, 11)]


def _is_there(path: str) -> bool:
    return path.startswith("var/") or (ROOT / path).exists()


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


DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), ROOT / "workshop/lessons/README.md"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_document_leads_somewhere_on_a_code_host_too(path: Path) -> None:
    """To a file of the repository, and to a heading of it. Of the site, tests/browser/test_site.py says the same."""
    for target, heading in re.findall(r"\]\((?!https?:)([^)\s#]*)(?:#([^)\s]*))?\)", path.read_text()):
        place = path.parent / target if target else path
        assert place.exists(), target
        assert not heading or heading in _headings(place.read_text()), f"{target}#{heading}"


def _headings(markdown: str) -> set[str]:
    """What code hosts make of them: small letters, hyphens for spaces, and nothing but words."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", markdown, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_lock_pins_by_hash_and_names_no_index() -> None:
    """Whoever installs decides where from; what arrives is what was locked."""
    lock = (ROOT / "requirements.lock").read_text()
    pinned = re.findall(r"^[a-z0-9-]+==\S+(?: ; [^\\]+)? \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", lock, re.M)
    assert "".join(pinned) == lock
    assert "://" not in lock


def _code(markdown: str) -> list[str]:
    return ["".join(parts) for parts in re.findall(r"```.*?\n(.*?)```|`([^`\n]+)`", markdown, re.S)]
