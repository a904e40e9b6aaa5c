"""Back to an earlier version, and forward again."""

from collections.abc import Callable
from datetime import datetime
from typing import cast

import pytest

from infra.lake import Lake
from infra.model_registry import ModelRegistry, NoSuchVersion
from infra.online_store import OnlineStore
from ingest.events import ConsentProjection, Domain
from training import promotion
from training.bundle import bundle_key, list_key, load
from training.interactions import Interactions
from training.job import Job
from training.publish import Publisher, current
from training.rollback import (
    PROMOTED_AT,
    PROMOTED_BECAUSE,
    PROMOTED_BY,
    ByHand,
    NothingToRollBackTo,
    NotLetIn,
    promote,
    roll_back,
)
from training.run_record import FORCED
from training.snapshot import read_lake

Grant = Callable[..., None]


@pytest.fixture
def back(
    lake: Lake,
    consents: ConsentProjection,
    registry: ModelRegistry,
    publisher: Publisher,
    domain: Domain,
    store: OnlineStore,
) -> Callable[[int | None], int]:
    """Rolls back to a version."""

    def histories() -> Interactions:
        return read_lake(lake, consents, domain).histories()

    return lambda version: roll_back(store, registry, publisher, histories, version)


@pytest.mark.usefixtures("landed")
def test_back_to_the_version_before_and_forward_again(
    job: Job, back: Callable[[int | None], int], store: OnlineStore, registry: ModelRegistry
) -> None:
    job.run()
    job.run()
    assert back(None) == current(store) == registry.champion() == 1
    assert back(2) == current(store) == registry.champion() == 2


@pytest.mark.usefixtures("landed")
def test_a_version_that_left_the_store_is_published_again_with_todays_histories(
    job: Job, back: Callable[[int | None], int], store: OnlineStore, registry: ModelRegistry, grant: Grant
) -> None:
    for _ in range(3):
        job.run()
    assert not store.exists(bundle_key(1))
    grant(["u001"], revoked=5)
    assert back(1) == current(store) == registry.champion() == 1
    assert load(cast(bytes, store.get(bundle_key(1)))).digest() == load(registry.bundle(1)).digest()
    assert len(list(store.scan_iter(list_key(1, "*")))) == 59


@pytest.mark.usefixtures("landed")
def test_before_the_first_version_there_is_nothing_to_go_back_to(
    job: Job, back: Callable[[int | None], int], store: OnlineStore
) -> None:
    with pytest.raises(NothingToRollBackTo):
        back(None)
    job.run()
    with pytest.raises(NothingToRollBackTo):
        back(None)
    assert current(store) == 1


@pytest.fixture
def by_hand(
    lake: Lake, consents: ConsentProjection, registry: ModelRegistry, publisher: Publisher, domain: Domain
) -> Callable[[int, ByHand], None]:
    """Promotes a version."""

    def histories() -> Interactions:
        return read_lake(lake, consents, domain).histories()

    return lambda version, word: promote(registry, publisher, histories, version, word)


@pytest.mark.usefixtures("landed")
def test_a_refused_version_is_served_by_force_only_and_the_reason_is_kept(
    job: Job,
    back: Callable[[int | None], int],
    by_hand: Callable[[int, ByHand], None],
    store: OnlineStore,
    registry: ModelRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job.run()
    with monkeypatch.context() as patch:
        patch.setattr(promotion, "GAIN", 100.0)
        assert job.run().result == "refused"
    for refused in (lambda: by_hand(2, ByHand("ada", "", force=False)), lambda: back(2)):
        with pytest.raises(NotLetIn, match=r"failed popularity: .*marquee promote 2 --force --reason"):
            refused()
    assert current(store) == registry.champion() == 1

    by_hand(2, ByHand("ada", "popularity is broken on this hold-out", force=True))
    assert current(store) == registry.champion() == 2
    assert store.exists(list_key(2, "u001"))
    tags = registry.version(2).tags
    assert (tags[PROMOTED_BY], tags[PROMOTED_BECAUSE]) == ("ada", "popularity is broken on this hold-out")
    assert tags[FORCED] == tags[PROMOTED_BECAUSE]
    assert datetime.fromisoformat(tags[PROMOTED_AT]).tzinfo is not None
    assert tags["verdict"] == "refused", "what the gate said stays"
    assert back(None) == 1
    assert back(2) == 2, "who was let in once may be rolled forward to"


@pytest.mark.usefixtures("landed")
def test_a_version_that_passed_needs_no_force_and_is_not_said_to_be_forced(
    job: Job, by_hand: Callable[[int, ByHand], None], store: OnlineStore, registry: ModelRegistry
) -> None:
    job.run()
    job.run()
    by_hand(1, ByHand("ada", "", force=False))
    assert current(store) == registry.champion() == 1
    assert registry.version(1).tags[PROMOTED_BY] == "ada"
    assert FORCED not in registry.version(1).tags


def test_a_version_that_does_not_exist_is_not_promoted(by_hand: Callable[[int, ByHand], None]) -> None:
    with pytest.raises(NoSuchVersion):
        by_hand(7, ByHand("ada", "why not", force=True))
