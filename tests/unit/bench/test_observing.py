"""What viewers saw is counted as it was, and recovery lasts until the last answer that was not well."""

import threading
import time

from bench.constant_rate import Answer, ConstantRate
from bench.observing import Phase, Seen, between, failed, look, recovered

HEAD = b"HTTP/1.1 200 OK\r\nmarquee-version: 1\r\nmarquee-tier: personal"


def told(at: float, tier: str = "personal", status: int = 200, seconds: float = 0.01) -> Answer:
    return Answer(at, seconds, status, Seen(tier, 1) if status else None)


def test_a_list_is_seen_with_its_tier_and_version() -> None:
    body = b'{"version": 1, "items": [{"item_id": "m0001", "edition": 1}]}'
    assert look(200, HEAD, body) == Seen("personal", 1, mixed=False)
    assert look(200, HEAD, body.replace(b'edition": 1', b'edition": 2')).mixed


def test_a_refusal_is_seen_with_whether_it_says_when_to_come_again() -> None:
    assert look(503, b"HTTP/1.1 503 Busy\r\nretry-after: 1", b"").retry_after
    assert not look(503, b"HTTP/1.1 503 Busy\r\nserver: x", b"").retry_after


def test_errors_of_the_server_and_no_answer_fail_and_refusals_of_the_caller_do_not() -> None:
    assert failed([told(0), told(0, status=503), told(0, status=0), told(0, status=404)]) == 2


def test_a_phase_counts_what_was_due_in_it() -> None:
    answers = [told(1.0), told(2.0, "popular"), told(2.5, status=0), told(3.0)]
    found = Phase("during", between(answers, 2.0, 3.0)).figures
    assert (found["answers"], found["tiers"], found["statuses"]) == (2, {"popular": 1}, {"200": 1, "0": 1})


def test_recovery_lasts_until_the_last_answer_that_was_not_well() -> None:
    load = ConstantRate(1, lambda: b"", 1, 1)
    since = time.monotonic() - 1
    load.answers += [told(since - 1, "popular"), told(since + 0.4, "popular", seconds=0.1), told(since + 0.6)]
    assert recovered(load, since) == 0.5


def test_an_answer_that_is_ill_later_puts_recovery_off() -> None:
    load = ConstantRate(1, lambda: b"", 1, 1)
    since = time.monotonic()
    ill = threading.Timer(0.5, lambda: load.answers.append(told(since + 0.5, status=500, seconds=0)))
    ill.start()
    assert recovered(load, since) == 0.5
    ill.join()
