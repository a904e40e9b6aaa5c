"""Landers that the product does not have: in another group, or without the fence.

    python -m tests.chaos.landers [--group NAME] [--unfenced]

In a group of its own a lander reads every partition beside the landers of the group `lander`: the zombie. Without the
fence it is what most consumers are: it goes on where its group committed, and appends whatever it has in hand. That is
the control, by which the checker is seen to find duplicates.
"""

import argparse
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import polars as pl
from deltalake import write_deltalake

from infra.lake import TABLES, Lake, Span, Tally, _translated
from ingest import lander
from ingest.main import land

DAWDLING_SECONDS = 0.3
"""Between the append and the group's commit, so that a run of a minute is sure to strike in between."""


def main() -> None:
    """Run the lander that is asked for until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--group", default=lander.GROUP)
    parser.add_argument("--unfenced", action="store_true")
    arguments = parser.parse_args()
    lander.GROUP = arguments.group
    if arguments.unfenced:
        take_the_fences_away()
    land()


def take_the_fences_away() -> None:
    """Have every lander of this process trust the group's offsets, and append without looking."""
    Lake.append = _append_whatever_is_there  # type: ignore[method-assign]
    Lake.landed = lambda _self, _table: {}  # type: ignore[method-assign]
    lander.Lander._begin_anew_on_failure = _go_on_from_the_last_success  # type: ignore[method-assign]
    lander.Lander._start = lambda self, partition: self._reached.pop(partition, None) and None  # type: ignore


def _append_whatever_is_there(
    self: Lake,
    table: str,
    rows: pl.DataFrame,
    spans: Mapping[int, Span],
    tallies: Mapping[int, Tally] | None = None,
) -> None:
    with _translated():
        write_deltalake(self._open_or_create(table), rows.select(TABLES[table].keys()), mode="append")
    time.sleep(DAWDLING_SECONDS)


@contextmanager
def _go_on_from_the_last_success(self: lander.Lander) -> Iterator[None]:
    if self._behind:
        for partition in self._consumer.assigned() & self._reached.keys():
            self._consumer.seek(partition, self._reached[partition])
    self._behind = True
    yield
    self._behind = False


if __name__ == "__main__":
    main()
