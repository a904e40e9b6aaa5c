"""The operator's page on a platform that is up: sign in, train, judge, promote, roll back; and what is down is said."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Locator, Page, Request, Route, expect

from infra.key_file import KeyFile, KeyScope
from serving.pages import WEB
from tests.browser.conftest import PHONE, Browsing, barriers, keep
from workshop.fresh_platform import FreshPlatform
from workshop.invented import generate

pytestmark = [pytest.mark.e2e]

A_RUN = 120_000  # milliseconds
UNANSWERED = r"Failed to load resource: net::ERR|status of (401|403)"


class Platform(FreshPlatform):
    """Adds a key that may not operate and one that will end, and stops of single processes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, {"TUNE_SECONDS": "0"})
        self.keys = KeyFile(self.settings.keys_file)
        self.shop_key = self.keys.create("shop", [KeyScope.EVENTS])
        self.guest_key = self.keys.create("guest", [KeyScope.OPERATE])

    @contextmanager
    def hanging(self, *words: str) -> Iterator[None]:
        """While the block runs, these processes neither answer nor refuse."""
        assert self._process is not None
        found = [each for each in psutil.Process(self._process.pid).children() if each.cmdline()[-1] in words]
        assert len(found) == len(words)
        try:
            for each in found:
                each.send_signal(signal.SIGSTOP)
            yield
        finally:
            for each in found:
                each.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One platform for the tests of this module, in their order. Its settings are gone from the environment after."""
    before = dict(os.environ)
    try:
        with Platform(tmp_path_factory.mktemp("console") / "data") as platform:
            platform.send(generate(300, 120, 9_000))
            yield platform
    finally:
        os.environ.clear()
        os.environ.update(before)


def console(browsing: Browsing, platform: Platform, **more: object) -> Page:
    """The console, signed in."""
    page = browsing.open(f"{platform.serving_url}/console", **more)
    sign_in(page, platform.key)
    expect(page.locator("#age")).to_contain_text("Figures of")
    return page


def sign_in(page: Page, key: str) -> None:
    """Type a key, as an operator would."""
    page.get_by_label("Operator's key").fill(key)
    page.get_by_role("button", name="Sign in").click()


def test_a_key_that_may_not_operate_or_has_ended_is_told_so(browsing: Browsing, platform: Platform) -> None:
    browsing.forgive(UNANSWERED)
    page = browsing.open(f"{platform.serving_url}/console")
    sign_in(page, "nobody's")
    expect(page.get_by_role("alert").first).to_contain_text("Nobody has this key")
    sign_in(page, platform.shop_key)
    expect(page.get_by_role("alert").first).to_contain_text("needs the scope operate")
    assert not barriers(page)
    keep(page, "console-sign-in")
    sign_in(page, platform.key)
    expect(page.get_by_role("heading", name="What is wrong")).to_be_visible()
    assert platform.key not in str(page.evaluate("JSON.stringify(localStorage)"))
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="What is wrong")).to_be_hidden()
    assert page.evaluate("sessionStorage.length") == 0
    sign_in(page, platform.guest_key)
    expect(page.get_by_role("heading", name="What is wrong")).to_be_visible()
    platform.keys.revoke(platform.guest_key.split("_")[1])
    expect(page.get_by_role("alert").first).to_contain_text("or it has ended")
    expect(page.get_by_label("Operator's key")).to_be_focused()


def test_runs_are_asked_for_followed_and_judged(browsing: Browsing, platform: Platform) -> None:
    page = console(browsing, platform)
    expect(page.locator("#served")).to_have_text("No version")
    for version in (1, 2):
        page.get_by_role("button", name="Train now").click()
        expect(page.locator("#phases li[aria-current=step]")).to_be_visible(timeout=A_RUN)
        if version == 2:
            keep(page, "console-training", whole=True)
        expect(page.locator("#served")).to_have_text(f"Version {version}", timeout=A_RUN)
        expect(page.locator("#last-run")).to_contain_text(f"published, version {version}.")
        expect(page.locator("#last-reasons")).to_contain_text("passed popularity")
    newest = page.locator("#versions > li").first
    expect(newest).to_contain_text("served now")
    expect(newest).to_contain_text("gate passed")
    newest.get_by_text("What the gate said").click()
    expect(newest.locator(".verdicts")).to_contain_text("the champion's own recipe")
    expect(page.locator("#quality-chart")).to_have_attribute("aria-label", re.compile("version 1: .* version 2: "))


def test_nothing_is_served_by_a_single_click(browsing: Browsing, platform: Platform) -> None:
    """A dialog says what will happen; Escape leaves everything as it is. A page without the dialog is caught."""
    whole = console(browsing, platform)
    assert asked_without_a_word(whole) == []
    expect(whole.get_by_role("dialog")).to_contain_text("Everybody will get the lists of version 1")
    keep(whole, "console-confirm")
    assert not barriers(whole)
    whole.keyboard.press("Escape")
    expect(whole.get_by_role("dialog")).to_be_hidden()
    expect(whole.locator("#rollback")).to_be_focused()
    hasty = console(browsing, platform)
    assert asked_without_a_word(broken(hasty, "dialog.js", "dialog.showModal();", 'return Promise.resolve("");')) != []


def asked_without_a_word(page: Page) -> list[str]:
    """What a page changes when its operator does no more than click; nothing of it arrives."""
    asked: list[str] = []

    def take(route: Route, request: Request) -> None:
        if request.method == "POST":
            asked.append(request.url)
            route.fulfill(json={"served": 1})
        else:
            route.continue_()

    page.route("**/v1/rollback", take)
    page.locator("#rollback").click()
    page.wait_for_selector("dialog[open], #models-said:has-text('is served')")
    page.unroute("**/v1/rollback")
    return asked


def broken(page: Page, name: str, old: str, new: str) -> Page:
    """The same page, signed in as it was, with something in one of its modules exchanged."""
    text = (WEB / "console" / name).read_text()
    assert old in text
    page.route(
        f"**/console/{name}", lambda route: route.fulfill(body=text.replace(old, new), content_type="text/javascript")
    )
    page.reload()
    expect(page.locator("#age")).to_contain_text("Figures of")
    expect(page.locator("#rollback")).to_be_enabled()
    return page


def test_what_the_gate_refused_is_served_by_force_and_with_a_reason_only(
    browsing: Browsing, platform: Platform
) -> None:
    """The registry's answer is altered on its way: to have a version refused takes more data than a test has."""
    page = console(browsing, platform)
    page.route("**/v1/models?*", refuse_the_oldest)
    page.reload()  # Versions are asked for at once, not in ten seconds.
    sent: list[Any] = []

    def take(route: Route, request: Request) -> None:
        sent.append(request.post_data_json)
        refusal = {"code": "gate_refused", "detail": "the gate refused version 1"}
        route.fulfill(status=409, json=refusal)

    page.route("**/v1/models/1/promotion", take)
    browsing.forgive("status of 409")
    expect(page.locator("#versions")).to_contain_text("too few people")
    page.get_by_role("button", name="Promote by force… version 1").click()
    expect(page.get_by_role("dialog")).to_contain_text("The gate refused it: champion: too few people.")
    page.get_by_role("button", name="Serve version 1").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert sent == []
    page.get_by_label("Reason").fill("the other one is broken")
    page.get_by_role("button", name="Serve version 1").click()
    expect(page.locator("#models-said")).to_have_text("Not done: the gate refused version 1")
    assert sent == [{"force": True, "reason": "the other one is broken"}]
    page.unroute_all(behavior="wait")


