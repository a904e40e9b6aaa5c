"""The gate: every verdict, and that none of its rules can be taken out unnoticed."""

import pytest

from training.promotion import GAIN, MARGIN, judge_challenger


@pytest.mark.parametrize(
    ("challenger", "popularity", "champion", "passed"),
    [
        pytest.param(0.20, 0.10, None, True, id="the first model beats popularity"),
        pytest.param(0.10, 0.10, None, False, id="the first model is popularity"),
        pytest.param(0.05, 0.10, None, False, id="the first model is worse than popularity"),
        pytest.param(0.104, 0.10, None, False, id="a little better than popularity is not enough"),
        pytest.param(0.0, 0.0, None, False, id="nothing is right anywhere"),
        pytest.param(0.20, 0.10, 0.20, True, id="as good as the champion"),
        pytest.param(0.195, 0.10, 0.20, True, id="within the margin of the champion"),
        pytest.param(0.18, 0.10, 0.20, False, id="worse than the champion"),
        pytest.param(0.30, 0.10, 0.20, True, id="better than the champion"),
        pytest.param(0.20, 0.25, 0.10, False, id="better than the champion and worse than popularity"),
    ],
)
def test_the_gate_passes_what_beats_popularity_and_is_not_worse_than_the_champion(
    challenger: float, popularity: float, champion: float | None, passed: bool
) -> None:
    verdict = judge_challenger(challenger, popularity, champion)
    assert verdict.passed is passed
    assert len(verdict.reasons) == 2
    assert any(reason.startswith("failed") for reason in verdict.reasons) is not passed


def test_reasons_carry_the_figures() -> None:
    reasons = judge_challenger(0.1, 0.2, 0.3).reasons
    assert reasons == (
        f"failed: nDCG@10 0.1000, needs more than {0.2 * (1 + GAIN):.4f} to beat popularity",
        f"failed: nDCG@10 0.1000, needs {0.3 * (1 - MARGIN):.4f} to stand beside the champion",
    )
