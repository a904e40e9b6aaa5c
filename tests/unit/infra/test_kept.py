"""A costly question is asked now and then, however many want to know."""

import pytest

from infra.kept import Kept


def test_an_answer_is_good_until_its_seconds_are_over() -> None:
    answers, moment = iter(range(9)), [0.0]
    kept = Kept(lambda: next(answers), 10, lambda: moment[0])
    assert (kept(), kept()) == (0, 0)
    moment[0] = 9.9
    assert kept() == 0
    moment[0] = 10.0
    assert (kept(), kept()) == (1, 1)


def test_what_fails_is_asked_again_at_once() -> None:
    divisors = iter([0, 2])
    kept = Kept(lambda: 14 // next(divisors), 10)
    with pytest.raises(ZeroDivisionError):
        kept()
    assert kept() == 7
