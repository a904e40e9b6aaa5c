"""Every part is embedded unless its URL says otherwise."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from infra.settings import SECRETS_FILE, load_settings


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder, named by the environment."""
    monkeypatch.setenv("MARQUEE_DATA", str(tmp_path))
    return tmp_path


def test_by_default_every_store_is_below_the_data_folder(data: Path) -> None:
    settings = load_settings()
    stores = [settings.redis_url, settings.event_log_url, settings.lake_uri, settings.database_url]
    stores += [settings.registry_uri, str(settings.artifacts)]
    assert all(str(data) in store for store in stores)


def test_the_event_log_is_the_redis_that_was_named_until_it_has_a_url_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MARQUEE_REDIS", "redis://cache:6379")
    assert load_settings().event_log_url == "redis://cache:6379"
    monkeypatch.setenv("MARQUEE_EVENT_LOG", "kafka://broker:9092")
    assert load_settings().event_log_url == "kafka://broker:9092"


def test_the_environment_wins_over_the_secrets_file(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / SECRETS_FILE).write_text("MARQUEE_API_KEY=from-file\n")
    assert load_settings().api_key.get_secret_value() == "from-file"
    monkeypatch.setenv("MARQUEE_API_KEY", "from-environment")
    assert load_settings().api_key.get_secret_value() == "from-environment"


def test_a_printed_setting_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARQUEE_API_KEY", "hush")
    monkeypatch.setenv("MARQUEE_SECRET", "hush")
    assert "hush" not in repr(load_settings())


def test_a_setting_that_does_not_parse_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARQUEE_PARTITIONS", "many")
    with pytest.raises(ValidationError, match="partitions"):
        load_settings()
