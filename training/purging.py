"""Versions that were trained on events of people who have been erased since: removed, once a later one is served.

No person is in a bundle, but what it knows was learned from persons. A version tells how many receipts the ledger had
when its data was read; whoever is erased by a later receipt may have been learned from. Such versions go when the
champion is none of them. The registry keeps their names and figures, which are averages, and says that they are purged.

All of it can be done again: a process killed anywhere is continued by the next retraining.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import structlog

from infra.event_log.port import EventLog
from infra.model_registry import PURGED, ModelRegistry
from infra.online_store import OnlineStore
from ingest.events import ConsentProjection, ErasureStep, encode, key, now
from training.publish import current, remove_version
from training.run_record import TRAINING, learned_before

WHY = "it was trained on events of people who have been erased since"


def purge_and_sign(
    registry: ModelRegistry,
    store: OnlineStore,
    consents: ConsentProjection,
    open_log: Callable[[], AbstractContextManager[EventLog]],
) -> None:
    """Purge what may go, and sign the erasures that this fulfils.

    Raises:
        Exception: what the stores raise: to be called again.
    """
    erasures = consents.erasures()
    purged = purge(registry, store, erasures.last)
    if purged is not None and erasures.waiting:
        with open_log() as log:
            _sign(log, erasures.waiting, purged)


def purge(registry: ModelRegistry, store: OnlineStore, last: int) -> int | None:
    """Remove bundles, cards, plots and published lists of the versions that may know somebody who was erased.

    Args:
        registry: where the versions are kept.
        store: where they are served from.
        last: number of the newest receipt by which somebody was erased.

    Returns:
        Versions purged now; None: one of those is still served or the champion, and nothing was done.
    """
    if not last:
        return 0
    versions = registry.versions()
    old = [one for one in versions if learned_before(one.tags, last)]
    served = current(store)
    if any(one.champion or one.version == served for one in old):
        return None
    fresh = [one for one in old if PURGED not in one.tags]
    for one in fresh:
        registry.tag(one.version, {PURGED: WHY})  # First, so that nobody serves it while it is taken apart.
    for one in old:
        remove_version(store, one.version)
    for run in registry.runs.all_of_kind(TRAINING):
        if learned_before(run.tags, last) and PURGED not in run.tags:
            registry.runs.purge(run, WHY)
    if fresh:
        structlog.get_logger(__name__).info("versions purged", versions=[one.version for one in fresh])
    return len(fresh)


def _sign(log: EventLog, erasures: Iterable[str], purged: int) -> None:
    steps = [ErasureStep(erasure_id=one, stage="models", removed=purged, at=now()) for one in erasures]
    log.append([(key(step), encode(step)) for step in steps])
