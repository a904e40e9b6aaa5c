"""What one event and one person cost, as far as no other benchmark says: for `marquee capacity`.

    .venv/bin/python -m bench.units [--events 300000]

A log of so many events is landed by one lander, a process of its own, until it is at the end. Then what the events take
in the lake (compacted) and in the log is counted, and what a person takes in Redis: history, consent.
Writes bench/results/units.json.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
from rich.console import Console

from bench.own_platform import ROOT, SECRET, OwnPlatform, wait_until
from infra.event_log import open_event_log
from infra.lake import EVENTS, Lake
from infra.online_store import OnlineStore
from ingest.events import CONSENT_HEAD, PERSONALIZATION, AcceptedEvent, Consent, consent_key, encode, subject
from training.bundle import Interaction, encode_history, history_key

RESULT = ROOT / "bench/results/units.json"
PEOPLE, ITEMS, HISTORY = 5000, 2000, 100
AT_ONCE = 1000
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
LONGEST_SECONDS = 600.0


def main(arguments: Sequence[str]) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=300_000)
    found = measure(parser.parse_args(arguments).events)
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    Console().print_json(data=found)


def measure(events: int) -> dict[str, Any]:
    """All units."""
    load = os.getloadavg()[0]
    with OwnPlatform((), proxied=False) as platform:
        _allow(platform.store)
        lake = Lake(str(platform.folder / "lake"))
        log = open_event_log(platform.redis_url, "marquee.events", 4)
        size = 0
        for batch in _batches(events):
            log.append(batch)
            size += sum(len(key) + len(value) for key, value in batch)
        ends = sum(log.end_offsets().values())
        begin = time.monotonic()
        platform.start("land")
        wait_until(lambda: bool(_landed(lake)), "the first batch has landed", LONGEST_SECONDS)
        first, since = _landed(lake), time.monotonic()
        wait_until(lambda: _landed(lake) >= ends, "everything has landed", LONGEST_SECONDS)
        took = time.monotonic() - since
        platform.stop("land")
        lake.compact()
        lake.purge()
        log.close()
        taken = sum(path.stat().st_size for path in (platform.folder / "lake").rglob("*") if path.is_file())
        return {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": "python -m bench.units",
            "cores": os.cpu_count(),
            "load_average_before": load,
            "events": events,
            "landed_per_second": round((ends - first) / took),
            "seconds_with_start": round(took + since - begin, 1),
            "lake_bytes_an_event": round(taken / events, 1),
            "log_bytes_an_event": round(size / events, 1),
            "history_items": HISTORY,
            "history_bytes": _history_bytes(platform.store),
            "consent_bytes": int(platform.store.memory_usage(consent_key(subject("u1", SECRET))) or 0),
        }


def _landed(lake: Lake) -> int:
    return sum(lake.landed(EVENTS).values())


def _allow(store: OnlineStore) -> None:
    writes = store.pipeline(transaction=False)
    for number in range(PEOPLE):
        writes.set(consent_key(subject(f"u{number}", SECRET)), Consent(1, 0, frozenset({PERSONALIZATION})).encode())
    writes.set(CONSENT_HEAD, 1)
    writes.execute()


def _batches(events: int) -> Iterator[list[tuple[bytes, bytes]]]:
    random = np.random.default_rng(1)
    for start in range(0, events, AT_ONCE):
        people, items = random.integers(PEOPLE, size=AT_ONCE), random.integers(ITEMS, size=AT_ONCE)
        batch: list[tuple[bytes, bytes]] = []
        for number, (person, item) in enumerate(zip(people.tolist(), items.tolist(), strict=True), start):
            at = BEGIN + timedelta(milliseconds=20 * number)
            event = AcceptedEvent(
                event_id=str(UUID(bytes=random.bytes(16))),
                type="play",
                user_id=f"u{person}",
                item_id=f"m{item:04}",
                occurred_at=at,
                accepted_at=at,
                receipt=1,
            )
            batch.append((event.user_id.encode(), encode(event)))
        yield batch


def _history_bytes(store: OnlineStore) -> int:
    history = {f"m{number:04}": Interaction(1_767_225_600_000 + number, 1.0) for number in range(HISTORY)}
    store.set(history_key("somebody"), encode_history(history))
    return int(store.memory_usage(history_key("somebody")) or 0)


if __name__ == "__main__":
    main(sys.argv[1:])
