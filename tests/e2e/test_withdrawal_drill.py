"""Who withdraws is gone from Redis, and no publish brings them back: the drill in miniature, and what it catches."""

from collections.abc import Mapping, Sequence

import pytest

from bench import withdrawal_drill
from bench.service_levels import WITHDRAWAL, broken
from ingest.events import PERSONALIZATION, Consent, ConsentProjection

pytestmark = [pytest.mark.e2e]

SMALL = withdrawal_drill.Size(users=24, withdraw=8, rate=50)


class Deaf(ConsentProjection):
    """Hears no withdrawal."""

    def read(self, user_ids: Sequence[str]) -> Mapping[str, Consent]:
        return dict.fromkeys(user_ids, Consent(2**62, 0, frozenset({PERSONALIZATION})))


def test_lists_go_and_stay_gone() -> None:
    report = withdrawal_drill.withdrawal_drill(SMALL)
    # How long it takes is held by `make drill`, on a machine that does nothing else.
    assert set(broken(WITHDRAWAL, report.figures)) <= {"gone_worst_ms"}, report
    assert report.figures["gone_worst_ms"] < withdrawal_drill.LONGEST_SECONDS * 1000


def test_a_publish_that_does_not_ask_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(withdrawal_drill, "ConsentProjection", Deaf)
    report = withdrawal_drill.withdrawal_drill(SMALL)
    assert report.figures["brought_back"] == SMALL.withdraw
