"""Two serving workers behind a real HAProxy: they are replaced, and versions change, and nobody notices."""

import shutil
import signal
from pathlib import Path

import pytest

from bench.rolling_drill import CONFIGURATION, Size, rolling_drill
from bench.service_levels import ROLLING, broken
from tests.conftest import program

pytestmark = [pytest.mark.e2e]

SMALL = Size(users=60, rate=150, settled=0.5)
TIMING = {"rolling_p99_ms"}
"""A busy machine may break it: `make drill` holds it."""


@pytest.fixture(autouse=True)
def haproxy() -> None:
    """The load balancer."""
    program("haproxy")


def test_workers_are_replaced_and_versions_change_and_no_request_fails() -> None:
    report = rolling_drill(SMALL)
    assert set(broken(ROLLING, report.figures)) <= TIMING, (report.figures, [phase.figures for phase in report.phases])
    assert report.said == ["versions seen: [1, 2]"]
    assert len(report.phases[1].answers) > 100


def test_workers_that_end_at_once_before_a_balancer_that_does_not_ask_again_are_found(tmp_path: Path) -> None:
    careless = tmp_path / "haproxy.cfg"
    shutil.copy(CONFIGURATION, careless)
    words = careless.read_text()
    for kept in (
        "    retries 3\n",
        "    option redispatch 1\n",
        "    retry-on conn-failure empty-response junk-response\n",
    ):
        assert kept in words
        words = words.replace(kept, "")
    careless.write_text(
        words.replace("inter 500ms fall 3", "inter 2s fall 3").replace("defaults\n", "defaults\n    retries 0\n")
    )
    report = rolling_drill(SMALL._replace(ends=signal.SIGKILL, configuration=careless))
    assert "failed" in broken(ROLLING, report.figures)
