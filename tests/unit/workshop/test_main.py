"""What the workshop's commands do besides sending traffic."""

import io
import signal
import subprocess
import sys
import webbrowser
from pathlib import Path

import pytest
from rich.console import Console

from infra.settings import Settings
from workshop.main import _invite

ROOT = Path(__file__).parents[3]


def test_whoever_is_invited_sees_the_storefront_in_a_browser_and_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address is printed too: not every machine has a browser."""
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    printed = io.StringIO()
    _invite(Settings(serving_port=8123), Console(file=printed), "viewer 7/é")
    assert opened == ["http://127.0.0.1:8123/?viewer=viewer%207%2F%C3%A9"]
    assert opened[0] in printed.getvalue()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_platform_that_was_shown_stays_up_until_it_is_told_to_stop(number: signal.Signals) -> None:
    """Libraries that the demo needs put a handler of their own in Python's place, under which a wait would go on."""
    code = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal, whoever runs the tests
from rich.console import Console
from infra.settings import Settings
from workshop.main import _keep_up
_keep_up(Settings(), Console())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as demo:
        assert demo.stdout
        assert any("Ctrl-C stops everything" in line for line in demo.stdout)
        demo.send_signal(number)
        assert demo.wait(60) == 0
