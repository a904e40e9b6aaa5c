"""What one rule says of the data or of a challenger."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Verdict(NamedTuple):
    """One rule's answer.

    Attributes:
        name: of the rule.
        passed: whether it holds.
        reason: the figures it looked at; where it does not hold, also what to do.
    """

    name: str
    passed: bool
    reason: str

    def __str__(self) -> str:
        return f"{self.word} {self.name}: {self.reason}"

    @property
    def word(self) -> str:
        """`passed` or `failed`."""
        return "passed" if self.passed else "failed"


def all_passed(verdicts: Iterable[Verdict]) -> bool:
    """Whether every rule holds."""
    return all(verdict.passed for verdict in verdicts)


def as_tags(prefix: str, verdicts: Iterable[Verdict]) -> dict[str, str]:
    """The verdicts as they are kept in the registry, each under its own name.

    >>> as_tags("gate", [Verdict("coverage", True, "12 % of the catalogue")])
    {'gate.coverage': 'passed: 12 % of the catalogue'}
    """
    return {f"{prefix}.{verdict.name}": f"{verdict.word}: {verdict.reason}" for verdict in verdicts}


def from_tags(prefix: str, tags: Mapping[str, str]) -> list[Verdict]:
    """The verdicts that `as_tags` wrote, by name.

    >>> from_tags("gate", {"gate.coverage": "passed: 12 % of the catalogue", "recipe": "ease"})
    [Verdict(name='coverage', passed=True, reason='12 % of the catalogue')]
    """
    found = []
    for name in sorted(tags):
        if name.startswith(f"{prefix}."):
            word, _, reason = tags[name].partition(": ")
            found.append(Verdict(name.removeprefix(f"{prefix}."), word == "passed", reason))
    return found


def percent(share: float, sign: str = "") -> str:
    """A share as people read it, to three figures.

    Args:
        share: 1 is all.
        sign: "+" shows the sign of what is above zero, too.

    >>> percent(0.1234), percent(-0.05, "+"), percent(1)
    ('12.3 %', '-5 %', '100 %')
    """
    return f"{100 * share:{sign}.3g} %"
