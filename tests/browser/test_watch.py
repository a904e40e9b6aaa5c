"""What watches the pages sees each thing that no page may do. Our own headers keep most of it from working."""

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from playwright.sync_api import Browser

from serving.pages import POLICY
from tests.browser.conftest import Browsing, barriers

Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves one page, and gives its address. Ask for it before `browsing`, so that the browser goes first at the end.

    Else a connection that Chromium has just opened is reset by a server that goes, and the console tells of that.
    """
    servers: list[ThreadingHTTPServer] = []

    def page(markup: str, **headers: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = self.path == "/"
                self.send_response(200 if found else 204)
                for name, value in {"Content-Type": "text/html; charset=utf-8", **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(f"<!doctype html><html lang=en><title>t</title>{markup}".encode() if found else b"")

            def log_message(self, *_: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/"

    yield page
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("markup", "seen"),
    [
        ("<script>throw new Error('on purpose')</script>", "thrown: on purpose"),
        ("<script>console.error('said so')</script>", "console: said so"),
        ("<script>fetch('http://192.0.2.1/x').catch(() => 0)</script>", "asked: http://192.0.2.1/x"),
        ("<img alt=a src=http://font.example/x.png>", "asked: http://font.example/x.png"),
    ],
)
def test_a_page_that_misbehaves_is_seen(chromium: Browser, serve: Serve, markup: str, seen: str) -> None:
    watching = Browsing(chromium)
    with pytest.raises(AssertionError), watching:  # noqa: PT012 - what is opened is what fails at the end
        page = watching.open(serve(markup))
        page.wait_for_function("performance.now() > 100")
    assert seen in watching.trespasses


def test_a_script_that_was_injected_does_not_run_under_our_headers(serve: Serve, browsing: Browsing) -> None:
    """Nor does a call of another host leave, and text does not become markup."""
    policy = POLICY.format(edges="http://127.0.0.1:1")
    browsing.forgive("Content Security Policy|requires 'Trusted")
    page = browsing.open(
        serve("<main><h1>t</h1></main><script>window.ran = 1</script>", Content_Security_Policy=policy)
    )
    assert page.evaluate("window.ran") is None
    blocked = "fetch('http://192.0.2.1/x').then(() => 'went', () => 'blocked')"
    assert page.evaluate(blocked) == "blocked"
    written = "try { document.body.innerHTML = '<b>x</b>'; 'written' } catch (error) { error.name }"
    assert page.evaluate(written) == "TypeError"
    assert not browsing.trespasses


def test_a_barrier_is_found(serve: Serve, browsing: Browsing) -> None:
    page = browsing.open(serve("<main><h1>t</h1><p style='color:#888;background:#777'>Can you read this?</p></main>"))
    assert [each.partition(":")[0] for each in barriers(page)] == ["color-contrast"]