def refuse_the_oldest(route: Route) -> None:
    """Answer as if the gate had refused the oldest version."""
    answer = route.fetch()
    said = answer.json()
    verdicts = [{"check": "champion", "passed": False, "reason": "too few people"}]
    said["models"][-1]["gate"] = {"passed": False, "verdicts": verdicts}
    route.fulfill(response=answer, json=said)


def test_back_to_a_version_and_forward_again_with_a_reason(browsing: Browsing, platform: Platform) -> None:
    page = console(browsing, platform)
    page.locator("#rollback").click()
    page.get_by_role("button", name="Roll back to version 1").click()
    expect(page.locator("#served")).to_have_text("Version 1")
    page.get_by_role("button", name="Promote… version 2").click()
    page.get_by_label("Reason").fill("<b>it is newer</b>")
    page.keyboard.press("Enter")
    expect(page.locator("#served")).to_have_text("Version 2")
    expect(page.locator("#versions > li").first).to_contain_text("<b>it is newer</b>")
    expect(page.locator("#models-said")).to_have_text("Version 2 is served.")


def test_a_viewers_list_stands_beside_another_versions(browsing: Browsing, platform: Platform) -> None:
    page = console(browsing, platform, size=PHONE, colours="light")
    expect(page.locator("#viewer-button")).to_be_enabled()  # Until the versions are known, Enter asks nothing.
    page.get_by_label("Viewer's id").fill("viewer-007")
    page.keyboard.press("Enter")
    expect(page.locator("#viewer-lists li")).to_have_count(20)
    expect(page.locator("#viewer-said")).to_contain_text("Watched last: ")
    expect(page.locator("#viewer-said")).to_contain_text(re.compile("Both lists are the same|of 10 stay"))
    expect(page.locator("#consent-personalization")).to_have_text("300")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not barriers(page)
    keep(page, "console-phone", whole=True)


