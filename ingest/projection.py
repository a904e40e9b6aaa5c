"""The ledger's projection in Redis, written: what `ingest.events.ConsentProjection` reads.

A person's value is the fold of that person's receipts: the newest grant, the newest withdrawal. Folding is the same in
any order and any number of times, so processes may write at once and a receipt may be written again. The head says how
far the whole ledger is in the projection, and it rises only to a number whose predecessors are all in.
"""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import cast

import orjson

from infra.database import Head, Ledger, Receipt
from infra.online_store import OnlineStore, OnlineStoreError, on_a_replica, script
from infra.transport import reason
from ingest.events import CONSENT_HEAD, ERASURES, Consent, ConsentUnavailable, Erasures, consent_key

REBUILDING = "{consent}:rebuilding"
"""Redis key (string, no TTL; writer and reader: ingest): there while the projection is written anew. If it goes away
meanwhile, so did what was written."""

STRANDED = "{consent}:stranded"
"""Redis key (string, no TTL; writer and reader: ingest): the head that the projection had when the ledger was found to
end before it."""

WITNESS = "{consent}:witness"
"""Redis key (string, no TTL; writer: ingest; reader: `marquee verify-ledger`): number and hash of the last receipt that
was folded in, so that a ledger that was cut off or put back can be told from one that never was longer."""

CHUNK = 1000

