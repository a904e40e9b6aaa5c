"""Another version, by an operator's word: back to an earlier one, or forward to one that the gate refused."""

import getpass
import os
from collections.abc import Callable
from typing import NamedTuple

from infra.model_registry import PURGED, ModelRegistry, ModelVersion, check_there
from infra.online_store import OnlineStore
from ingest.events import now
from training.bundle import load
from training.interactions import Interactions
from training.publish import Publisher, current
from training.run_record import FORCED, was_let_in

PROMOTED_BY = "promoted_by"
PROMOTED_AT = "promoted_at"
PROMOTED_BECAUSE = "promoted_because"
"""Tags of a version that was promoted by hand: who, when, and why where a reason was given."""


class NothingToRollBackTo(Exception):
    """There is no earlier version that was ever served; `marquee models` lists the versions."""


class NotLetIn(Exception):
    """The gate refused the version; the message has its reasons, and how to promote it all the same."""


class ByHand(NamedTuple):
    """An operator's word.

    Attributes:
        who: says so.
        why: they do; may be empty where the version passed the gate.
        force: also where the gate refused it.
    """

    who: str
    why: str
    force: bool


def who_types() -> str:
    """The name of who types, as the system knows it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A container may run under a number that has no name.
        return str(os.getuid())


def roll_back(
    store: OnlineStore,
    registry: ModelRegistry,
    publisher: Publisher,
    histories: Callable[[], Interactions],
    version: int | None,
) -> int:
    """Serve another version and make it the champion.

    Args:
        store: the online store.
        registry: where the versions are kept.
        publisher: where they are served from.
        histories: today's; asked for only when the version has to be published again.
        version: the one to serve; None: the newest below the current one that passed the gate.

    Returns:
        The version that is served now.

    Raises:
        NothingToRollBackTo: see there.
        NotLetIn: the version never passed, and was never promoted by force.
        infra.model_registry.NoSuchVersion: the registry does not know the version.
        infra.model_registry.VersionPurged: it was trained on events of people who were erased since.
    """
    target = _previous(registry, current(store)) if version is None else version
    found = registry.version(target)
    check_there(found)
    _let_in(found)
    _serve(registry, publisher, histories, target)
    return target


def promote(
    registry: ModelRegistry,
    publisher: Publisher,
    histories: Callable[[], Interactions],
    version: int,
    by_hand: ByHand,
) -> None:
    """Serve a version and make it the champion, and write down who said so.

    Args:
        registry: where the versions are kept.
        publisher: where they are served from.
        histories: today's; asked for only when the version has to be published again.
        version: the one to serve.
        by_hand: who says so.

    Raises:
        NotLetIn: see there.
        infra.model_registry.NoSuchVersion: the registry does not know the version.
        infra.model_registry.VersionPurged: as `roll_back`; there is no forcing it.
    """
    found = registry.version(version)
    check_there(found)
    if not by_hand.force:
        _let_in(found)
    _serve(registry, publisher, histories, version)
    tags = {PROMOTED_BY: by_hand.who, PROMOTED_AT: now().isoformat(), PROMOTED_BECAUSE: by_hand.why}
    registry.tag(version, tags if was_let_in(found.tags) else {**tags, FORCED: by_hand.why})


def _serve(registry: ModelRegistry, publisher: Publisher, histories: Callable[[], Interactions], version: int) -> None:
    if not publisher.serve_again(version):
        publisher.publish(version, load(registry.bundle(version)), histories())
    registry.promote(version)


def _let_in(found: ModelVersion) -> None:
    if not was_let_in(found.tags):
        raise NotLetIn(
            f"the gate refused version {found.version} ({found.tags.get('reasons', 'no reason is noted')}); "
            f"to serve it all the same: marquee promote {found.version} --force --reason WHY"
        )


def _previous(registry: ModelRegistry, served: int | None) -> int:
    passed = [one.version for one in registry.versions() if was_let_in(one.tags) and PURGED not in one.tags]
    earlier = [version for version in passed if served is not None and version < served]
    if not earlier:
        raise NothingToRollBackTo(
            "there is no earlier version that was published and is not purged: `marquee models` lists them all"
        )
    return max(earlier)
