"""A list for a history that comes with the request: nothing of it is stored or logged."""

from datetime import datetime

from infra.http import Problem
from ingest.events import Domain, ItemRules, now
from serving.catalogue import Catalogue
from serving.explanations import explain, render_explained
from serving.fallback import Tier
from serving.filters import Wanted, filters_of
from serving.messages import Session, SessionAct
from training.bundle import Bundle, History, Interaction, add_to_history, milliseconds

UNNAMED_WEIGHT = 1.0
"""What an act weighs whose type the caller leaves out."""


def recommend_for(session: Session, catalogue: Catalogue, domain: Domain) -> tuple[Tier, bytes]:
    """The tier and the items (JSON, joined by commas) for a session.

    Args:
        session: its history, and what is wanted.
        catalogue: the version that answers.
        domain: what acts weigh, and which filters there are.

    Raises:
        Problem: 422 `unknown_type` when an act is of no type that there is; `invalid_request` when a filter is none.
    """
    history, wanted = history_of(session, domain), _wanted(session, domain.items)
    tier, indices = _ranked(catalogue, history, wanted)
    if not session.explain:
        return tier, catalogue.join(indices)
    return tier, render_explained(catalogue, indices, explain(catalogue, history, tier, indices), domain.items)


def history_of(session: Session, domain: Domain) -> History:
    """The session as a history; acts of types that enter none (impressions) are passed over.

    Raises:
        Problem: 422 `unknown_type` when an act is of no type that there is.
    """
    history: History = {}
    asked_at, types = now(), domain.events.types
    for act in session.history:
        if act.type is not None and act.type not in types:
            raise Problem(422, "unknown_type", f"A type of event is one of: {', '.join(types)}.")
        if act.type is None or types[act.type].history:
            weight = UNNAMED_WEIGHT if act.type is None else types[act.type].weight
            add_to_history(history, act.item_id, _interaction(act, asked_at, weight), len(session.history))
    return history


def _interaction(act: SessionAct, asked_at: datetime, weight: float) -> Interaction:
    return Interaction(milliseconds(act.occurred_at or asked_at), weight)


def _wanted(session: Session, rules: ItemRules) -> Wanted:
    for name, value in session.filters.items():
        number = name in rules.filters and rules.filters[name].keep != "is"
        if number is isinstance(value, str):
            raise Problem(422, "invalid_request", f"{name} is a {'number' if number else 'text'}.")
    given = {name: str(value) for name, value in session.filters.items()}
    return Wanted(session.k, filters_of(given, rules), frozenset(session.exclude))


def _ranked(catalogue: Catalogue, history: History, wanted: Wanted) -> tuple[Tier, list[int]]:
    bundle = catalogue.bundle
    unseen = wanted._replace(exclude=wanted.exclude | history.keys())
    if bundle is None:
        return Tier.STATIC, catalogue.popular_for(unseen)
    if not any(seen.weight > 0 and item_id in bundle.item_index for item_id, seen in history.items()):
        return Tier.POPULAR, catalogue.pick(
            dict.fromkeys([*catalogue.popular_for(unseen), *bundle.popular.tolist()]), unseen
        )
    indices, _ = bundle.recommend([history], _length(bundle, catalogue, wanted))
    return Tier.LIVE, catalogue.pick(indices[0].tolist(), wanted)


def _length(bundle: Bundle, catalogue: Catalogue, wanted: Wanted) -> int:
    """Items to ask the model for, so that `k` are left of them."""
    items = len(bundle.items.item_ids)
    return items if wanted.filters else min(items, wanted.k + len(catalogue.hidden) + len(wanted.exclude))
