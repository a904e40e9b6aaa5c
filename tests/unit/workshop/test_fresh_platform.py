"""A platform of one's own empties its folder, so it looks first whose that is."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.settings import SECRETS_FILE, Settings
from workshop.client import PlatformError
from workshop.fresh_platform import FreshPlatform


@pytest.fixture(autouse=True)
def _variables_as_before() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ |= before


def test_a_folder_that_is_no_platform_s_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "diary").write_text("mine")
    with pytest.raises(PlatformError, match="would be emptied"):
        FreshPlatform(tmp_path)
    assert (tmp_path / "diary").exists()


def test_what_an_earlier_platform_left_goes_and_the_new_one_has_secrets_of_its_own(tmp_path: Path) -> None:
    FreshPlatform(tmp_path)
    before = (tmp_path / SECRETS_FILE).read_text()
    (tmp_path / "ledger.db").touch()
    FreshPlatform(tmp_path)
    assert not (tmp_path / "ledger.db").exists()
    assert (tmp_path / SECRETS_FILE).read_text() != before


def test_its_settings_are_those_of_this_process(tmp_path: Path) -> None:
    platform = FreshPlatform(tmp_path, {"TUNE_SECONDS": "7"})
    assert os.environ["MARQUEE_DATA"] == str(tmp_path)
    assert platform.settings.tune_seconds == 7
    usual = {name: field.default for name, field in Settings.model_fields.items() if name.endswith("_port")}
    assert not {name for name, port in usual.items() if getattr(platform.settings, name) == port}


def test_a_command_that_does_not_end_well_is_an_error_that_says_what_it_printed(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=r"marquee promote 2 --force ended with 2(?s:.*)--reason"):
        FreshPlatform(tmp_path).command("promote", "2", "--force")
