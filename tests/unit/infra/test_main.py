"""Keys from the command line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import marquee
from infra.key_file import KeyFile
from infra.keys import Keys
from infra.main import _may_sign_in
from infra.settings import Settings


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyFile:
    """The file of keys that the settings name, which is not there yet."""
    for name in ("DATA", "KEYS", "API_KEY"):
        monkeypatch.delenv(f"MARQUEE_{name}", raising=False)
    monkeypatch.setenv("MARQUEE_DATA", str(tmp_path))
    monkeypatch.setenv("MARQUEE_KEYS", str(tmp_path / "elsewhere/keys.json"))
    return KeyFile(tmp_path / "elsewhere/keys.json")


def keys(*words: str) -> Result:
    return CliRunner().invoke(marquee.app, ["keys", *words], env={"COLUMNS": "200", "TERM": "dumb"})


def test_a_key_lives_from_create_to_revoke(file: KeyFile) -> None:
    made = keys("create", "--name", "web shop", "--scope", "events", "--scope", "items", "--rate", "50", "--expires",
                "2999-12-31")  # fmt: skip
    assert made.exit_code == 0
    key = made.stdout.strip()
    key_id = key.split("_")[1]
    caller = Keys(file).find(key.encode())
    assert caller is not None
    assert (caller.scopes, caller.quota) == ({"events", "items"}, file.read()[0].quota)

    listed = keys("list").stdout
    shown_id, state, _, *rest = listed.strip().split("  ")
    assert (shown_id, state) == (key_id, "active")
    assert rest == ["events items", "50/s, 500 at once", "until 2999-12-31 00:00", "web shop"]
    assert key.split("_", 2)[2] not in listed

    rotated = keys("rotate", key_id, "--grace", "60")
    assert rotated.stdout.strip() != key
    assert {Keys(file).find(each.strip().encode()) for each in (key, rotated.stdout)} == {caller}

    assert keys("revoke", key_id).exit_code == 0
    assert Keys(file).find(rotated.stdout.strip().encode()) is None
    assert "revoked" in keys("list").stdout


def test_who_rotates_the_commands_own_key_is_told_to_exchange_it(
    file: KeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = keys("create", "--name", "x", "--scope", "operate").stdout.strip()
    assert keys("rotate", key.split("_")[1]).stderr == ""
    monkeypatch.setenv("MARQUEE_API_KEY", key)
    assert "MARQUEE_API_KEY holds this key as it was" in keys("rotate", key.split("_")[1]).stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["create", "--name", "x"], 2, "--scope"),
        (["create", "--name", "x", "--scope", "all"], 2, "'events'"),
        (["create", "--name", "x", "--scope", "events", "--burst", "5"], 2, "give --rate too"),
        (["list"], 1, "cannot be read"),
        (["revoke", "nobody"], 1, "There is no key nobody"),
    ],
)
def test_what_cannot_be_done_is_said(file: KeyFile, words: list[str], code: int, said: str) -> None:
    done = keys(*words)
    assert (done.exit_code, done.stdout) == (code, "")
    assert said in done.stderr


@pytest.mark.parametrize(
    ("given", "offered"),
    [
        ({}, True),
        ({"host": "localhost"}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "192.0.2.1"}, False),
        ({"jwt_key_file": "login.pem"}, False),
        ({"demo_login": "false"}, False),
    ],
)
def test_the_login_for_demonstrations_is_offered_on_this_machine_where_there_is_no_other(
    given: dict[str, str], offered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"MARQUEE_{name.upper()}", value)
    assert _may_sign_in(Settings()) is offered
