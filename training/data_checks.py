"""Is this data fit to train on? Asked before anything is tuned; one rule that does not hold ends the run.

People may leave and take their events with them, and a model of people who left must not stay because they did. So the
champion's data is not compared as it was, but less what may have gone since: who withdraws or is erased writes a
receipt, who comes writes one too, and the number of receipts is known, though not whose they are.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ingest.events import Domain
from training.bundle import Snapshot
from training.interactions import Catalogue, ReadCounts
from training.snapshot import Reading
from training.verdict import Verdict, percent

FEWEST_PEOPLE = 5
FEWEST_EVENTS = 50
LEAST_CONSENT = 0.5
"""Share of the people in the lake who have to allow it: those who withdrew are removed within minutes."""
LEAST_VOLUME = 0.5
"""Share of the champion's data, fairly counted, that has to be there."""
MOST_UNKNOWN = 0.01
"""Share of rows of types, or of items with attributes, that domain.toml does not name."""
MOST_REPEATED = 0.2
"""Share of rows under an event_id that the person has used before: clients send again, but not so often."""
MOST_NOT_PERMITTED = 0.5
"""Share of the acts that are left out for want of consent."""
MOST_AHEAD = 0.001
"""Share of rows from the future: one of them moves nothing, many of them move the hold-out."""
KINDS: Mapping[str, type | tuple[type, ...]] = {"string": str, "strings": list, "integer": int, "number": (int, float)}


class Known(NamedTuple):
    """What the champion knew.

    Attributes:
        snapshot: that it was trained on.
        receipts: written since, of any kind; None where that was not noted.
    """

    snapshot: Snapshot
    receipts: int | None

    def may_have_left(self, people: int) -> float:
        """How many of the champion's people may have left at most, where there are so many people now.

        Who came wrote a receipt and who left wrote one; those who left, less those who came, are missing.

        >>> Known(Snapshot(version=1, digest="", watermark={}, events=900, users=100), receipts=60).may_have_left(80)
        40.0
        """
        missing = self.snapshot.users - people
        receipts = abs(missing) if self.receipts is None else self.receipts
        return min(float(self.snapshot.users), max(0.0, (receipts + missing) / 2))


class Checked(NamedTuple):
    """What was said of the data.

    Attributes:
        accepted: why somebody went on though a rule does not hold; None where nobody did.
    """

    verdicts: tuple[Verdict, ...]
    accepted: str | None


def check_data(reading: Reading, drift: Sequence[str], domain: Domain, champion: Known | None) -> tuple[Verdict, ...]:
    """All rules.

    Args:
        reading: what is to be trained on.
        drift: how the lake's tables differ from what this code writes, one phrase each.
        domain: which types and attributes there are.
        champion: to compare with; None when there is none.
    """
    return (
        check_enough(reading.acts, len(reading.interactions.users)),
        check_schema(drift),
        check_types(reading.counts.types, domain),
        check_attributes(reading.catalogue, domain),
        check_future(reading.counts.ahead, reading.counts.rows),
        check_repeated(reading.counts),
        check_consent(len(reading.interactions.users), reading.counts.people),
        check_permitted(reading.acts, reading.counts.not_permitted),
        check_watermark(reading.watermark, champion),
        check_people(len(reading.interactions.users), champion),
        check_volume(reading.acts, len(reading.interactions.users), champion),
    )


def check_schema(drift: Sequence[str]) -> Verdict:
    """The lake's tables have the columns that the lander writes."""
    if not drift:
        return Verdict("schema", True, "the lake's tables have the columns that this code writes")
    advice = "find out who else writes to them, or bring infra/lake_tables.py up to date"
    return Verdict("schema", False, f"{'; '.join(drift)}: {advice}")


def check_types(types: Mapping[str, int], domain: Domain) -> Verdict:
    """The lake holds types of events that the domain names."""
    unknown = {name: count for name, count in types.items() if name not in domain.events.types}
    share = sum(unknown.values()) / max(1, sum(types.values()))
    reason = f"{percent(share)} of the rows are of types that domain.toml does not name{_named(unknown)}"
    if share <= MOST_UNKNOWN:
        return Verdict("event_types", True, reason)
    return Verdict("event_types", False, f"{reason}: name them under [events.types]; history = false leaves them out")


def check_attributes(catalogue: Catalogue, domain: Domain) -> Verdict:
    """The items have attributes that the domain names, of the types it names."""
    unknown: dict[str, int] = {}
    strange = 0
    for attributes in catalogue.attributes:
        wrong = [name for name, value in attributes.items() if not _is_of(domain.items.attributes.get(name), value)]
        strange += bool(wrong)
        for name in wrong:
            unknown[name] = unknown.get(name, 0) + 1
    share = strange / max(1, len(catalogue.attributes))
    reason = f"{percent(share)} of the items have attributes other than domain.toml names them{_named(unknown)}"
    if share <= MOST_UNKNOWN:
        return Verdict("attributes", True, reason)
    return Verdict("attributes", False, f"{reason}: name them under [items.attributes], or send the items again")


