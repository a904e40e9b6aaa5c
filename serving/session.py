"""A list for a history that comes with the request: nothing of it is stored or logged."""

from collections.abc import Collection, Mapping
from datetime import datetime

from infra.http import Problem
from ingest.events import now
from serving.catalogue import Catalogue
from serving.fallback import Tier
from serving.messages import Session, SessionAct
from training.bundle import History, Interaction, add_to_history, milliseconds

UNNAMED_WEIGHT = 1.0
"""What an act weighs whose type the caller leaves out."""


def recommend_for(
    session: Session, catalogue: Catalogue, weights: Mapping[str, float], types: Collection[str]
) -> tuple[Tier, bytes]:
    """The tier and the items (JSON, joined by commas) for a session.

    Args:
        session: its history.
        catalogue: the version that answers.
        weights: event type → weight, for the types that enter a history.
        types: all event types that there are.

    Raises:
        Problem: 422 `unknown_type` when an act is of no type that there is.
    """
    history = history_of(session, weights, types)
    bundle = catalogue.bundle
    if bundle is None:
        return Tier.STATIC, b""
    speaks = any(seen.weight > 0 and item_id in bundle.item_index for item_id, seen in history.items())
    wanted = min(session.k + len(catalogue.hidden), len(bundle.items.item_ids))
    indices, _ = bundle.recommend([history], wanted)
    return Tier.LIVE if speaks else Tier.POPULAR, catalogue.render_indices(indices[0].tolist(), session.k)


def history_of(session: Session, weights: Mapping[str, float], types: Collection[str]) -> History:
    """The session as a history; acts of types that enter none (impressions) are passed over.

    Raises:
        Problem: 422 `unknown_type` when an act is of no type that there is.
    """
    history: History = {}
    asked_at = now()
    for act in session.history:
        if act.type is not None and act.type not in types:
            raise Problem(422, "unknown_type", f"A type of event is one of: {', '.join(types)}.")
        weight = UNNAMED_WEIGHT if act.type is None else weights.get(act.type)
        if weight is not None:
            add_to_history(history, act.item_id, _interaction(act, asked_at, weight), len(session.history))
    return history


def _interaction(act: SessionAct, asked_at: datetime, weight: float) -> Interaction:
    return Interaction(milliseconds(act.occurred_at or asked_at), weight)
