"""Keeps the catalogue in step with the online store: version, hidden and expired items, votes."""

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter

from infra.online_store import OnlineStore, OnlineStoreError
from infra.transport import reason
from ingest.events import ItemRules
from serving.catalogue import NO_VOTES, Catalogue, Votes
from serving.static_list import StaticList
from serving.versions import Versions
from training.bundle import CURRENT, EXPIRING, HIDDEN, POPULAR, TRENDING, Manifest

POLL_SECONDS = 0.25
VOTES_SECONDS = 1.0
MOST_VOTED = 1000


class CatalogueWatch:
    """Keeps the current catalogue in step with the online store. Whatever fails, the one in memory stays.

    Args:
        store: a client of its own, with a time-out that lets a whole bundle through.
        registry: where the version and the failures are shown.
        rules: what the domain says of items.
        static: what is served until the store has answered.
    """

    def __init__(self, store: OnlineStore, registry: CollectorRegistry, rules: ItemRules, static: StaticList) -> None:
        self.current, self._expiring = static.read(rules)
        self.rules = rules
        self.manifests: dict[int, Manifest] = {}
        self.looked = False
        self.store_answers = True
        self._hidden: frozenset[str] = frozenset()
        self._votes = NO_VOTES
        self._votes_due = 0.0
        self._store = store
        self._static = static
        self._written: tuple[int, frozenset[str]] | None = None
        self._swapping = threading.Lock()
        self._versions = Versions(store, registry)
        self._polls_failed = Counter(
            "marquee_catalogue_polls_failed", "Polls of the version that the store did not answer.", registry=registry
        )
        self._log = structlog.get_logger()

    async def follow(self) -> None:
        """Poll until cancelled, in threads: loading a bundle holds up neither requests nor the hiding of items."""
        await asyncio.gather(self._repeat(self.look), self._repeat(self.take_over))

    def poll(self) -> None:
        """Look once at everything."""
        self.look()
        self.take_over()

    def look(self) -> None:
        """Look once at the hidden and expiring items, and now and then at the votes; hide what has to be hidden."""
        self._ask(self._read)
        with self._swapping:
            hidden, current = self._hidden_now(), self.current
            if (hidden, self._votes) != (current.hidden, current.votes):
                self.current = current.showing(hidden, self._votes)

    def take_over(self) -> None:
        """Look once at the current version, and take it over when it is another one."""
        self._ask(self._follow_version)
        self._keep_static()
        self.looked = True

    async def _repeat(self, look: Callable[[], None]) -> None:
        while True:
            await asyncio.to_thread(look)
            await asyncio.sleep(POLL_SECONDS)

    def _ask(self, question: Callable[[], None]) -> None:
        try:
            question()
            self._note_store(answers=True)
        except OnlineStoreError as error:
            self._note_store(answers=False, reason=reason(error))
        except Exception:
            self._log.exception("catalogue kept, poll failed")

    def _read(self) -> None:
        reads = self._store.pipeline(transaction=False)
        reads.exists(CURRENT)
        reads.smembers(HIDDEN)
        reads.hgetall(EXPIRING)
        if votes_due := time.monotonic() >= self._votes_due:
            reads.zrange(POPULAR, 0, MOST_VOTED - 1, desc=True)
            reads.zrange(TRENDING, 0, MOST_VOTED - 1, desc=True)
        published, hidden, expiring, *votes = reads.execute()
        if not published and self.current.version:
            return  # a store that has lost its data: what was hidden stays hidden
        self._hidden = frozenset(item.decode() for item in hidden)
        self._expiring = {item.decode(): int(until) for item, until in expiring.items()}
        if votes_due:
            self._votes = Votes(*(_item_ids(of) for of in votes))
            self._votes_due = time.monotonic() + VOTES_SECONDS

    def _follow_version(self) -> None:
        pointer: Any = self._store.get(CURRENT)
        if published := self._versions.follow(pointer, self.current.version):
            self.manifests[published.version] = published.bundle.manifest
            catalogue = Catalogue.of(published.version, published.bundle, self.rules)
            with self._swapping:
                self.current = catalogue.showing(self._hidden_now(), self._votes)
            # The garbage collector would go through all of its items now and then, and everybody would wait for it.
            gc.freeze()

    def _hidden_now(self) -> frozenset[str]:
        at_ms = time.time() * 1000
        return self._hidden.union(item_id for item_id, until_ms in self._expiring.items() if until_ms <= at_ms)

    def _keep_static(self) -> None:
        current = self.current
        if current.version and self._written != (current.version, current.hidden):
            self._static.write(current, self._expiring)
            self._written = (current.version, current.hidden)

    def _note_store(self, *, answers: bool, reason: str = "") -> None:
        if not answers:
            self._polls_failed.inc()
        if answers != self.store_answers:
            self._log.warning("online_store_answers" if answers else "online_store_silent", reason=reason)
        self.store_answers = answers


def _item_ids(members: list[bytes]) -> tuple[str, ...]:
    return tuple(member.decode() for member in members)
