"""A platform on a disk of 48 MB that fills up: it refuses before anything breaks, and goes on when there is room."""

import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from bench.own_platform import OwnPlatform, wait_until
from infra.disk import LOOK_SECONDS
from infra.online_store import OnlineStoreError
from tests.conftest import unavailable

pytestmark = pytest.mark.e2e

FLOOR_MB = 16


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of its own; to mount it takes root."""
    folder = Path(tempfile.mkdtemp(prefix="mq-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        folder.rmdir()
        unavailable("a small disk", "only root may mount one")
    with ExitStack() as stack:
        stack.callback(folder.rmdir)
        stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
        yield folder


def test_on_a_full_disk_nothing_is_accepted_that_is_not_kept(small_disk: Path) -> None:
    """Redis, which ends when it cannot write, lives on; what was accepted is there, and a withdrawal is still taken."""
    settings = {"DISK_FLOOR_MB": str(FLOOR_MB)}
    with OwnPlatform(("ingest",), proxied=False, settings=settings, within=small_disk) as platform:
        for person in ("u1", "u2"):
            consent = platform.call("ingest", "PUT", f"/v1/users/{person}/consent", {"purposes": ["personalization"]})
            assert consent[0] == 200
        accepted = send_until_refused(platform)
        assert accepted > 1000
        assert platform.call("ingest", "DELETE", "/v1/users/u2/consent")[0] == 200
        assert platform.call("ingest", "PUT", "/v1/users/u3/consent", {"purposes": ["personalization"]})[0] == 503
        assert platform.store.ping()
        (platform.folder / "ballast").unlink()
        wait_until(lambda: send(platform)[0] == 202, "events are taken again")
        logged = sum(int(platform.store.xlen(f"log:marquee.events:{partition}")) for partition in range(4))
        assert logged >= accepted


def test_without_a_floor_the_full_disk_is_the_end_of_redis(small_disk: Path) -> None:
    """The control: what the test above would see on a platform that does not look."""
    settings = {"DISK_FLOOR_MB": "0"}
    with OwnPlatform(("ingest",), proxied=False, settings=settings, within=small_disk) as platform:
        platform.call("ingest", "PUT", "/v1/users/u1/consent", {"purposes": ["personalization"]})
        with pytest.raises(AssertionError):
            send_until_refused(platform)
        with pytest.raises(OnlineStoreError):
            platform.store.ping()


def send_until_refused(platform: OwnPlatform) -> int:
    """Send while something else fills the disk; the number of events accepted before the first refusal.

    Between two looks at the disk no more is written than the floor has room for, however fast the machine is.
    """
    accepted, ballast = 0, platform.folder / "ballast"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OSError), ballast.open("ab") as file:
            file.write(bytes(500_000))
        status, answer = send(platform)
        if status == 503:
            assert answer["code"] == "storage_low"
            return accepted
        assert status == 202
        accepted += answer["accepted"]
        time.sleep(LOOK_SECONDS / 10)
    raise TimeoutError("nothing was ever refused")


def send(platform: OwnPlatform) -> tuple[int, dict[str, int | str]]:
    """A batch of 100 events."""
    events = [
        {
            "event_id": uuid.uuid4().hex,
            "type": "play",
            "user_id": "u1",
            "item_id": f"m{number}",
            "occurred_at": "2026-01-01T00:00:00Z",
        }
        for number in range(100)
    ]
    return platform.call("ingest", "POST", "/v1/events", {"events": events})
