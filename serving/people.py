"""What the online store holds of a person: lists and history, in one read."""

from typing import NamedTuple

from serving.fallback import StoredLists
from serving.stored_lists import ReadsLists
from training.bundle import History, decode_history, history_key, list_key, live_key


class Person(NamedTuple):
    """What is known of somebody.

    Attributes:
        stored: their lists; None when the online store does not answer.
        history: empty where there is none, or none that can be read.
        corrupt: how many histories could not be read: 0 or 1.
    """

    stored: StoredLists | None
    history: History
    corrupt: int


async def read_person(lists: ReadsLists, version: int, user_id: str) -> Person:
    """A person's lists of one version and their history. It fails soft, as lists do.

    Args:
        lists: reads the online store, while it answers.
        version: of the lists.
        user_id: the person.
    """
    values = await lists.values([live_key(version, user_id), list_key(version, user_id), history_key(user_id)])
    if values is None:
        return Person(None, {}, 0)
    live, personal, packed = values
    stored = StoredLists(live, personal)
    try:
        history = decode_history(packed)
        _check(history)
    except (TypeError, ValueError):
        return Person(stored, {}, 1)
    return Person(stored, history, 0)


def _check(history: History) -> None:
    for item_id, (at_ms, weight) in history.items():
        if not (isinstance(item_id, str) and isinstance(at_ms, int) and isinstance(weight, float | int)):
            raise TypeError("not a history")
