"""The file that keys are kept in: hashed, with what each may do. Written by `marquee keys`, read by every edge.

A key reads `mq_ID_SECRET`. The file holds the SHA-256 of the secret part: it has 256 random bits, so nothing slower
is needed, and the file opens no door to who reads it.
"""

import fcntl
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

PREFIX = "mq_"
BURST_SECONDS = 10
"""A key's burst, where none is given: what its rate brings in so many seconds."""

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class KeysError(Exception):
    """The keys cannot be read or changed; the message says why, and what to do."""


class KeyScope(StrEnum):
    """What a key may do."""

    EVENTS = "events"
    ITEMS = "items"
    PEOPLE = "people"
    RECOMMENDATIONS = "recommendations"
    OPERATE = "operate"


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Quota(_Stored):
    """How many events a key may send.

    Attributes:
        rate: events a second, in the long run.
        burst: events at once, after a pause.
    """

    rate: float = Field(gt=0)
    burst: float = Field(ge=1)

    @classmethod
    def of(cls, rate: float, burst: float | None = None) -> Self:
        """A quota; the burst is ten seconds' worth where it is left out."""
        return cls(rate=rate, burst=max(1.0, rate * BURST_SECONDS) if burst is None else burst)


class Former(_Stored):
    """A secret that was replaced, and until when it still works."""

    digest: Digest
    until: AwareDatetime


class StoredKey(_Stored):
    """A key as it is in the file."""

    id: str = Field(pattern="^[0-9a-z]{4,32}$")
    name: str
    digest: Digest
    scopes: tuple[KeyScope, ...] = Field(min_length=1)
    quota: Quota | None = None
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None
    former: tuple[Former, ...] = ()

    def state(self, now: datetime) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "active" if self.expires_at is None or now < self.expires_at else "expired"


class _Document(_Stored):
    keys: tuple[StoredKey, ...] = ()

    @model_validator(mode="after")
    def _each_id_once(self) -> Self:
        if len({key.id for key in self.keys}) < len(self.keys):
            raise ValueError("two keys have the same id")
        return self


class KeyFile:
    """Keys in a JSON file. Changes are whole or not at all, and wait for each other.

    Args:
        path: of the file; made by the first key.
        now: the time.
    """

    def __init__(self, path: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.path = path
        self._now = now

    def read(self) -> tuple[StoredKey, ...]:
        """All keys, the revoked and expired among them, oldest first.

        Raises:
            KeysError: there is no file, or it cannot be read.
        """
        try:
            return _Document.model_validate_json(self.path.read_bytes()).keys
        except ValidationError as error:
            where = ", ".join(".".join(map(str, each["loc"])) or "the text" for each in error.errors()[:3])
            raise KeysError(f"{self.path} is not as `marquee keys` writes it: {where}") from None
        except OSError as error:
            raise KeysError(f"{self.path} cannot be read: {error.strerror}") from None

    def create(
        self, name: str, scopes: Sequence[KeyScope], quota: Quota | None = None, expires_at: datetime | None = None
    ) -> str:
        """Make a key; returns it. It is nowhere else: the file holds its digest.

        Raises:
            KeysError: the file cannot be read or written.
        """
        secret = secrets.token_urlsafe(32)
        with self._changing() as keys:
            made = StoredKey(
                id=secrets.token_hex(6),
                name=name,
                digest=_digest(secret),
                scopes=tuple(dict.fromkeys(scopes)),
                quota=quota,
                created_at=self._now(),
                expires_at=expires_at,
            )
            keys.append(made)
        return f"{PREFIX}{made.id}_{secret}"

    def revoke(self, key_id: str) -> None:
        """End a key, its former secrets too. A second time changes nothing.

        Raises:
            KeysError: there is no such key; the file cannot be read or written.
        """
        with self._changing() as keys:
            place, key = _find(keys, key_id)
            keys[place] = key.model_copy(update={"revoked_at": key.revoked_at or self._now(), "former": ()})

    def rotate(self, key_id: str, grace: timedelta) -> str:
        """Give a key a new secret; returns the key. The old secret works until the grace is over.

        Raises:
            KeysError: there is no such key, or it has ended; the file cannot be read or written.
        """
        secret = secrets.token_urlsafe(32)
        with self._changing() as keys:
            place, key = _find(keys, key_id)
            now = self._now()
            if key.state(now) != "active":
                raise KeysError(f"The key {key_id} is {key.state(now)}: create another.")
            former = [*key.former, Former(digest=key.digest, until=now + grace)]
            still = tuple(each for each in former if each.until > now)
            keys[place] = key.model_copy(update={"digest": _digest(secret), "former": still})
        return f"{PREFIX}{key.id}_{secret}"

    @contextmanager
    def _changing(self) -> Iterator[list[StoredKey]]:
        """The keys, to be changed; written when all went well."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
                keys = list(self.read()) if self.path.exists() else []
                yield keys
                self._write(keys)
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise KeysError(f"{self.path} cannot be written: {error.strerror}") from None

    def _write(self, keys: Sequence[StoredKey]) -> None:
        """Put a new file in the old one's place: whoever reads meanwhile sees one of the two."""
        beside = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        try:
            with open(beside, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(_Document(keys=tuple(keys)).model_dump_json(indent=2).encode())
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        finally:
            beside.unlink(missing_ok=True)


def _find(keys: Sequence[StoredKey], key_id: str) -> tuple[int, StoredKey]:
    for place, key in enumerate(keys):
        if key.id == key_id:
            return place, key
    raise KeysError(f"There is no key {key_id}: `marquee keys list` shows them.")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
