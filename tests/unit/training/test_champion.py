"""The version that is served, as a retraining sees it."""

import pytest

from infra.model_registry import ModelRegistry
from training.champion import read_champion
from training.job import Job
from training.run_record import RECEIPTS


@pytest.mark.usefixtures("landed")
def test_the_champion_is_read_with_its_recipe_and_what_it_knew(job: Job, registry: ModelRegistry) -> None:
    assert read_champion(registry) is None
    job.run()
    champion = read_champion(registry)
    assert champion is not None
    assert champion.recipe == champion.recipe.whole()
    known = champion.known(receipts=int(registry.version(1).tags[RECEIPTS]) + 7)
    assert (known.snapshot.users, known.snapshot.events, known.receipts) == (60, 720, 7)
    with registry.runs.run("training") as run_id:
        registry.promote(registry.register(run_id, registry.bundle(1), {}))
    unnoted = read_champion(registry)
    assert unnoted is not None
    assert unnoted.known(receipts=9).receipts is None


@pytest.mark.usefixtures("landed")
def test_a_champion_that_this_code_cannot_read_is_none_and_stops_no_retraining(
    job: Job, registry: ModelRegistry
) -> None:
    with registry.runs.run("training") as run_id:
        registry.promote(registry.register(run_id, b"of another format", {}))
    assert read_champion(registry) is None
    outcome = job.run()
    assert outcome.result == "published"
    assert "passed champion: this code cannot read the champion's bundle" in outcome.reasons
