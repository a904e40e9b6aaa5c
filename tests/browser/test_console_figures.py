"""What the console reckons, with known answers: its modules that know no page run in a real browser by themselves."""

import json
import re
import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from playwright.sync_api import Page

from serving.pages import WEB
from tests.browser.conftest import Browsing

GIVEN = """(() => {
    const BUCKETS = [[.1, 10], [.5, 90], [1, 99], [Infinity, 100]];
    const [LEFT, RIGHT] = ['abcd', 'adx'].map((ids) => [...ids].map((item_id) => ({item_id})));
    const FAILED = {last: {result: 'failed', reason: 'no disk'}};
    const WELL = {silent: [], redis: {}};
    const EVERY = (point) => Array.from({length: 20}, (_, n) => ({at: 2000 * n, serves: null, ...point}));
    const LAG = (from, to) => EVERY().map((point, n) => ({...point, lag: {lander: n < 10 ? from : to}}));
    const OPERATIONS = (seconds, value, answers) => ({
      at: new Date(seconds * 1000).toISOString(), lag: {}, redis: null, landed_rows: null,
      processes: [{name: 'ingest', answers}],
      samples: [{process: 'ingest', name: 'marquee_events_total', labels: {verdict: 'accepted'}, value}],
    });
    return {BUCKETS, LEFT, RIGHT, WELL, FAILED, EVERY, LAG, OPERATIONS};
})()"""
"""What the expressions below are about."""

DASH = "\N{EN DASH}"
KNOWN: list[tuple[str, str, Any]] = [
    ("figures", "growth(10, 25)", 15),
    ("figures", "growth(25, 3)", 3),
    ("figures", "rates({a: 10}, {a: 30, b: 4}, 2)", {"a": 10, "b": 2}),
    ("figures", "rates({a: 1000}, {a: 6}, 2)", {"a": 3}),
    ("figures", "quantile(BUCKETS, .5)", 0.3),
    ("figures", "quantile(BUCKETS, .05)", 0.05),
    ("figures", "quantile(BUCKETS, .99)", 1),
    ("figures", "quantile(BUCKETS, 1)", 1),
    ("figures", "quantile([], .5)", None),
    ("figures", "quantile(BUCKETS.map(([le]) => [le, 0]), .5)", None),
    ("figures", "bucketsBetween([[1, 5], [2, 8]], [[1, 6], [2, 18]])", [[1, 1], [2, 10]]),
    ("figures", "bucketsBetween([[1, 5], [2, 8]], [[1, 2], [2, 3]])", [[1, 2], [2, 3]]),
    ("figures", "total({a: 1, b: 2})", 3),
    ("figures", "total(null)", None),
    ("moves", "compare(LEFT, RIGHT).after.map(({move}) => inWords(move))", ["same place", "up 2 places", "new"]),
    ("moves", "compare(LEFT, RIGHT).before.map(({move}) => move?.kind ?? '')", ["", "gone", "gone", ""]),
    ("moves", "summary(compare(LEFT, RIGHT))", "2 of 3 stay, 1 of them in the same place; 1 are new."),
    ("moves", "summary(compare(LEFT, LEFT))", "Both lists are the same."),
    ("words", "[number(0), number(null), number(12.345), number(12345)]", ["0", DASH, "12.3", "12.3K"]),
    (
        "words",
        "[bytes(475), bytes(18300000), duration(.0078), duration(75)]",
        ["475 B", "18.3 MB", "7.8 ms", "1 min 15 s"],
    ),
]
MUTANTS = [
    ("figures.js", "after < before ? after : after - before", "after - before"),
    ("figures.js", "return restarted ? after :", "return"),
    ("figures.js", "low + ((high - low) * (rank - under)) / (upTo - under)", "high"),
    ("figures.js", "Number.isFinite(high) ?", "true ?"),
    ("moves.js", "from > to ?", "from < to ?"),
    ("words.js", "if (!known(value)) return DASH;", ""),
]

