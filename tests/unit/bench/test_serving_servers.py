"""What wrk prints is read as it means it."""

import pytest

from bench.serving_servers import Throughput, read_wrk

PRINTED = """  Latency Distribution
     50%    1.90ms
     99%    {tail}
  1000 requests in {seconds}, 18.00MB read
{errors}Requests/sec:    500.00
"""


@pytest.mark.parametrize(
    ("tail", "seconds", "errors", "seen"),
    [
        ("3.30ms", "2.00s", "", Throughput(500.0, 0.0, 3.3)),
        ("900.00us", "1.00m", "", Throughput(1000 / 60, 0.0, 0.9)),
        ("1.05s", "2.00s", "  Non-2xx or 3xx responses: 200\n", Throughput(400.0, 100.0, 1050.0)),
    ],
)
def test_answers_that_are_refusals_are_counted_apart(tail: str, seconds: str, errors: str, seen: Throughput) -> None:
    """Rates a second and the tail in milliseconds, whatever unit wrk chose."""
    assert read_wrk(PRINTED.format(tail=tail, seconds=seconds, errors=errors)) == pytest.approx(seen)


def test_broken_connections_are_no_measurement() -> None:
    """They would pass for a slow server."""
    errors = "  Socket errors: connect 0, read 3, write 0, timeout 0\n"
    with pytest.raises(RuntimeError):
        read_wrk(PRINTED.format(tail="1ms", seconds="2.00s", errors=errors))