def test_a_hidden_tab_asks_nothing_and_goes_on_when_it_is_seen(browsing: Browsing, platform: Platform) -> None:
    """One that goes on asking is caught."""
    page = console(browsing, platform)
    mutant = broken(console(browsing, platform), "feeds.js", "!document.hidden", "true")
    asked: list[str] = []
    for each in (page, mutant):
        hide(each, True)
    page.on("request", lambda request: asked.append(request.url))
    for _ in range(2):
        with mutant.expect_request("**/v1/operations"):
            pass
    assert asked == []
    with page.expect_request("**/v1/operations"):
        hide(page, False)


def hide(page: Page, hidden: bool) -> None:
    """Tell a page that its tab is hidden, or is not: a browser without a window never does."""
    page.evaluate(
        """(hidden) => {
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def test_what_is_down_is_said_and_its_figures_are_marked_old(browsing: Browsing, platform: Platform) -> None:
    """The page goes on by itself. One that shows old figures as if they were of now is caught."""
    browsing.forgive(UNANSWERED)
    page = console(browsing, platform, colours="light")
    mutant = broken(console(browsing, platform), "panels.js", "(silent || known !== points.at(-1))", "false")
    well = page.locator("#all-well")
    page.route("**/v1/operations", lambda route: None)
    page.reload()
    expect(page.locator("#served")).to_have_text("Version 2")
    expect(well).to_be_hidden()  # Who knows nothing says nothing.
    page.unroute("**/v1/operations")
    page.reload()
    expect(well).to_be_visible()
    expect(panel(page, "freshness")).not_to_contain_text("old")
    expect(panel(page, "events")).to_contain_text("accepted 0")  # All figures are there, after a second answer.
    page.evaluate("window.kept = [...document.querySelectorAll('#panels *')]")
    heights = "[...document.querySelectorAll('.panel')].map((each) => each.offsetHeight)"
    before = page.evaluate(heights)
    with platform.hanging("nearline"):
        expect(page.locator("#findings")).to_contain_text("nearline does not answer")
        expect(panel(page, "freshness")).to_contain_text("old: figures of")
        expect(panel(page, "events")).not_to_contain_text("old")
        assert page.evaluate(heights) == before, "something moved"
        expect(mutant.locator("#findings")).to_contain_text("nearline does not answer")
        with pytest.raises(AssertionError):
            expect(panel(mutant, "freshness")).to_contain_text("old: figures of", timeout=100)
        assert not barriers(page)
        keep(page, "console-outage", whole=True)
        with platform.hanging("operate"):
            expect(page.locator("#findings")).to_contain_text("The operator's API does not answer")
            expect(page.locator("#age")).to_contain_text("Old: figures of")
            expect(panel(page, "events")).to_contain_text("old: figures of")
            expect(page.locator("#processes")).not_to_contain_text("✓")
    expect(well).to_be_visible()
    expect(panel(page, "freshness")).not_to_contain_text("old")
    assert page.evaluate("kept.every((element) => element.isConnected)"), "it was made anew, and not written to"
    assert not barriers(page)


def panel(page: Page, name: str) -> Locator:
    """One panel of figures."""
    return page.locator(f"#{name}")
