"""The embedded platform's Redis and secrets."""

import stat
from pathlib import Path

import pytest

from infra.embedded import EmbeddedError, make_secrets, redis_command, redis_server
from infra.online_store import connect
from infra.settings import SECRETS_FILE, load_settings


def test_secrets_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    make_secrets(tmp_path / "data")
    mode = (tmp_path / "data" / SECRETS_FILE).stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_secrets_are_made_once(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    first = (tmp_path / SECRETS_FILE).read_text()
    make_secrets(tmp_path)
    assert (tmp_path / SECRETS_FILE).read_text() == first


def test_each_platform_has_secrets_of_its_own(tmp_path: Path) -> None:
    make_secrets(tmp_path / "one")
    make_secrets(tmp_path / "two")
    one, two = (set((tmp_path / name / SECRETS_FILE).read_text().splitlines()) for name in ("one", "two"))
    assert not one & two


def test_the_settings_find_the_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "SECRET"):
        monkeypatch.delenv(f"MARQUEE_{name}", raising=False)
    monkeypatch.setenv("MARQUEE_DATA", str(tmp_path))
    make_secrets(tmp_path)
    settings = load_settings()
    assert len(settings.api_key.get_secret_value()) >= 32
    assert len(settings.secret.get_secret_value()) >= 32


def test_there_is_a_redis_to_run() -> None:
    assert redis_server().is_file()


def test_a_socket_path_that_unix_does_not_allow_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match="MARQUEE_DATA"):
        redis_command(tmp_path / ("long" * 30) / "redis.sock")


def test_the_embedded_redis_syncs_every_write_and_evicts_nothing(redis_url: str) -> None:
    client = connect(redis_url)
    config = client.config_get("append*", "maxmemory-policy")
    client.close()
    assert config["appendonly"] == "yes"
    assert config["appendfsync"] == "always"
    assert config["maxmemory-policy"] == "noeviction"
