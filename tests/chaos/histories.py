"""Compares the histories that nearline workers keep in Redis with what the lake says of the same people."""

import time
from pathlib import Path

from ingest.events import ConsentProjection, read_domain
from tests.chaos.platform import ROOT, SECRET, Platform
from training.bundle import History, Interaction, decode_history, history_key
from training.snapshot import read_lake

CATCH_UP_SECONDS = 90.0


def wrong_histories(platform: Platform) -> list[str]:
    """People whose history differs, long after the last event: something was lost, doubled or put in another order."""
    wanted = _of_the_lake(platform)
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while True:
        found = platform.store.mget([history_key(person) for person in wanted])
        wrong = [p for p, value in zip(wanted, found, strict=True) if decode_history(value) != wanted[p]]
        others = {key.decode().removeprefix(history_key("")) for key in platform.store.scan_iter(history_key("*"))}
        wrong += sorted(others - wanted.keys())
        if not wrong or time.monotonic() > deadline:
            return wrong
        platform.tend()
        time.sleep(0.5)


def _of_the_lake(platform: Platform) -> dict[str, History]:
    projection = ConsentProjection(platform.store, SECRET)
    interactions = read_lake(platform.lake, projection, read_domain(Path(ROOT / "domain.toml"))).histories()
    histories = interactions.histories
    items, bounds = interactions.catalogue.items.ids, histories.user_items.indptr
    return {
        person: {
            items[histories.user_items.indices[at]]: Interaction(
                int(histories.at_ms[at]), float(histories.user_items.data[at])
            )
            for at in range(bounds[row], bounds[row + 1])
        }
        for row, person in enumerate(interactions.users.ids)
    }
