"""Back to an earlier version, or forward again: at once where its keys are still in the online store."""

from collections.abc import Callable

from infra.model_registry import ModelRegistry
from infra.online_store import OnlineStore
from training.bundle import load
from training.interactions import Interactions
from training.job import PASSED
from training.publish import Publisher, current


class NothingToRollBackTo(Exception):
    """There is no earlier version that was ever served; `marquee status` lists the versions."""


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
        infra.model_registry.NoSuchVersion: the registry does not know the version.
    """
    target = _previous(registry, current(store)) if version is None else version
    if not publisher.serve_again(target):
        publisher.publish(target, load(registry.bundle(target)), histories())
    registry.promote(target)
    return target


def _previous(registry: ModelRegistry, served: int | None) -> int:
    passed = [one.version for one in registry.versions() if one.tags.get("verdict") == PASSED]
    earlier = [version for version in passed if served is not None and version < served]
    if not earlier:
        raise NothingToRollBackTo("there is no earlier version that was published: `marquee status` lists them all")
    return max(earlier)
