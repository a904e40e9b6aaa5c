"""From the version that is served to the next one, in two steps.

1. `{version}:next` is set. Nearline writes live lists of that version for everybody who acted since its snapshot, goes
   on doing so, and says in `{version}:caught-up:{n}` of which partitions of the log they stand.
2. `{version}:current` is set, and `{version}:next` goes with it.

A publisher that dies between the two leaves the old version served; `{version}:next` ends by itself within an hour, or
with the next publish.
"""

import time
from typing import cast

import structlog

from infra.online_store import OnlineStore
from training.bundle import ALIVE, CURRENT, NEXT, caught_up_key

NEXT_SECONDS = 3600
CATCH_UP_SECONDS = 60.0
POLL_SECONDS = 0.05


def let_nearline_catch_up(store: OnlineStore, version: int) -> None:
    """Announce a version and wait until its live lists stand: not at all where nobody writes any, nor for ever.

    Args:
        store: the online store.
        version: it is whole in the store.
    """
    if not store.exists(ALIVE):
        return
    asks = store.pipeline(transaction=True)
    asks.delete(caught_up_key(version))
    asks.set(NEXT, version, ex=NEXT_SECONDS)
    asks.execute()
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while (behind := _behind(store, version)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    if behind is None or behind:
        structlog.get_logger(__name__).warning(
            "served before nearline has caught up: what was watched since the snapshot may come back for a while",
            version=version,
            why=f"not within {CATCH_UP_SECONDS:.0f} s" if behind else "nearline is gone",
            partitions=sorted(behind or ()),
        )


def flip(store: OnlineStore, version: int) -> None:
    """Serve a version that is whole in the store."""
    writes = store.pipeline(transaction=True)
    writes.set(CURRENT, version)
    writes.delete(NEXT, caught_up_key(version))
    writes.execute()


def _behind(store: OnlineStore, version: int) -> set[int] | None:
    """Partitions of which the version's live lists do not stand yet; None where nobody is there to write them."""
    reads = store.pipeline(transaction=True)
    reads.get(ALIVE)
    reads.hkeys(caught_up_key(version))
    partitions, caught_up = cast("tuple[bytes | None, list[bytes]]", reads.execute())
    return None if partitions is None else set(range(int(partitions))) - {int(partition) for partition in caught_up}