def check_future(ahead: int, rows: int) -> Verdict:
    """Nothing has happened that cannot have happened yet."""
    share = ahead / max(1, rows)
    reason = f"{ahead} of {rows} rows are from the future"
    if share <= MOST_AHEAD:
        return Verdict("future", True, reason)
    return Verdict("future", False, f"{reason}: compare the clock of this machine with that of ingest")


def check_repeated(counts: ReadCounts) -> Verdict:
    """No record was landed twice, and clients use an event_id once, or nearly."""
    if counts.repeated_positions:
        reason = f"{counts.repeated_positions} of {counts.rows} rows were landed twice"
        return Verdict("repeated", False, f"{reason}: something but the lander wrote to the lake; land it anew")
    share = counts.repeated_events / max(1, counts.rows)
    reason = f"{percent(share)} of the rows repeat an event_id and are left out"
    if share <= MOST_REPEATED:
        return Verdict("repeated", True, reason)
    return Verdict("repeated", False, f"{reason}: a client that uses ids again loses events; see what makes its ids")


def check_consent(people: int, asked: int) -> Verdict:
    """Most people in the lake allow the use of their events."""
    share = people / asked if asked else 1.0
    reason = f"{people} of the {asked} people in the lake ({percent(share)}) allow it"
    if share >= LEAST_CONSENT:
        return Verdict("consent", True, reason)
    advice = "is MARQUEE_SECRET that of ingest, does MARQUEE_REDIS hold its projection, and is the lander running?"
    return Verdict("consent", False, f"{reason}, it takes {percent(LEAST_CONSENT)}: {advice}")


def check_permitted(events: int, not_permitted: int) -> Verdict:
    """Most acts in the lake may be used."""
    share = not_permitted / max(1, events + not_permitted)
    reason = f"{percent(share)} of the acts are left out for want of consent"
    if share <= MOST_NOT_PERMITTED:
        return Verdict("not_permitted", True, reason)
    return Verdict("not_permitted", False, f"{reason}: the lander removes such rows within minutes; is it running?")


def check_enough(events: int, people: int) -> Verdict:
    """There is something to learn from."""
    reason = f"the lake has {events} events of {people} people that may be used for a model"
    if events >= FEWEST_EVENTS and people >= FEWEST_PEOPLE:
        return Verdict("enough", True, reason)
    least = f"it takes at least {FEWEST_EVENTS} of {FEWEST_PEOPLE}"
    return Verdict("enough", False, f"{reason}; {least}: collect more before training")


def check_watermark(watermark: Mapping[int, int], champion: Known | None) -> Verdict:
    """The lake has at least as much of the log as the champion saw."""
    if champion is None:
        return _nothing_to_compare_with("watermark")
    seen = champion.snapshot.watermark
    now = {partition: watermark.get(partition, 0) for partition in seen}
    behind = [f"{part} ({now[part]}, was {seen[part]})" for part in sorted(seen) if now[part] < seen[part]]
    if not behind:
        return Verdict("watermark", True, "every partition has at least what the champion saw of it")
    advice = "was the lake restored from an older copy, or does MARQUEE_LAKE name another one?"
    return Verdict("watermark", False, f"partitions behind what the champion saw: {', '.join(behind)}: {advice}")


def check_people(people: int, champion: Known | None) -> Verdict:
    """Nobody is missing but those who may have left."""
    if champion is None or champion.receipts is None:
        return _nothing_to_compare_with("people")
    before = champion.snapshot.users
    least = LEAST_VOLUME * max(0, before - champion.receipts)
    reason = f"{people} people, the champion had {before}; {champion.receipts} receipts have been written since"
    if people >= least:
        return Verdict("people", True, reason)
    return Verdict("people", False, f"{reason}, so {least:.0f} have to be left: are days missing from the lake?")


def check_volume(events: int, people: int, champion: Known | None) -> Verdict:
    """Those of the champion's people who cannot have left still have their events."""
    if champion is None:
        return _nothing_to_compare_with("volume")
    before, left = champion.snapshot, champion.may_have_left(people)
    expected = before.events * (1 - left / max(1, before.users))
    reason = f"{events} events, the champion had {before.events}, {expected:.0f} of them of people who cannot have left"
    if events >= LEAST_VOLUME * expected:
        return Verdict("volume", True, reason)
    advice = "are days missing from the lake, or does domain.toml count fewer types than it did?"
    return Verdict("volume", False, f"{reason}, it takes {percent(LEAST_VOLUME)} of that: {advice}")


def _nothing_to_compare_with(name: str) -> Verdict:
    return Verdict(name, True, "there is no champion to compare with")


def _is_of(kind: str | None, value: Any) -> bool:
    return kind is not None and isinstance(value, KINDS[kind])


def _named(counts: Mapping[str, int]) -> str:
    """The five most frequent, in brackets.

    >>> _named({"watch": 3, "skip": 5}), _named({})
    (' (skip, watch)', '')
    """
    most = sorted(counts, key=lambda name: (-counts[name], name))[:5]
    return f" ({', '.join(most)})" if most else ""
