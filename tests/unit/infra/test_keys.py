"""A key opens while it holds, and what changes in the file changes for callers, without a restart."""

import hashlib
import hmac
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from infra.key_file import KeyFile, KeyScope, KeysError, Quota
from infra.keys import OPERATOR, Keys


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    """A file of keys that is not there yet."""
    return KeyFile(tmp_path / "keys.json")


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets seconds pass, on the clock that rises and on the one on the wall."""
    passed = [0.0]
    moved = SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0], time=lambda: time.time() + passed[0])
    monkeypatch.setattr("infra.keys.time", moved)

    def wait(seconds: float) -> None:
        passed[0] += seconds

    return wait


def test_a_key_tells_who_calls(file: KeyFile) -> None:
    key = file.create("web", [KeyScope.EVENTS], Quota.of(5))
    caller = Keys(file).find(key.encode())
    assert caller is not None
    assert caller == (key.split("_")[1], {"events"}, Quota.of(5), None, "web")


def test_a_key_that_is_not_quite_right_is_nobodys(file: KeyFile) -> None:
    key = file.create("web", [KeyScope.EVENTS]).encode()
    keys = Keys(file)
    _, key_id, secret = key.split(b"_", 2)
    wrong = [b"", b"mq", b"mq_", b"mq__", b"mq_" + key_id, b"mq_" + key_id + b"_", key[:-1], key + b"x", key.upper()]
    wrong += [b"mq_0_" + secret, b"mq__" + secret, key_id + b"_" + secret, secret, b"\xff", b"MQ" + key[2:], b" " + key]
    assert [sent for sent in wrong if keys.find(sent)] == []


def test_the_operators_key_is_in_no_file_and_may_do_everything(file: KeyFile) -> None:
    keys = Keys(file, "a plain one")
    caller = keys.find(b"a plain one")
    assert caller is not None
    assert (caller.key_id, caller.scopes, caller.quota) == (OPERATOR, set(KeyScope), None)
    assert keys.find(b"a plain on") is None


def test_an_operators_key_of_the_files_form_is_no_way_around_the_file(file: KeyFile) -> None:
    """It is the key that the commands send: whether it opens is for the file to say."""
    key = file.create("operator", list(KeyScope))
    keys = Keys(file, key)
    assert keys.find(key.encode())
    file.revoke(key.split("_")[1])
    assert Keys(file, key).find(key.encode()) is None


def test_without_any_key_nothing_starts(file: KeyFile) -> None:
    for operator_key in ("", "mq_abcd_secret"):
        with pytest.raises(KeysError, match="marquee keys create"):
            Keys(file, operator_key)
    file.path.write_text("{")
    with pytest.raises(KeysError, match="not as"):
        Keys(file, "a plain one")


def test_a_key_ends_on_its_day(file: KeyFile, later: Callable[[float], None]) -> None:
    key = file.create("web", [KeyScope.EVENTS], expires_at=datetime.now(UTC) + timedelta(seconds=60)).encode()
    keys = Keys(file)
    assert keys.find(key)
    later(61)
    assert keys.find(key) is None


def test_revoking_and_making_hold_for_who_runs_already(file: KeyFile, later: Callable[[float], None]) -> None:
    """Within a second; and no sooner is the file looked at again."""
    first = file.create("web", [KeyScope.EVENTS])
    keys = Keys(file)
    file.revoke(first.split("_")[1])
    second = file.create("web", [KeyScope.ITEMS])
    assert keys.find(first.encode())
    later(1.1)
    assert keys.find(first.encode()) is None
    assert keys.find(second.encode())


def test_rotating_locks_nobody_out_who_changes_in_time(file: KeyFile, later: Callable[[float], None]) -> None:
    old = file.create("web", [KeyScope.EVENTS]).encode()
    keys = Keys(file)
    new = file.rotate(old.decode().split("_")[1], timedelta(seconds=60)).encode()
    later(1.1)
    assert keys.find(old) == keys.find(new)
    assert keys.find(new)
    later(60)
    assert keys.find(old) is None
    assert keys.find(new)


@pytest.mark.parametrize("what", ["broken", "gone"])
def test_a_file_that_breaks_or_goes_leaves_the_keys_as_they_were_and_is_reported_once(
    file: KeyFile, later: Callable[[float], None], what: str
) -> None:
    key = file.create("web", [KeyScope.EVENTS])
    text, keys = file.path.read_text(), Keys(file)
    if what == "broken":
        file.path.write_text("{")
    else:
        file.path.unlink()
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            later(1.1)
            assert keys.find(key.encode())
    assert [(line["log_level"], line["held"]) for line in logs] == [("error", 1)]
    assert key not in str(logs)
    file.path.write_text(text)
    file.revoke(key.split("_")[1])
    later(1.1)
    assert keys.find(key.encode()) is None


def test_the_file_is_not_touched_between_two_looks(file: KeyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    key = file.create("web", [KeyScope.EVENTS]).encode()
    keys = Keys(file)
    monkeypatch.setattr(Keys, "_look", lambda _: pytest.fail("looked"))
    for _ in range(1000):
        assert keys.find(key)


# --- comparing -------------------------------------------------------------------------------------------------------


def test_an_unknown_id_costs_the_same_digest_and_comparison(file: KeyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digests are compared, in constant time: neither what is stored nor how long it is shows."""
    key = file.create("web", [KeyScope.EVENTS]).encode()
    keys, compared = Keys(file), []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr("infra.keys.hmac", SimpleNamespace(compare_digest=compare))
    for sent in (key, b"mq_unknown_" + key, b"plain", b"mq_"):
        keys.find(sent)
    assert compared == [(32, 32)] * 4


class _BySecretAlone(Keys):
    """A broken one: whatever the id, a secret opens that some key has."""

    def find(self, sent: bytes) -> Any:
        digest = hashlib.sha256(sent.split(b"_", 2)[2]).digest()
        return next((held.caller for held in self._held.values() if held.secrets[0][0] == digest), None)


def test_a_secret_opens_for_its_own_id_only(file: KeyFile) -> None:
    """Else a key would have the scopes of whichever is met first. The test finds such a one."""
    one, other = file.create("one", [KeyScope.EVENTS]), file.create("other", [KeyScope.OPERATE])
    mixed = f"mq_{other.split('_')[1]}_{one.split('_', 2)[2]}".encode()
    assert Keys(file).find(mixed) is None
    assert _BySecretAlone(file).find(mixed)