_FOLD = """
local witness = table.remove(KEYS)
local hash, number = table.remove(ARGV), table.remove(ARGV)
for i, key in ipairs(KEYS) do
  local granted, revoked, purposes = 0, 0, '[]'
  local value = redis.call('GET', key)
  if value then
    granted, revoked, purposes = string.match(value, '^%[(%d+),(%d+),(%[.*%])%]$')
    granted, revoked = tonumber(granted), tonumber(revoked)
  end
  local new_granted, new_revoked = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1])
  if new_granted > granted then granted, purposes = new_granted, ARGV[3 * i] end
  if new_revoked > revoked then revoked = new_revoked end
  if granted <= revoked then granted, purposes = 0, '[]' end
  redis.call('SET', key, string.format('[%.0f,%.0f,%s]', granted, revoked, purposes))
end
local seen = string.match(redis.call('GET', witness) or '0 ', '^(%d+) ')
if tonumber(number) > tonumber(seen) then redis.call('SET', witness, number .. ' ' .. hash) end
"""
_RAISE_HEAD = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2])
if KEYS[1] ~= KEYS[2] then redis.call('DEL', KEYS[1]) end
return 1
"""


class LedgerBehind(Exception):
    """The ledger ends before the projection: it has lost receipts, and withdrawals may be among them."""


def fold(receipts: Iterable[Receipt]) -> Consent:
    """What a person allows after these receipts of that person, in whatever order they come."""
    consent = Consent()
    for receipt in receipts:
        step = _consent_of(receipt)
        newer = step if step.granted > consent.granted else consent
        revoked = max(consent.revoked, step.revoked)
        consent = Consent(newer.granted, revoked, newer.purposes) if newer.granted > revoked else Consent(0, revoked)
    return consent


class ProjectionWriter:
    """Keeps the projection at the ledger's side.

    Args:
        ledger: the record.
        store: where the projection is.
    """

    def __init__(self, ledger: Ledger, store: OnlineStore) -> None:
        self._ledger = ledger
        self._store = store
        self._fold = script(store, _FOLD)
        self._raise_head = script(store, _RAISE_HEAD)

    def apply(self, receipts: Sequence[Receipt]) -> None:
        """Fold receipts into the values of their people. The head stays where it is: `catch_up` raises it.

        What was taken back is on a replica, too, when this returns: a master that is lost would allow it again.

        Raises:
            ConsentUnavailable: Redis does not answer, or no replica does.
        """
        if any(receipt.action != "grant" for receipt in receipts):
            with _answering():
                on_a_replica(self._store, CONSENT_HEAD, lambda master: self._fold_in(receipts, master))
        else:
            with _answering():
                self._fold_in(receipts, self._store)

    def _fold_in(self, receipts: Sequence[Receipt], client: OnlineStore) -> None:
        steps = [_consent_of(receipt) for receipt in receipts]
        arguments = [word for s in steps for word in (s.granted, s.revoked, orjson.dumps(sorted(s.purposes)))]
        if receipts:
            last = max(receipts, key=lambda receipt: receipt.number)
            keys = [*(consent_key(receipt.subject) for receipt in receipts), WITNESS]
            self._fold(keys=keys, args=[*arguments, last.number, last.hash], client=client)

    def catch_up(self) -> int:
        """Bring the projection up to the ledger: the receipts above its head, or all of them when the head is missing.

        Returns:
            The number of receipts that were folded in.

        Raises:
            LedgerUnavailable: the ledger does not answer.
            ConsentUnavailable: Redis does not answer, or lost the projection meanwhile: call again.
            LedgerBehind: the ledger ends before the projection. The head is taken away, so that every gate is shut.
        """
        with _answering():
            # The projection first, then the ledger: the other way round, a receipt between the two would look lost.
            head, stranded = (None if v is None else int(v) for v in self._values(CONSENT_HEAD, STRANDED))
            end = self._ledger.head().number
            if max(head or 0, stranded or 0) > end:
                self._shut(head, end)
            if stranded is not None:
                self._store.delete(STRANDED)
            if head is None:
                return self._write_all()
            return self._write_after(head, CONSENT_HEAD, str(head)) if head < end else 0

    def tell_erasures(self) -> None:
        """Tell training which erasures there are.

        Raises:
            LedgerUnavailable: the ledger does not answer.
            ConsentUnavailable: Redis does not answer.
        """
        found = Erasures(*self._ledger.erasures_without("models")).encode()
        with _answering():
            if self._values(ERASURES) != [found]:
                self._store.set(ERASURES, found)

    def witness(self) -> Head:
        """The last receipt that was ever folded into this projection; `Head(0, "")` where there was none.

        Raises:
            ConsentUnavailable: Redis does not answer.
        """
        with _answering():
            (value,) = self._values(WITNESS)
        number, _, digest = (value or b"0 ").decode().partition(" ")
        return Head(int(number), digest)

    def _write_all(self) -> int:
        self._store.set(REBUILDING, secrets.token_hex(8), nx=True)
        (token,) = self._values(REBUILDING)
        return self._write_after(0, REBUILDING, "" if token is None else token.decode())

    def _write_after(self, number: int, guard: str, expected: str) -> int:
        receipts = self._ledger.receipts_after(number)
        last = number
        while chunk := list(islice(receipts, CHUNK)):
            self._fold_in(chunk, self._store)  # The head comes after it, on every replica.
            last = chunk[-1].number
        if not self._raise_head(keys=[guard, CONSENT_HEAD], args=[expected, last]):
            raise ConsentUnavailable("the projection changed while the ledger was written into it; it is tried again")
        return last - number

    def _shut(self, head: int | None, end: int) -> None:
        if head is not None:
            self._store.rename(CONSENT_HEAD, STRANDED)
        raise LedgerBehind(
            f"The consent ledger ends at receipt {end}, but later ones were given. Nothing is collected until it is "
            f"restored. If it is right as it is, delete the Redis keys `{{consent}}:*` to start from it."
        )

    def _values(self, *keys: str) -> list[bytes | None]:
        return cast("list[bytes | None]", self._store.mget(keys))


def _consent_of(receipt: Receipt) -> Consent:
    if receipt.action == "grant":
        return Consent(receipt.number, 0, frozenset(receipt.purposes))
    return Consent(0, receipt.number)


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except OnlineStoreError as error:
        raise ConsentUnavailable(f"the consent projection does not answer: {reason(error)}") from error
