"""How long a new user waits: from `git clone`, with an empty home, to a row that changed in a browser.

python -m bench.first_row     writes bench/results/first_row.json, and the README's pictures to docs/pictures

Needs Chromium. Cloned is this repository as it is committed; packages come from the index, none from a cache.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench/results/first_row.json"
PICTURES = ROOT / "docs/pictures"
STOREFRONT = re.compile(r"storefront, as .*: (http\S+)/\?viewer=")
KEY = re.compile(r"API key: (\S+)")
PATIENCE_SECONDS = 600
SIZE = {"width": 1280, "height": 800}


class Demo:
    """`make demo OPEN=1` in a fresh clone, and what it prints; a context manager that ends it as Ctrl-C does."""

    def __init__(self, folder: Path) -> None:
        self._clone, self._home = folder / "marquee", folder / "home"
        self._home.mkdir()
        self._lines: list[str] = []

    def __enter__(self) -> "Demo":
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(self._clone)], check=True)
        # A browser of ours does the clicking; the system's is not there, or would be in the way.
        given = {"HOME": str(self._home), "BROWSER": "true", "PIP_NO_CACHE_DIR": "1", "UV_NO_CACHE": "1"}
        self._process = subprocess.Popen(
            ["make", "demo", "OPEN=1"],
            cwd=self._clone,
            env={name: value for name, value in os.environ.items() if not name.startswith("MARQUEE_")} | given,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        self._reading = threading.Thread(target=self._read)
        self._reading.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGINT)
        self._process.wait(60)
        self._reading.join()

    def wait_for(self, pattern: re.Pattern[str]) -> str:
        """What the pattern's group is in what was printed, once it is there."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            for line in list(self._lines):
                if found := pattern.search(line):
                    return found[1]
            time.sleep(0.05)
        raise SystemExit(f"the demo ended, or took too long:\n{''.join(self._lines)}")

    def send_viewers(self, serving_port: str, ingest_port: str) -> None:
        """Let simulated viewers come to the demo's platform, for a minute and a half; returns when they have begun."""
        settings = {
            "MARQUEE_DATA": "var/demo",
            "MARQUEE_SERVING_PORT": serving_port,
            "MARQUEE_INGEST_PORT": ingest_port,
        }
        command = [".venv/bin/marquee", "audience", "--users", "200", "--seconds", "90", "--rate", "200"]
        subprocess.Popen(command, cwd=self._clone, env=os.environ | settings, stdout=subprocess.DEVNULL)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)
            sys.stdout.write(line)


def change_a_row(page: Page, address: str) -> float:
    """What a new viewer does: come, allow, play; returns the seconds from pushing play to the changed rows."""
    page.goto(address)
    page.get_by_role("button", name="Someone new").click()
    page.locator("#rows .poster").first.wait_for()
    page.get_by_label("Personalization").click()
    page.get_by_role("button", name="Allow").click()
    page.get_by_text("Personalization is on.").wait_for()
    poster = page.get_by_role("button", name=re.compile("^Play")).first
    poster.hover()
    pushed = time.monotonic()
    poster.click()
    page.get_by_text(re.compile("Your rows changed")).wait_for()
    return time.monotonic() - pushed


def take_pictures(browser: Browser, viewers: Page, address: str, key: str, demo: Demo) -> None:
    """The README's pictures, in the dark."""
    PICTURES.mkdir(exist_ok=True)
    viewers.get_by_role("button", name=re.compile("^Play")).nth(8).click()
    viewers.wait_for_timeout(3000)
    viewers.mouse.wheel(0, -5000)
    viewers.wait_for_timeout(1000)
    viewers.screenshot(path=PICTURES / "storefront.png")
    viewers.get_by_role("button", name=re.compile("^Why am I")).nth(25).click()
    viewers.wait_for_timeout(1500)
    viewers.screenshot(path=PICTURES / "why.png")
    viewers.goto(f"{address}/you")
    viewers.wait_for_timeout(2000)
    viewers.screenshot(path=PICTURES / "you.png")
    console = browser.new_page(viewport={"width": 1280, "height": 1130}, color_scheme="dark")
    console.goto(f"{address}/console")
    console.get_by_label(re.compile("key", re.I)).first.fill(key)
    console.keyboard.press("Enter")
    ports = console.evaluate("import('/web/platform.js').then((module) => module.default)")
    demo.send_viewers(address.rpartition(":")[2], str(ports["ingest_port"]))
    console.wait_for_timeout(70_000)
    console.screenshot(path=PICTURES / "console-figures.png")
    console.get_by_role("heading", name="Models").evaluate("heading => heading.scrollIntoView()")
    console.mouse.wheel(0, -80)
    console.wait_for_timeout(1000)
    console.screenshot(path=PICTURES / "console-models.png")


def main() -> None:
    """Measure, and leave the result."""
    began = time.monotonic()
    figures: dict[str, object] = {"command": "python -m bench.first_row", "cores": os.cpu_count()}
    with (
        tempfile.TemporaryDirectory() as folder,
        sync_playwright() as playwright,
        Demo(Path(folder)) as demo,
    ):
        address = demo.wait_for(STOREFRONT)
        figures["seconds_to_the_first_model"] = round(time.monotonic() - began, 1)
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=SIZE, color_scheme="dark")
        figures["seconds_from_play_to_changed_rows"] = round(change_a_row(page, address), 2)
        figures["seconds_to_a_changed_row"] = round(time.monotonic() - began, 1)
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        page.reload()
        page.locator("#rows .poster").first.wait_for()
        figures["first_paint_ms"] = round(page.evaluate(paint))
        key = demo.wait_for(KEY)
        take_pictures(browser, page, address, key, demo)
        browser.close()
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    sys.stdout.write(RESULT.read_text())


if __name__ == "__main__":
    main()
