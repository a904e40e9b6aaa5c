"""Serving needs no more of Redis than the user has that docs/transport.md makes for it."""

import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from bench.editions import put
from bench.own_platform import OwnPlatform
from infra.online_store import OnlineStoreError, connect

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

DOCUMENT = Path(__file__).parents[2] / "docs/transport.md"
PASSWORD = "of serve/@"
POLLS_SECONDS = 2.5
"""The catalogue is looked at every second."""


def documented() -> list[str]:
    (line,) = (line for line in DOCUMENT.read_text().splitlines() if line.startswith("ACL SETUSER serve "))
    return line.split()


def refused(words: list[str]) -> list[str]:
    """What Redis refused to a serving process that comes as this user, after every route was asked."""
    with OwnPlatform((), proxied=False) as platform:
        platform.store.execute_command(*(word.replace("PASSWORD", PASSWORD) for word in words))
        put(platform.store, 1, ["u-42"])
        login = f"serve:{quote(PASSWORD, safe='')}"
        url = platform.redis_url.replace("unix://", f"unix://{login}@")
        platform.start("serve", REDIS=url)
        platform.wait_until_up("serve")
        time.sleep(POLLS_SECONDS)
        ask_everything(platform)
        with connect(url) as serve, pytest.raises(OnlineStoreError):
            serve.set("{version}:current", b"2")
        log = platform.store.execute_command("ACL", "LOG")
    return [entry[b"object"].decode() for entry in log if entry[b"object"] not in (b"set", b"{version}:current")]


def ask_everything(platform: OwnPlatform) -> None:
    _, made = platform.call("serve", "GET", "/v1/users/u-42/recommendations?k=3")
    for path in (
        "/v1/users/u-42/recommendations?k=3&explain=true&category=Comedy",
        "/v1/users/u-42/home",
        "/v1/items/m0001/similar",
        f"/v1/recommendations/{made['recommendation_id']}",
    ):
        assert platform.call("serve", "GET", path)[0] == 200
    assert platform.call("serve", "POST", "/v1/recommendations", {"history": [{"item_id": "m0001"}]})[0] == 200


def test_serving_is_refused_nothing_that_it_asks_for() -> None:
    assert refused(documented()) == []


@pytest.mark.parametrize(
    "less",
    [
        lambda words: [word for word in words if word != "%R~list:*"],
        lambda words: [word for word in words if word != "+zrevrange"],
    ],
)
def test_a_right_that_is_missing_would_be_found(less: Callable[[list[str]], list[str]]) -> None:
    assert refused(less(documented()))
