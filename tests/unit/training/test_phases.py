"""Phases are timed, and memory is counted in megabytes."""

import numpy as np
import pytest

from training.phases import Phases, peak_memory_mb


def test_phases_are_figures_in_their_order() -> None:
    phase = Phases()
    for name in ("read", "check"):
        with phase(name):
            pass
    assert list(phase.figures()) == ["seconds_read", "seconds_check", "peak_memory_mb"]
    assert all(value >= 0 for value in phase.figures().values())


def test_a_phase_that_raises_is_no_phase_that_was_done() -> None:
    phase = Phases()
    with pytest.raises(ZeroDivisionError), phase("read"):
        raise ZeroDivisionError
    assert phase.seconds == {}


def test_what_is_under_way_can_be_seen() -> None:
    phase = Phases()
    assert (phase.now, phase.detail) == (None, None)
    with phase("tune"):
        phase.say("2 recipes tried")
        assert (phase.now, phase.detail) == ("tune", "2 recipes tried")
    assert (phase.now, phase.detail) == (None, None)


def test_peak_memory_is_in_megabytes() -> None:
    before = peak_memory_mb()
    held = np.ones(int(before + 64) * 2**20, np.uint8)
    assert held.sum()
    assert before + 64 <= peak_memory_mb() < 4 * before + 1000
