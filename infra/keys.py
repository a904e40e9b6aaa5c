"""Who sends a request, told by its key: held in memory, and exchanged whole when the file of keys changes."""

import hmac
import math
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Final, NamedTuple

import structlog

from infra.key_file import PREFIX, KeyFile, KeyScope, KeysError, Quota, StoredKey

LOOK_EVERY_SECONDS = 1.0
OPERATOR: Final = "operator"
_PREFIX = PREFIX.encode()
NO_KEYS = "There are no keys: make one with `marquee keys create`, or set MARQUEE_API_KEY (`marquee up` does both)."


class Caller(NamedTuple):
    """Who sends a request.

    Attributes:
        key_id: names the key; no secret.
        scopes: what the key may do.
        quota: how many events it may send; None: any number.
        user_id: whose token it is, where a person calls for herself.
        name: whose key it is, for people to read.
    """

    key_id: str
    scopes: frozenset[KeyScope]
    quota: Quota | None = None
    user_id: str | None = None
    name: str = ""


class _Held(NamedTuple):
    """A key in memory.

    Attributes:
        secrets: digest → until when it works, in seconds since 1970.
    """

    caller: Caller | None
    secrets: tuple[tuple[bytes, float], ...]


class Keys:
    """The keys that are in force. For one event loop; never waits for more than one look at the file a second.

    Args:
        file: of the keys. It need not be there as long as there is an operator's key.
        operator_key: a key that may do everything and is in no file (MARQUEE_API_KEY); "": none. One that reads
            `mq_…` is not meant: that is a key of the file, for those who send.

    Raises:
        KeysError: there are no keys, so that nobody could call; or the file cannot be read.
    """

    def __init__(self, file: KeyFile, operator_key: str = "") -> None:
        plain = "" if operator_key.startswith(PREFIX) else operator_key
        nobody = _Held(None, ((secrets.token_bytes(32), math.inf),))
        caller = Caller(OPERATOR, frozenset(KeyScope), name=OPERATOR)
        self._file = file
        self._nobody = nobody
        self._operator = _Held(caller, ((_digest(plain.encode()), math.inf),)) if plain else nobody
        self._held: Mapping[bytes, _Held] = {}
        self._seen = self._look_at_file()
        self._look_at = time.monotonic() + LOOK_EVERY_SECONDS
        if self._seen is not None:
            self._held = _held(file.read())
        elif not plain:
            raise KeysError(NO_KEYS)

    def find(self, sent: bytes) -> Caller | None:
        """Whose key was sent; None: nobody's. It takes as long for an id that there is as for another."""
        if time.monotonic() >= self._look_at:
            self._look()
        if not sent.startswith(_PREFIX):
            return _matching(self._operator, sent)
        _, _, rest = sent.partition(b"_")
        key_id, _, secret = rest.partition(b"_")
        return _matching(self._held.get(key_id, self._nobody), secret)

    def _look(self) -> None:
        """Take over what the file holds, if it changed; what cannot be read changes nothing."""
        self._look_at = time.monotonic() + LOOK_EVERY_SECONDS
        seen = self._look_at_file()
        if seen == self._seen:
            return
        self._seen = seen
        log = structlog.get_logger(__name__)
        try:
            self._held = _held(self._file.read())
        except KeysError as error:
            log.error("keys are as they were before", reason=str(error), held=len(self._held))
        else:
            log.info("keys taken over", held=len(self._held))

    def _look_at_file(self) -> tuple[int, int, int] | None:
        """What changes when the file does; None where there is none."""
        try:
            found = os.stat(self._file.path)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def _held(stored: Iterable[StoredKey]) -> Mapping[bytes, _Held]:
    return {key.id.encode(): _hold(key) for key in stored if key.revoked_at is None}


def _hold(key: StoredKey) -> _Held:
    end = math.inf if key.expires_at is None else key.expires_at.timestamp()
    former = [(bytes.fromhex(each.digest), min(end, each.until.timestamp())) for each in key.former]
    caller = Caller(key.id, frozenset(key.scopes), key.quota, name=key.name)
    return _Held(caller, ((bytes.fromhex(key.digest), end), *former))


def _matching(held: _Held, secret: bytes) -> Caller | None:
    digest, found = _digest(secret), None
    for known, until in held.secrets:
        if hmac.compare_digest(digest, known) and (until == math.inf or time.time() < until):
            found = held.caller
    return found


def _digest(secret: bytes) -> bytes:
    return sha256(secret).digest()
