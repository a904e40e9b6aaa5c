"""Whether there is room left on the disk: what may not be written whole is not begun.

A Redis that syncs every write ends when it cannot, and a lake may be left with half a file. So the platform stops
taking and landing while there still is room for what is under way, and goes on by itself when there is more.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

LOOK_SECONDS = 0.1
MEGABYTE = 1_000_000


class StorageLow(Exception):
    """A disk has less free than the floor: nothing was written. Make room; it goes on by itself."""


class DiskFloor:
    """Looks at the disks below some folders, at most ten times a second. Safe to share between threads.

    Args:
        folders: where is written; of one that does not exist, the nearest one above it counts.
        floor_mb: so many megabytes have to be free on each. 0: any.
        clock: seconds that only rise.
    """

    def __init__(self, folders: Sequence[Path], floor_mb: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._folders = [folder.absolute() for folder in folders] if floor_mb else []
        self._floor = floor_mb * MEGABYTE
        self._clock = clock
        self._look_at = float("-inf")
        self._low = ""

    def check(self) -> None:
        """See that there is room.

        Raises:
            StorageLow: there is not.
        """
        if self._folders and self._clock() >= self._look_at:
            self._look_at = self._clock() + LOOK_SECONDS
            self._low = next((folder.name for folder in self._folders if _free(folder) < self._floor), "")
        if self._low:
            raise StorageLow(f"less than {self._floor // MEGABYTE} MB are free where {self._low} is: make room")


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
