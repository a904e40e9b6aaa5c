"""How much a key may send, and how much of it about one item.

In Redis, written and read here alone: `quota:{key id}`, `quota:person:{pseudonym}` and `quota:calls:{pseudonym}`. They
are hashes with the `tokens` that a bucket held `at` some time, and live until it is full again.
"""

import heapq
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import prometheus_client as prometheus
import structlog

from infra.key_file import Quota
from infra.keys import Caller
from infra.online_store import OnlineStore, OnlineStoreError, script
from ingest.collector import Collector, Verdict
from ingest.events import MAX_ID_BYTES, ConsentUnavailable, subject

MINUTE = 60.0
COUNTED_ITEMS = 1024
"""So many items are counted exactly, of each key; of more, each by at most one thousandth of all events too low."""

TAKE = """
-- Take tokens out of a bucket that fills by itself. Returns 0, or in how many milliseconds there will be enough.
-- Who takes more than the bucket holds may do so when it is full, and leaves a debt.
-- KEYS: bucket. ARGV: tokens a second, most that it holds, tokens to take.
local rate, most, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6
local held = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local since = math.max(0, now - (held[2] or now))
local tokens = math.min(most, (held[1] or most) + since * rate)
local missing = math.min(cost, most) - tokens
if missing > 0 then return math.ceil(1000 * missing / rate) end
redis.call('HSET', KEYS[1], 'tokens', string.format('%.6f', tokens - cost), 'at', string.format('%.6f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil(1000 * (most - tokens + cost) / rate))
return 0
"""


class QuotaExceeded(Exception):
    """A key has sent more than its quota; nothing was taken.

    Attributes:
        seconds: after which there will be room, at least 1.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(f"nothing was taken; there is room in {seconds} s")
        self.seconds = seconds


class Quotas:
    """Buckets of tokens, one a key or person, shared by all processes. Safe to share between threads.

    Args:
        store: where they are.
        secret: key of pseudonyms.
    """

    def __init__(self, store: OnlineStore, secret: str) -> None:
        self._take = script(store, TAKE)
        self._secret = secret

    def take(self, caller: Caller, events: int) -> None:
        """Take an event's token each, in one call; in none where the key has no quota.

        Raises:
            QuotaExceeded: there are not enough.
            ConsentUnavailable: Redis does not answer; the gate is shut then, too.
        """
        if caller.quota is not None:
            self._take_from(f"quota:{caller.key_id}{self._pseudonym(caller)}", caller.quota, events)

    def take_call(self, caller: Caller) -> None:
        """Take a token for a call by which a person changes or reads what is on record; keys call as they like.

        Its bucket is not that of events: who has sent too many can still withdraw.

        Raises:
            QuotaExceeded, ConsentUnavailable: as `take` does.
        """
        if caller.quota is not None and caller.user_id is not None:
            self._take_from(f"quota:calls{self._pseudonym(caller)}", caller.quota, 1)

    def _take_from(self, bucket: str, quota: Quota, tokens: int) -> None:
        try:
            wait: Any = self._take(keys=[bucket], args=(quota.rate, quota.burst, tokens))
        except OnlineStoreError as error:
            raise ConsentUnavailable(f"Redis does not answer: {error}") from error
        if wait:
            raise QuotaExceeded(max(1, math.ceil(wait / 1000)))

    def _pseudonym(self, caller: Caller) -> str:
        return "" if caller.user_id is None else f":{subject(caller.user_id, self._secret)}"


class Floods:
    """Counts what the events of each key are about, minute by minute. Safe to share between threads.

    An item is flooded when one key sends more than so many events about it in a minute and they are more than half of
    all that it sends. Each process counts what it is sent itself: see
    docs/decisions/0015-floods-are-counted-where-they-arrive.md.

    Args:
        most: so many a minute; 0: there is no limit.
        clock: seconds that only rise.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._of_key: dict[str, _Minute] = {}

    def flooded(self, key_id: str, batch: Sequence[Any]) -> frozenset[str]:
        """Ids of the items that are flooded now, of those in a batch of events as they were sent. The batch counts."""
        if not self._most:
            return frozenset()
        items: Counter[str] = Counter(
            filter(_usable, (each.get("item_id") for each in batch if isinstance(each, dict)))
        )
        number = int(self._clock() // MINUTE)
        with self._lock:
            minute = self._of_key.get(key_id)
            if minute is None or minute.number != number:
                minute = self._of_key[key_id] = _Minute(number)
            minute.count(items)
            found = frozenset(item for item in items if self._most < minute.items[item] > minute.events / 2)
            first, minute.told = found - minute.told, minute.told | found
        for item in first:
            structlog.get_logger(__name__).warning("item flooded", key=key_id, item=item)
        return found


class _Minute:
    """What one key's events of one minute are about, in bounded memory (Misra and Gries 1982).

    Attributes:
        events: all of them.
        items: item_id → events about it, or a few less: see COUNTED_ITEMS.
        told: items that were reported as flooded.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.events = 0
        self.items: Counter[str] = Counter()
        self.told: frozenset[str] = frozenset()

    def count(self, items: Counter[str]) -> None:
        self.events += items.total()
        self.items.update(items)
        if len(self.items) > 2 * COUNTED_ITEMS:
            least = heapq.nlargest(COUNTED_ITEMS + 1, self.items.values())[-1]
            self.items = Counter({item: count - least for item, count in self.items.items() if count > least})


class Intake:
    """Takes batches of events from callers: within their quotas, and without floods. Safe to share between threads.

    Args:
        collector: takes what is left.
        quotas: also of calls that are no batches.
        registry: takes the metrics.
    """

    def __init__(
        self, collector: Collector, quotas: Quotas, floods: Floods, registry: prometheus.CollectorRegistry
    ) -> None:
        self._collector = collector
        self.quotas = quotas
        self._floods = floods
        text = "Batches of events that were refused for want of quota."
        self._over = prometheus.Counter("marquee_batches_over_quota", text, ["key"], registry=registry)

    def take(self, batch: Sequence[Any], caller: Caller, opted_out: bool) -> list[Verdict]:
        """One verdict an event, as of `Collector.collect`.

        Raises:
            QuotaExceeded: the caller has sent too much; nothing was taken.
            ConsentUnavailable, EventLogUnavailable: see there.
        """
        try:
            self.quotas.take(caller, len(batch))
        except QuotaExceeded:
            self._over.labels(caller.key_id).inc()
            raise
        # A person's own quota is far below any flood.
        flooded = self._floods.flooded(caller.key_id, batch) if caller.user_id is None else frozenset[str]()
        return self._collector.collect(batch, opted_out, flooded)


def _usable(item_id: Any) -> TypeGuard[str]:
    return isinstance(item_id, str) and len(item_id) <= MAX_ID_BYTES and item_id.isprintable()
