"""The model card: all of what a version is, and no person in it."""

import re

import pytest

from infra.model_registry import ModelRegistry
from training.job import Job
from training.model_card import CARD


@pytest.mark.usefixtures("landed")
def test_a_card_says_what_a_version_is_where_it_came_from_how_good_it_is_and_what_it_changes(
    job: Job, registry: ModelRegistry
) -> None:
    job.run()
    job.run()
    first, card = (registry.runs.file(registry.version(one).run_id, CARD).decode() for one in (1, 2))
    tags, metrics = registry.version(2).tags, registry.version(2).metrics
    assert card.startswith("# films, version 2\n")
    for name in ("digest", "snapshot_digest", "code", "recipe"):
        assert tags[name] in card
    assert "720 events of 60 people who allow it, about 61 items" in card
    assert "log up to (0: 720)" in card
    for prefix in ("", "stale_", "popularity_", "champion_"):
        assert f"{metrics[f'{prefix}ndcg_at_10']:.4f}" in card
    assert card.count("| passed |") == 4 + 11
    assert "The best of " in card
    assert re.search(r"\| seconds_tune \| [\d.]+ \|", card)
    assert set(re.findall(r"!\[[^]]+\]\((\w+\.png)\)", card)) == {"activity.png", "popularity.png", "history.png"}
    assert "Nothing was served before." in first
    assert "over 60 people with the same histories: 0 % of the first tens change" in card
    assert not re.search(r"\bu0\d\d\b", first + card), "nobody is named"
    for table in re.findall(r"(?:^\|.*\n)+", card, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table
