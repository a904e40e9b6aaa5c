"""One reading of the lake: the events that may be used now, and the items."""

from dataclasses import dataclass
from datetime import timedelta

from infra.lake import EVENTS, ITEMS, Lake, LakeEmpty
from ingest.events import Consent, ConsentProjection, Domain, now
from training.bundle import Snapshot
from training.interactions import Catalogue, Column, Events, Interactions, histories, read_catalogue, read_events
from training.survey import Survey, survey

PEOPLE_AT_ONCE = 1000
COLUMNS = (
    Column.EVENT,
    Column.TYPE,
    Column.USER,
    Column.ITEM,
    Column.OCCURRED,
    Column.RECEIPT,
    Column.PARTITION,
    Column.OFFSET,
)


@dataclass(frozen=True)
class Reading:
    """What the lake held, as far as people allow its use.

    Attributes:
        version: of the lake's table of events.
        watermark: partition → offset up to which the log was in it.
        length: the newest items of a person that a history keeps.
        people_asked: how many people have acts in the lake, whether they allow the use or not.
        survey: what stood in the table.
    """

    events: Events
    catalogue: Catalogue
    version: int
    watermark: dict[int, int]
    length: int
    people_asked: int
    survey: Survey

    def histories(self) -> Interactions:
        """Everybody's history as of this reading."""
        return histories(self.events.rows, self.catalogue, self.length)

    def describe(self, interactions: Interactions) -> Snapshot:
        """What a model says it was trained on."""
        return Snapshot(
            version=self.version,
            digest=interactions.digest,
            watermark=self.watermark,
            events=self.events.rows.height,
            users=len(interactions.users),
        )


def read_lake(lake: Lake, consents: ConsentProjection, domain: Domain) -> Reading:
    """Read the newest events of the people who allow it, and the items.

    The lander removes the rows of those who withdrew; they are left out here too, for it may not have come to them yet.

    Raises:
        infra.lake.LakeEmpty: nothing has landed yet.
        infra.lake.LakeUnavailable: the lake cannot be read.
        ingest.events.ConsentUnavailable: nobody can tell what people allow.
    """
    found = lake.snapshot(EVENTS, COLUMNS)
    everybodys = read_events(found.rows.lazy(), domain.history_weights)
    events = everybodys.permitted(_consents(consents, everybodys.people))
    try:
        items = lake.snapshot(ITEMS).rows.lazy()
    except LakeEmpty:
        items = None
    return Reading(
        events,
        read_catalogue(items, events),
        found.version,
        dict(found.watermark),
        domain.history.length,
        len(everybodys.people),
        survey(found.rows, now() + timedelta(seconds=domain.events.future_tolerance_seconds)),
    )


def _consents(consents: ConsentProjection, people: list[str]) -> dict[str, Consent]:
    found: dict[str, Consent] = {}
    for start in range(0, len(people), PEOPLE_AT_ONCE):
        found.update(consents.read(people[start : start + PEOPLE_AT_ONCE]))
    return found
