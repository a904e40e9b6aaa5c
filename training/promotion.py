"""The gate between a trained model and the people: it beats popularity, and is not worse than the champion.

The champion is judged by its recipe (algorithm and parameters), fitted on the same events from before the cut. Its
published bundle has been fitted on events that are held out here, and would look twice as good as it is.
"""

from typing import NamedTuple

GAIN = 0.05
"""How much better than popularity a model has to be, relative."""
MARGIN = 0.05
"""How much worse than the champion it may be, relative: a hold-out of few people is noisy."""


class Verdict(NamedTuple):
    """What the gate says.

    Attributes:
        passed: whether the challenger becomes the champion.
        reasons: why, one sentence a rule.
    """

    passed: bool
    reasons: tuple[str, ...]


def judge_challenger(challenger: float, popularity: float, champion: float | None) -> Verdict:
    """Compare nDCG@10 of three models on the same hold-out, all with fresh histories.

    Args:
        challenger: the new model's.
        popularity: of the same list for everybody.
        champion: of the champion's recipe; None when nothing is published yet.

    >>> judge_challenger(0.20, 0.10, None).passed, judge_challenger(0.10, 0.10, None).passed
    (True, False)
    """
    floor = popularity * (1 + GAIN)
    rules = [(challenger > floor, f"nDCG@10 {challenger:.4f}, needs more than {floor:.4f} to beat popularity")]
    if champion is None:
        rules.append((True, "there is no champion to compare with"))
    else:
        least = champion * (1 - MARGIN)
        rules.append((challenger >= least, f"nDCG@10 {challenger:.4f}, needs {least:.4f} to stand beside the champion"))
    return Verdict(
        all(held for held, _ in rules), tuple(f"{'passed' if held else 'failed'}: {text}" for held, text in rules)
    )
