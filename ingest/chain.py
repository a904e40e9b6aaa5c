"""The chain of receipts: how each is sealed upon the one before, and whether all of them still are as they were given.

A receipt's hash is keyed with the platform's secret, so who can write the database cannot make one. The end of the
chain is held in three places: in the ledger's head, which carries a seal of its own; in Redis, beside the projection
(`ingest.projection.WITNESS`); and wherever the operator keeps the line that `marquee verify-ledger` prints. A ledger
that was put back to an earlier day is whole in itself: the second and the third tell.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable

import orjson

from infra.database import Head, Ledger, Receipt, Seal, head_seal

BEFORE_ALL = -(2**63)
"""Below every number that a database may hold: a row put in front of receipt 1 is met too."""


UNREADABLE = (ValueError, TypeError, AttributeError)
"""What comes of a column that holds something else than the ledger writes."""


class LedgerBroken(Exception):
    """A receipt was altered, removed or put elsewhere. Restore the ledger; the message names the place."""


def seal_with(secret: str) -> Seal:
    """The chaining rule: a receipt's hash is HMAC-SHA256 of the previous hash and the receipt in canonical JSON."""

    def seal(receipt: Receipt) -> str:
        fields = {name: value for name, value in receipt._asdict().items() if name not in ("previous", "hash")}
        canonical = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS | orjson.OPT_UTC_Z)
        return hmac.new(secret.encode(), receipt.previous.encode() + canonical, hashlib.sha256).hexdigest()

    return seal


def verify(
    ledger: Ledger, seal: Seal, ends: Iterable[Head] = (), watch: Callable[[int], None] = lambda number: None
) -> Head:
    """Walk the whole chain, a page at a time; receipts that are given meanwhile are walked too.

    Args:
        seal: the chaining rule.
        ends: ends that the chain had at some time, as others remember them.
        watch: told the number of each receipt that was found whole.

    Returns:
        The end of the chain: everything up to it is as it was recorded.

    Raises:
        LedgerBroken: it is not; the message names the first receipt that is wrong.
        LedgerUnavailable: the ledger does not answer.
    """
    walk = _Walk(seal, ends)
    while True:
        before = walk.number
        _take(ledger, walk, watch)
        head = ledger.head()
        if head.number <= walk.number or walk.number == before:
            return walk.end(head)


def _take(ledger: Ledger, walk: "_Walk", watch: Callable[[int], None]) -> None:
    try:
        for receipt in ledger.receipts_after(walk.number or BEFORE_ALL):
            walk.step(receipt)
            watch(walk.number)
    except UNREADABLE:
        _take_one_by_one(ledger, walk)


def _take_one_by_one(ledger: Ledger, walk: "_Walk") -> None:
    """Of a page that cannot be read, name the receipt."""
    try:
        for receipt in ledger.receipts_after(walk.number or BEFORE_ALL, page=1):
            walk.step(receipt)
    except UNREADABLE as error:
        raise LedgerBroken(f"receipt {walk.number + 1} cannot be read: {type(error).__name__}") from None


class _Walk:
    """How far the chain was found whole."""

    def __init__(self, seal: Seal, ends: Iterable[Head]) -> None:
        self._seal = seal
        self._last: Receipt | None = None
        self._ends = {(end.number, end.hash) for end in ends if end.number}

    @property
    def number(self) -> int:
        return self._last.number if self._last else 0

    @property
    def hash(self) -> str:
        return self._last.hash if self._last else ""

    def step(self, receipt: Receipt) -> None:
        number = self.number + 1
        if receipt.number > number:
            raise LedgerBroken(f"receipt {number} is missing: after {self.number} comes {receipt.number}")
        sound = hmac.compare_digest(self._seal(receipt).encode(), receipt.hash.encode())
        if not sound or receipt.number != number or receipt.previous != self.hash:
            raise LedgerBroken(f"receipt {number} is not as it was recorded, or not in its place")
        self._last = receipt
        known = {digest for at, digest in self._ends if at == number}
        if known - {receipt.hash}:
            raise LedgerBroken(f"receipt {number} is not the one that was given under this number")

    def end(self, head: Head) -> Head:
        longest = max([head.number, *(number for number, _ in self._ends)])
        if longest > self.number:
            raise LedgerBroken(f"receipt {self.number + 1} is missing: the ledger had {longest} and ends before it")
        if (head.number, head.hash) != (self.number, self.hash):
            raise LedgerBroken(f"the ledger ends at receipt {self.number}, but its head says {head.number}")
        if self._last and not hmac.compare_digest(head_seal(self._last, self._seal).encode(), head.seal.encode()):
            raise LedgerBroken(
                f"the ledger ends at receipt {self.number}, but its head does not carry the seal of that. Either later "
                f"receipts are missing, or no receipt was given yet since the platform was updated: the next seals it"
            )
        return head
