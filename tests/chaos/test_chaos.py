"""The miniature of `make chaos`: real processes are struck for half a minute, on each log.

Nothing acknowledged is lost or counted twice; without the fence, the same checker finds duplicates.
"""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.outage import run_outage
from tests.chaos.platform import CLUSTER, LANDERS, NEARLINES, Platform
from tests.chaos.run import Size, run, run_control
from tests.conftest import require_kafka

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # kafka-python leaves some,
    pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning"),  # and a proxy that ends under way.
]

SMALL = Size(events=8_000, strikes=8, people=60)
CONTROL = Size(events=4000, strikes=4, people=60)
OF_THE_CLUSTER = Size(events=6_000, strikes=6, people=60, seed=4)
SEED = {"redis": 3, "kafka": 5}
STOPPED_SECONDS = 8.0


@pytest.fixture(params=["redis", pytest.param("kafka", marks=pytest.mark.kafka)])
def log(request: pytest.FixtureRequest) -> Iterator[str]:
    """Which log."""
    if request.param == "kafka":
        require_kafka()
    yield str(request.param)
    gc.collect()  # So that what is left goes here, where its warning is let pass.


def test_nothing_acknowledged_is_lost_or_counted_twice_whatever_strikes(log: str) -> None:
    with Platform(log) as platform:
        outcome = run(platform, SMALL._replace(seed=SEED[log]))
        said = {path.name: path.read_text(errors="replace")[-2000:] for path in Path(platform.folder).glob("*.out")}
    assert outcome.whole, (outcome, said)
    assert outcome.acknowledged > 0.8 * SMALL.events
    assert outcome.withdrawals > 0
    assert outcome.findings.figures["sent_more_than_once_and_landed"] > 0


@pytest.mark.kafka
def test_brokers_landers_and_nearline_workers_come_and_go_and_nothing_is_lost_doubled_or_out_of_order() -> None:
    require_kafka()
    with Platform("kafka", landers=LANDERS, brokers=CLUSTER, nearlines=NEARLINES) as platform:
        outcome = run(platform, OF_THE_CLUSTER)
        said = {path.name: path.read_text(errors="replace")[-2000:] for path in Path(platform.folder).glob("*.out")}
        replicas = platform.replicas()
    assert outcome.whole, (outcome, said)
    assert outcome.acknowledged > 0.8 * OF_THE_CLUSTER.events
    assert outcome.struck["broker: kill -9"] == 2
    assert replicas == {3}
    gc.collect()


def test_landers_without_the_fence_are_found_to_land_records_twice(log: str) -> None:
    with Platform(log, landers=LANDERS, fenced=False) as platform:
        assert run_control(platform, CONTROL) > 0


def test_while_the_log_is_stopped_nothing_is_called_accepted_and_it_recovers_by_itself(log: str) -> None:
    with Platform(log, landers=LANDERS[:1]) as platform:
        outage = run_outage(platform, STOPPED_SECONDS)
    assert outage.answers.keys() == {503}
    assert outage.false_202 == outage.duplicated == 0
    assert outage.rss_most_mb - outage.rss_before_mb < 150
    assert outage.slowest_503_seconds < 5  # 2 s on a machine that does nothing else: `make chaos`.