FINDINGS: list[tuple[str, list[str]]] = [
    ("{reading: WELL, points: [], training: null, models: null}", []),
    ("{reading: {...WELL, silent: ['lander']}, points: []}", ["bad silent-lander"]),
    ("{reading: {...WELL, redis: null}, points: []}", ["bad redis"]),
    ("{reading: {...WELL, redis: null}, points: EVERY({nearlineWaits: {a: 1}})}", ["bad redis"]),
    ("{reading: null, points: []}", []),
    ("{reading: WELL, points: [], training: FAILED}", ["warn training"]),
    ("{reading: WELL, points: LAG(5000, 5000)}", ["warn behind-lander"]),
    ("{reading: WELL, points: LAG(5000, 4000)}", []),
    ("{reading: WELL, points: LAG(900, 900)}", []),
    ("{reading: WELL, points: EVERY({freshness: {p99: 2}})}", ["warn slow"]),
    ("{reading: WELL, points: EVERY({freshness: {p99: 0.2}})}", []),
    ("{reading: WELL, points: EVERY({landerFailures: {LakeError: 1}})}", ["bad landerFailures"]),
    ("{reading: WELL, points: EVERY({readErrors: {TimeoutError: 1}, lists: {live: 19}})}", ["bad readErrors"]),
    ("{reading: WELL, points: EVERY({readErrors: {TimeoutError: 1}, lists: {live: 21}})}", []),
    ("{reading: WELL, points: EVERY({refused: {404: 3}})}", []),
    ("{reading: WELL, points: EVERY({refused: {503: 3}})}", ["bad turned-away"]),
    ("{reading: WELL, points: EVERY({landed: {events: 9, dead_letters: 1}})}", ["warn dead-letters"]),
    ("{reading: WELL, points: EVERY({serves: 1}), models: {served: 2}}", ["bad old-version"]),
    ("{reading: WELL, points: EVERY({serves: 2}), models: {served: 2}}", []),
    (
        "{reading: WELL, points: EVERY({nearlineWaits: {a: 1}, readErrors: {b: 1}}), training: FAILED}",
        ["bad readErrors", "warn nearlineWaits", "warn training"],
    ),
]
WHOLE = "whole"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of an empty page; the console's modules are in a folder beside it, each mutant in one of its own."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "index.html").write_text("<!doctype html><html lang=en><title>empty</title><link rel=icon href=data:,>")
    shutil.copytree(WEB / "console", folder / WHOLE)
    for number, (name, old, new) in enumerate(MUTANTS):
        shutil.copytree(WEB / "console", folder / str(number))
        text = (folder / WHOLE / name).read_text()
        assert old in text
        (folder / str(number) / name).write_text(text.replace(old, new))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def page(browsing: Browsing, address: str) -> Page:
    """An empty page of that address."""
    return browsing.open(address)


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_rates_quantiles_and_moves_are_what_they_should_be(page: Page) -> None:
    for module, expression, known in KNOWN:
        assert run(page, module, f"return {expression}") == known, expression


def test_a_broken_reckoning_is_caught(page: Page) -> None:
    """Each mutant gives another answer than the known one to one of the questions at least."""
    for number, (name, old, _) in enumerate(MUTANTS):
        asked = [(module, expression, known) for module, expression, known in KNOWN if name == f"{module}.js"]
        given = [run(page, module, f"return {expression}", str(number)) for module, expression, _ in asked]
        assert given != [known for _, _, known in asked], old


def test_what_is_remembered_is_bounded_however_long_the_page_is_open(page: Page) -> None:
    """A day of polls is a quarter of an hour of points; a clock that stands still, or goes back, adds no more."""
    day = "for (let at = 0; at < 86_400_000; at += POLL_MS) remember(points, {at})"
    still = "for (let n = 0; n < 10_000; n += 1) remember(points, {at: 0})"
    for polls in (day, still):
        held = run(page, "figures", f"const points = []; {polls}; return [points.length, MOST_POINTS]")
        assert 450 <= held[0] <= held[1] == 451


def test_nothing_is_reckoned_over_a_silence_or_a_long_pause(page: Page) -> None:
    """A process that did not answer, or a tab that was hidden, leaves a gap, not an average over the time between."""
    pair = "const [a, b] = [OPERATIONS(0, 10, true), OPERATIONS(2, 30, true)].map(read);"
    assert run(page, "figures", f"{pair} return pointBetween(a, b).events") == {"accepted": 10}
    assert run(page, "figures", f"{pair} return pointBetween(null, a).events") is None
    assert run(page, "figures", f"{pair} return pointBetween(a, {{...b, at: a.at + GAP_MS + 1}}).events") is None
    silent = "const [a, b] = [OPERATIONS(0, 10, false), OPERATIONS(2, 30, true)].map(read);"
    assert run(page, "figures", f"{silent} return [pointBetween(a, b).events, a.silent]") == [None, ["ingest"]]


def test_what_is_wrong_is_found_the_worst_first(page: Page) -> None:
    for state, found in FINDINGS:
        told = run(page, "findings", f"return findings({state}).map(({{level, id}}) => `${{level}} ${{id}}`)")
        assert told == found, state


def test_each_finding_is_explained_in_the_documentation() -> None:
    told = re.findall(r'(?:bad|warn)\(\s*"[^"]+",\s*"([^",]+)', (WEB / "console/findings.js").read_text())
    documented = (Path(__file__).parents[2] / "docs/console.md").read_text()
    assert len(told) >= 8
    assert [finding for finding in told if f"| {finding} |" not in documented] == []


def run(page: Page, module: str, body: str, folder: str = WHOLE) -> Any:
    """What a function with this body returns, with what a module exports, and GIVEN, by name; rounded."""
    call = f"(new Function('module', 'given', {json.dumps(f'with (module) with (given) {{ {body} }}')}))(module, given)"
    rounded = "(_, value) => (typeof value === 'number' ? Number(value.toFixed(9)) : value)"
    return page.evaluate(f"""async () => {{
        const [module, given] = [await import('/{folder}/{module}.js'), {GIVEN}];
        return JSON.parse(JSON.stringify({call} ?? null, {rounded}));
    }}""")
