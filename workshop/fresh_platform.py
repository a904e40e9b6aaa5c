"""A fresh platform: `marquee up` in a folder that is emptied first, on free ports. For demo and lessons."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from infra.embedded import make_secrets
from infra.key_file import KeyFile
from infra.lake import EVENTS, ITEMS, Lake, LakeEmpty
from infra.settings import SECRETS_FILE, Settings, load_settings
from infra.supervisor import end_with_parent
from workshop.audience import Tally, send
from workshop.client import Client, PlatformError
from workshop.datasets import Dataset

READY_SECONDS = 60.0
NEVER = str(10**9)
PORTS = [name.upper() for name in Settings.model_fields if name.endswith("_port")]


class FreshPlatform:
    """A new platform, which retrains only when it is told to; a context manager, or `start` and `stop`.

    Its settings become the variables of this process: what this process opens, and each `marquee` that it calls, is
    of this platform. So there is one in a process.

    Args:
        folder: of its stores. Whatever an earlier platform left there goes.
        settings: further settings, by their names without MARQUEE_.

    Raises:
        PlatformError: the folder holds something else.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        self.folder = folder.absolute()
        if self.folder.exists() and any(self.folder.iterdir()) and not (self.folder / SECRETS_FILE).exists():
            raise PlatformError(
                f"{folder} is not empty and holds no platform: name another folder, this one would be emptied"
            )
        shutil.rmtree(self.folder, ignore_errors=True)
        ports = {name: str(port) for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)}
        own = {"DATA": str(self.folder), "TRAIN_EVERY_SECONDS": NEVER, "TRAIN_AFTER_EVENTS": NEVER, **ports, **settings}
        os.environ |= {f"MARQUEE_{name}": value for name, value in own.items()}
        make_secrets(self.folder, KeyFile(load_settings().keys_file))
        self.settings: Settings = load_settings()
        self.log = self.folder / "platform.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def ingest_url(self) -> str:
        """Where the ingest API is."""
        return f"http://{self.settings.host}:{self.settings.ingest_port}"

    @property
    def serving_url(self) -> str:
        """Where the serving API is."""
        return f"http://{self.settings.host}:{self.settings.serving_port}"

    @property
    def key(self) -> str:
        """An operator's key."""
        return self.settings.api_key.get_secret_value()

    def start(self) -> Self:
        """Start it and wait until both APIs are ready.

        Raises:
            PlatformError: they are not, for a minute.
        """
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "marquee", "up"],
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
            )
        try:
            for url in (self.ingest_url, self.serving_url):
                self._wait_until_ready(f"{url}/readyz")
        except PlatformError:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop it in order; its folder stays."""
        if self._process:
            self._process.terminate()
            self._process.wait()

    def command(self, *words: str) -> str:
        """Type a `marquee` command, as an operator would; returns what it printed.

        Raises:
            PlatformError: it did not end well.
        """
        done = subprocess.run([sys.executable, "-m", "marquee", *words], check=False, capture_output=True, text=True)
        if done.returncode:
            what = f"marquee {' '.join(words)} ended with {done.returncode}"
            raise PlatformError(f"{what}:\n{done.stderr}{done.stdout}")
        return done.stdout

    def send(self, dataset: Dataset) -> None:
        """Let everybody of a dataset opt in, send what they did, and wait until all of it is in the lake.

        To be called once, before anything else is sent.

        Raises:
            PlatformError: a call failed for good, an event was refused, or it has not landed within a minute.
        """
        # In a thread of its own: a notebook's has an event loop already.
        with ThreadPoolExecutor(1) as thread:
            tally = thread.submit(asyncio.run, self._send(dataset)).result()
        if tally.refused:
            raise PlatformError(f"events were refused: {dict(tally.refused_by_code)}")
        deadline = time.monotonic() + READY_SECONDS
        while self._landed(ITEMS, "item_id") < len(dataset.items) or self._landed(EVENTS, "event_id") < tally.accepted:
            if time.monotonic() > deadline:
                raise PlatformError(f"the lander has not landed all events within a minute: see {self.log}")
            time.sleep(0.2)

    async def _send(self, dataset: Dataset) -> Tally:
        async with Client(self.ingest_url, self.serving_url, self.key) as client:
            return await send(client, dataset, share=1.0)

    def _landed(self, table: str, name: str) -> int:
        """How many ids: what was sent again, for want of an answer, lands again."""
        try:
            return Lake(self.settings.lake_uri).snapshot(table, [name]).rows[name].n_unique()
        except LakeEmpty:
            return 0

    def _wait_until_ready(self, url: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while self._process and self._process.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(url, timeout=2):  # noqa: S310  # nosec B310 - our own address
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise PlatformError(f"the platform did not start: see {self.log}")


def free_ports(number: int) -> list[int]:
    """Ports on loopback that nobody listens on, and that nobody who asks for any port is given for a minute.

    A connection to each is closed from its listening side. What is left of that keeps the port from being chosen again,
    not from being listened on by its number.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        for each in sockets:
            with socket.create_connection(each.getsockname()):
                each.accept()[0].close()
        return [each.getsockname()[1] for each in sockets]
