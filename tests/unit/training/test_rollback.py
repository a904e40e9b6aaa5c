"""Back to an earlier version, and forward again."""

from collections.abc import Callable
from typing import cast

import pytest

from infra.lake import Lake
from infra.model_registry import ModelRegistry
from infra.online_store import OnlineStore
from ingest.events import ConsentProjection, Domain
from training.bundle import bundle_key, list_key, load
from training.interactions import Interactions
from training.job import Job
from training.publish import Publisher, current
from training.rollback import NothingToRollBackTo, roll_back
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
