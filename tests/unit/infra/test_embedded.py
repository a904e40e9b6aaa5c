"""The embedded platform's Redis and secrets."""

import stat
from pathlib import Path

import pytest

from infra.embedded import EmbeddedError, make_login_key, make_secrets, redis_command, redis_server
from infra.key_file import KeyFile, KeyScope
from infra.keys import Keys
from infra.online_store import connect
from infra.settings import SECRETS_FILE, load_settings


def make(data: Path) -> KeyFile:
    keys = KeyFile(data / "keys.json")
    make_secrets(data, keys)
    return keys


def test_secrets_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    keys = make(tmp_path / "data")
    for path in (keys.path, tmp_path / "data" / SECRETS_FILE):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_secrets_are_made_once(tmp_path: Path) -> None:
    keys = make(tmp_path)
    first = (tmp_path / SECRETS_FILE).read_text(), keys.read()
    make(tmp_path)
    assert ((tmp_path / SECRETS_FILE).read_text(), keys.read()) == first


def test_each_platform_has_secrets_of_its_own(tmp_path: Path) -> None:
    make(tmp_path / "one")
    make(tmp_path / "two")
    one, two = (set((tmp_path / name / SECRETS_FILE).read_text().splitlines()) for name in ("one", "two"))
    assert not one & two


def test_the_settings_find_the_secrets_and_the_key_opens_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("API_KEY", "SECRET"):
        monkeypatch.delenv(f"MARQUEE_{name}", raising=False)
    monkeypatch.setenv("MARQUEE_DATA", str(tmp_path))
    keys = make(tmp_path)
    settings = load_settings()
    assert settings.keys_file == keys.path
    assert len(settings.secret.get_secret_value()) >= 32
    api_key = settings.api_key.get_secret_value()
    caller = Keys(keys, api_key).find(api_key.encode())
    assert caller is not None
    assert caller.scopes == set(KeyScope)
    assert api_key.rpartition("_")[2] not in keys.path.read_text()


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


def test_what_the_login_signs_with_is_made_once_and_is_its_owners(tmp_path: Path) -> None:
    private = tmp_path / "login.pem"
    public = make_login_key(private)
    first = private.read_bytes(), public.read_bytes()
    make_login_key(private)
    assert (private.read_bytes(), public.read_bytes()) == first
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert b"PRIVATE" not in first[1]
