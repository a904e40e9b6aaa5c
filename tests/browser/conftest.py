"""A real Chromium for the tests of the pages. What no page may ever do fails the test that saw it."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

SCREENSHOTS = Path(__file__).parents[2] / "var/screenshots"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HERE = ("127.0.0.1", "localhost")
DESK, PHONE = (1360, 860), (360, 740)
SERIOUS = ("serious", "critical")
PATIENCE_MS = 30_000
"""What is expected of a page may take so long: the machine has other things to do."""


@pytest.fixture(scope="module")
def chromium(chromium_program: str) -> Iterator[Browser]:
    """Debian's Chromium, with user data of its own.

    It ends with the module: while Playwright runs, its event loop does, and no other test of the process could run one.
    """
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE_MS)
        browser = playwright.chromium.launch(executable_path=chromium_program, args=QUIET)
        yield browser
        browser.close()


class Browsing:
    """Opens pages and watches them; a context manager that fails when one of them misbehaved.

    No page may write an error to the console, throw, or ask another host than this one. What a test breaks on purpose
    it names with `forgive`.
    """

    def __init__(self, chromium: Browser) -> None:
        self._chromium = chromium
        self._contexts = ExitStack()
        self._forgiven: list[str] = []
        self.trespasses: list[str] = []

    def __enter__(self) -> "Browsing":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._contexts.close()
        if kind is None:
            assert not self.trespasses

    def open(
        self, address: str, *, size: tuple[int, int] = DESK, colours: str = "dark", still: bool = True, **more: Any
    ) -> Page:
        """A page in a context of its own, as of a new visitor.

        Args:
            address: what is opened.
            size: of the window, in CSS pixels.
            colours: what the system prefers: dark or light.
            still: whether the system asks for reduced motion.
            more: further arguments of Playwright's `new_context`.
        """
        width, height = size
        context = self._chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme="light" if colours == "light" else "dark",
            reduced_motion="reduce" if still else "no-preference",
            **more,
        )
        self._contexts.callback(context.close)
        page = context.new_page()
        self._watch(context, page)
        page.goto(address)
        return page

    def forgive(self, pattern: str) -> None:
        """From here on, errors in which this regular expression is found are what the test asked for."""
        self._forgiven.append(pattern)

    def _watch(self, context: BrowserContext, page: Page) -> None:
        page.on("console", lambda message: message.type == "error" and self._trespass(f"console: {message.text}"))
        page.on("pageerror", lambda error: self._trespass(f"thrown: {error}"))
        context.on("request", lambda request: self._leaves(request.url) and self._trespass(f"asked: {request.url}"))

    def _trespass(self, what: str) -> None:
        if not any(re.search(pattern, what) for pattern in self._forgiven):
            self.trespasses.append(what)

    @staticmethod
    def _leaves(address: str) -> bool:
        parts = urlsplit(address)
        return parts.scheme not in ("data", "blob") and parts.hostname not in HERE


@pytest.fixture
def browsing(chromium: Browser) -> Iterator[Browsing]:
    """Opens pages, and fails the test at its end when one of them misbehaved."""
    with Browsing(chromium) as browsing:
        yield browsing


def barriers(page: Page) -> list[str]:
    """What axe finds serious or critical on a page as it is now: rule, and where."""
    # Of what passes axe would tell megabytes, for each of thousands of elements.
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{each['id']}: {node['html'][:160]}" for each in found if each["impact"] in SERIOUS for node in each["nodes"]
    ]


def keep(page: Page, name: str, *, whole: bool = False) -> Path:
    """Keep a picture of a page in var/screenshots, the whole of it or what the window shows. Returns its file."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    if whole:
        page.evaluate("scrollTo(0, 0)")  # What sticks to the top would stand in the middle.
    path = SCREENSHOTS / f"{name}.png"
    with tempfile.NamedTemporaryFile(dir=SCREENSHOTS, suffix=".png", delete=False) as beside:
        page.screenshot(path=beside.name, full_page=whole)
    Path(beside.name).replace(path)
    return path
