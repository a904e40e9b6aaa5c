"""With too little free, nothing is begun, and with more it goes on; the system is asked at most ten times a second."""

import shutil
from pathlib import Path

import pytest

from infra.disk import LOOK_SECONDS, MEGABYTE, DiskFloor, StorageLow


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Free bytes by folder, as the system says; and how often it was asked."""
    disks = {"asked": 0}

    def usage(folder: Path) -> shutil._ntuple_diskusage:
        disks["asked"] += 1
        return shutil._ntuple_diskusage(0, 0, disks[folder.name])

    monkeypatch.setattr("shutil.disk_usage", usage)
    return disks


def test_below_the_floor_it_refuses_and_above_it_goes_on(tmp_path: Path, clock: Clock, free: dict[str, int]) -> None:
    free[tmp_path.name] = 10 * MEGABYTE - 1
    floor = DiskFloor([tmp_path], 10, clock)
    with pytest.raises(StorageLow, match=tmp_path.name):
        floor.check()
    free[tmp_path.name] += 1
    clock.seconds += LOOK_SECONDS
    floor.check()


def test_the_system_is_asked_at_most_once_a_second(tmp_path: Path, clock: Clock, free: dict[str, int]) -> None:
    free[tmp_path.name] = 0
    floor = DiskFloor([tmp_path], 10, clock)
    for _ in range(5):
        with pytest.raises(StorageLow):
            floor.check()
    assert free["asked"] == 1


def test_every_folder_counts_and_of_one_that_is_not_there_the_one_above(
    tmp_path: Path, clock: Clock, free: dict[str, int]
) -> None:
    (tmp_path / "full").mkdir()
    free |= {tmp_path.name: 100 * MEGABYTE, "full": 0}
    DiskFloor([tmp_path / "lake" / "events"], 10, clock).check()
    with pytest.raises(StorageLow):
        DiskFloor([tmp_path, tmp_path / "full" / "lake"], 10, clock).check()


def test_a_floor_of_nothing_asks_nobody(tmp_path: Path, free: dict[str, int]) -> None:
    DiskFloor([tmp_path], 0).check()
    assert free["asked"] == 0
