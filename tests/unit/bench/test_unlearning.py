"""A model retrained after an erasure is the model of those who stayed; what makes it remember is found."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import unlearning
from bench.unlearning import PEOPLE, RECIPES, unlearn
from infra.online_store import OnlineStore
from ingest.events import PERSONALIZATION, Consent, ConsentProjection
from training.algorithms import als_rounds

NAMES = [recipe.algorithm for recipe in RECIPES]


def test_of_twenty_people_none_is_left_in_the_models(store: OnlineStore, tmp_path: Path) -> None:
    found = unlearn(store, tmp_path, PEOPLE)
    assert found.people == 20
    assert found.same == dict.fromkeys(NAMES, 20)
    assert found.different == dict.fromkeys(NAMES, 20), (
        "the comparison can tell a model with the person from one without"
    )


def test_a_fit_that_starts_from_the_last_model_is_found(
    store: OnlineStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[tuple[int, int], Any] = {}
    first = als_rounds._first

    def warm(random: np.random.Generator, count: int, factors: int) -> Any:
        return kept.setdefault((count, factors), first(random, count, factors))

    monkeypatch.setattr(als_rounds, "_first", warm)
    found = unlearn(store, tmp_path, 2)
    assert found.same == {"ease": 2, "als": 0}


def test_rows_that_are_read_though_the_person_was_erased_are_found(
    store: OnlineStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two walls have to fall: the lander deletes nothing, and the reading asks nobody."""
    monkeypatch.setattr(unlearning.Lake, "forget", lambda self, table, people: 0)
    found = unlearn(store, tmp_path / "one", 2)
    assert found.same == dict.fromkeys(NAMES, 2)
    allowed = Consent(1, 0, frozenset({PERSONALIZATION}))
    monkeypatch.setattr(ConsentProjection, "read", lambda self, people: dict.fromkeys(people, allowed))
    found = unlearn(store, tmp_path / "other", 2)
    assert found.same == dict.fromkeys(NAMES, 0)
