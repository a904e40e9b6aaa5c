"""Keys are kept hashed, changed whole, and never lost between two who change them at once."""

import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.key_file import KeyFile, KeyScope, KeysError, Quota

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    """A file that is not there yet, in a folder that is not either, on a day in March."""
    return KeyFile(tmp_path / "new" / "keys.json", lambda: NOW)


def id_of(key: str) -> str:
    return key.split("_")[1]


def test_a_key_is_made_once_and_only_its_digest_stays(keys: KeyFile) -> None:
    made = keys.create("web", [KeyScope.EVENTS, KeyScope.EVENTS], Quota.of(5), NOW + timedelta(days=1))
    prefix, key_id, secret = made.split("_", 2)
    assert (prefix, len(secret)) == ("mq", 43)
    assert secret not in keys.path.read_text()
    [stored] = keys.read()
    assert (stored.id, stored.name, stored.scopes) == (key_id, "web", ("events",))
    assert (stored.quota, stored.created_at) == (Quota(rate=5, burst=50), NOW)
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    assert [path.name for path in keys.path.parent.iterdir()] == ["keys.json"]


def test_no_two_keys_are_alike(keys: KeyFile) -> None:
    made = {keys.create("web", [KeyScope.EVENTS]) for _ in range(20)}
    assert len(made) == len({key.digest for key in keys.read()}) == len({key.id for key in keys.read()}) == 20


def test_a_revoked_key_stays_in_the_list_and_is_revoked_once(keys: KeyFile) -> None:
    key_id = id_of(keys.create("web", [KeyScope.EVENTS]))
    keys.revoke(key_id)
    keys._now = lambda: NOW + timedelta(days=1)
    keys.revoke(key_id)
    [stored] = keys.read()
    assert (stored.state(NOW), stored.revoked_at) == ("revoked", NOW)


def test_a_rotated_key_keeps_what_it_may_and_its_former_secrets_until_their_grace_is_over(keys: KeyFile) -> None:
    first = keys.create("web", [KeyScope.ITEMS])
    second = keys.rotate(id_of(first), timedelta(seconds=60))
    third = keys.rotate(id_of(first), timedelta(seconds=30))
    assert len({first, second, third}) == 3
    assert {id_of(first), id_of(second)} == {id_of(third)}
    [stored] = keys.read()
    assert stored.scopes == ("items",)
    assert [each.until for each in stored.former] == [NOW + timedelta(seconds=60), NOW + timedelta(seconds=30)]
    keys._now = lambda: NOW + timedelta(seconds=45)
    keys.rotate(id_of(first), timedelta(0))
    assert [each.until for each in keys.read()[0].former] == [NOW + timedelta(seconds=60)]


def test_what_has_ended_is_not_rotated(keys: KeyFile) -> None:
    revoked = id_of(keys.create("web", [KeyScope.EVENTS]))
    keys.revoke(revoked)
    expired = id_of(keys.create("web", [KeyScope.EVENTS], expires_at=NOW))
    for key_id, word in ((revoked, "revoked"), (expired, "expired"), ("nobody", "no key nobody")):
        with pytest.raises(KeysError, match=word):
            keys.rotate(key_id, timedelta(0))


@pytest.mark.parametrize(
    "text", ["", "{", '{"keys": [{"id": "web-1"}]}', '{"keys": [], "more": 1}', '{"keys": [{"scopes": ["all"]}]}']
)
def test_a_file_that_is_none_is_an_error_that_does_not_repeat_it(keys: KeyFile, text: str) -> None:
    keys.path.parent.mkdir()
    keys.path.write_text(text)
    with pytest.raises(KeysError, match=r"keys\.json is not as `marquee keys` writes it") as error:
        keys.read()
    assert "web-1" not in str(error.value)
    with pytest.raises(KeysError):
        keys.create("web", [KeyScope.EVENTS])
    assert keys.path.read_text() == text


def test_an_id_is_there_once(keys: KeyFile) -> None:
    keys.create("web", [KeyScope.EVENTS])
    text = keys.path.read_text()
    start, end = text.index("[") + 1, text.rindex("]")
    keys.path.write_text(f"{text[:end]},{text[start:end]}{text[end:]}")
    with pytest.raises(KeysError):
        keys.read()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KeysError, match="cannot be written"):
        KeyFile(tmp_path / "file" / "keys.json").create("web", [KeyScope.EVENTS])


def test_of_many_who_change_it_at_once_none_is_lost(keys: KeyFile) -> None:
    """The file is locked from reading to writing; whoever reads meanwhile finds a whole one."""
    keys.create("first", [KeyScope.EVENTS])
    threads = [threading.Thread(target=keys.create, args=(f"n{n}", [KeyScope.EVENTS])) for n in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert keys.read()
    assert sorted(key.name for key in keys.read()) == ["first", *(f"n{n}" for n in range(8))]
