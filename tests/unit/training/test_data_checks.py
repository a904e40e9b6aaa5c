"""Is the data fit to train on: each rule both ways, and that people who leave do not keep an old model alive."""

from collections.abc import Callable
from datetime import UTC, datetime

import polars as pl
import pytest

from infra.lake import EVENTS, ITEMS, TABLES, Lake, Span
from ingest.events import ConsentProjection, Domain
from training.bundle import Snapshot
from training.data_checks import (
    Known,
    check_attributes,
    check_consent,
    check_data,
    check_enough,
    check_future,
    check_people,
    check_permitted,
    check_repeated,
    check_schema,
    check_types,
    check_volume,
    check_watermark,
)
from training.interactions import Catalogue, IdMap, ReadCounts
from training.snapshot import read_lake
from training.verdict import Verdict, all_passed

Rows = Callable[..., pl.DataFrame]
Grant = Callable[..., None]
Land = Callable[[pl.DataFrame], None]
Check = Callable[..., dict[str, Verdict]]


@pytest.fixture
def check(lake: Lake, consents: ConsentProjection, domain: Domain) -> Check:
    """What the rules say of what is in the lake, by name."""

    def ask(champion: Known | None = None) -> dict[str, Verdict]:
        reading = read_lake(lake, consents, domain)
        return {one.name: one for one in check_data(reading, lake.drift(), domain, champion)}

    return ask


def known(*, events: int = 720, users: int = 60, receipts: int | None = 0, watermark: int = 720) -> Known:
    return Known(Snapshot(version=1, digest="", watermark={0: watermark}, events=events, users=users), receipts)


def failed(verdicts: dict[str, Verdict]) -> set[str]:
    return {name for name, one in verdicts.items() if not one.passed}


@pytest.mark.usefixtures("landed")
def test_good_data_passes_every_rule_with_and_without_a_champion(check: Check) -> None:
    assert all_passed(check().values())
    found = check(known())
    assert all_passed(found.values())
    assert len(found) == 11
    assert all(one.reason for one in found.values())


@pytest.mark.parametrize(("events", "people", "passed"), [(50, 5, True), (49, 5, False), (50, 4, False), (0, 0, False)])
def test_there_have_to_be_enough_events_of_enough_people(events: int, people: int, passed: bool) -> None:
    found = check_enough(events, people)
    assert found.passed is passed
    assert f"{events} events of {people} people" in found.reason
    assert ("at least 50 of 5: collect more" in found.reason) is not passed


@pytest.mark.parametrize(("people", "passed"), [(50, True), (49, False)])
def test_most_people_in_the_lake_have_to_allow_it(people: int, passed: bool) -> None:
    found = check_consent(people, 100)
    assert found.passed is passed
    assert f"{people} of the 100 people in the lake ({people} %)" in found.reason
    assert ("MARQUEE_SECRET" in found.reason) is not passed


def test_a_lake_without_people_lacks_no_consent() -> None:
    assert check_consent(0, 0).passed


def test_a_wrong_secret_is_noticed(lake: Lake, consents: ConsentProjection, domain: Domain, landed: object) -> None:
    del landed
    stranger = ConsentProjection(consents._store, "another secret")
    reading = read_lake(lake, stranger, domain)
    found = {one.name: one for one in check_data(reading, [], domain, known())}
    assert {"consent", "not_permitted", "enough"} <= failed(found)


@pytest.mark.parametrize(("left_out", "passed"), [(100, True), (101, False)])
def test_most_acts_have_to_be_permitted(left_out: int, passed: bool) -> None:
    found = check_permitted(100, left_out)
    assert found.passed is passed
    assert ("lander" in found.reason) is not passed


def test_people_who_withdrew_and_whose_rows_are_not_removed_yet_are_counted(
    check: Check, grant: Grant, landed: pl.DataFrame
) -> None:
    grant([f"u{person:03}" for person in range(31)], revoked=5)
    found = check()
    assert failed(found) == {"consent", "not_permitted"}
    assert found["not_permitted"].reason.startswith(f"{100 * 31 / 60:.3g} % of the acts")
    assert landed.height == 720


@pytest.mark.parametrize(("unknown", "passed"), [(1, True), (2, False)])
def test_event_types_have_to_be_named_by_the_domain(domain: Domain, unknown: int, passed: bool) -> None:
    found = check_types({"play": 150 - unknown, "watch": unknown}, domain)
    assert found.passed is passed
    assert "(watch)" in found.reason
    assert ("[events.types]" in found.reason) is not passed


def test_types_that_enter_no_history_are_known_too(domain: Domain) -> None:
    assert check_types({"impression": 100}, domain).passed
    assert check_types({}, domain).passed


def test_unknown_types_in_the_lake_are_met(check: Check, event_rows: Rows, land: Land, landed: pl.DataFrame) -> None:
    land(event_rows([("u001", "m1", minute, "watch") for minute in range(8)]))
    assert failed(check()) == {"event_types"}
    assert landed.height == 720


@pytest.mark.parametrize(
    ("attributes", "passed"),
    [
        ({"title": "Zero", "genres": ["Drama"], "year": 1999}, True),
        ({"titel": "Zero"}, False),
        ({"year": "1999"}, False),
        ({"genres": "Drama"}, False),
    ],
)
def test_items_have_to_have_the_attributes_that_the_domain_names(
    domain: Domain, attributes: dict[str, object], passed: bool
) -> None:
    ids = IdMap(tuple(f"m{number:02}" for number in range(50)))
    found = check_attributes(Catalogue(ids, (attributes,) + ({},) * 49), domain)
    assert found.passed is passed
    assert ("2 % of the items" in found.reason) is not passed
    assert ("[items.attributes]" in found.reason) is not passed


def test_strange_attributes_in_the_lake_are_met(check: Check, lake: Lake, landed: pl.DataFrame) -> None:
    rows = [(f"m0-{item:02}", '{"colour":"red"}', False, 0, item) for item in range(15)]
    lake.append(ITEMS, pl.DataFrame(rows, schema=dict(TABLES[ITEMS]), orient="row"), {0: Span(0, 15)})
    found = check()
    assert failed(found) == {"attributes"}
    assert "(colour)" in found["attributes"].reason
    assert landed.height == 720


@pytest.mark.parametrize(("ahead", "passed"), [(1, True), (2, False)])
def test_events_from_the_future_are_few(ahead: int, passed: bool) -> None:
    found = check_future(ahead, 1000)
    assert found.passed is passed
    assert ("clock" in found.reason) is not passed


def test_events_from_the_future_are_met_in_the_lake(check: Check, landed: pl.DataFrame, land: Land) -> None:
    late = pl.lit(datetime(2124, 1, 1, tzinfo=UTC)).dt.cast_time_unit("us").alias("occurred_at")
    land(landed.head(3).with_columns(late, pl.format("late-{}", "event_id").alias("event_id")))
    assert failed(check()) == {"future"}


@pytest.mark.parametrize(
    ("positions", "events", "passed"), [(0, 0, True), (1, 0, False), (0, 200, True), (0, 201, False)]
)
def test_rows_are_seldom_repeated_and_never_landed_twice(positions: int, events: int, passed: bool) -> None:
    found = check_repeated(ReadCounts(1000, positions, events))
    assert found.passed is passed
    assert ("landed twice" in found.reason) is (positions > 0)
    assert ("client" in found.reason) is (events > 200)


def test_repeated_rows_are_met_in_the_lake(check: Check, landed: pl.DataFrame, land: Land) -> None:
    land(landed.head(200))
    assert failed(check()) == {"repeated"}


def test_a_drifted_schema_is_told_with_what_to_do() -> None:
    assert check_schema([]).passed
    found = check_schema(["events has no column receipt"])
    assert not found.passed
    assert "events has no column receipt" in found.reason
    assert "infra/lake_tables.py" in found.reason


@pytest.mark.parametrize(("watermark", "passed"), [({0: 720, 1: 5}, True), ({0: 719, 1: 9}, False), ({1: 720}, False)])
def test_the_lake_has_at_least_what_the_champion_saw(watermark: dict[int, int], passed: bool) -> None:
    found = check_watermark(watermark, known(watermark=720))
    assert found.passed is passed
    assert ("restored" in found.reason) is not passed


@pytest.mark.parametrize(
    ("people", "receipts", "passed"),
    [
        pytest.param(60, 0, True, id="nobody is missing"),
        pytest.param(30, 0, True, id="half, as far as it goes"),
        pytest.param(29, 0, False, id="they vanished, and nobody said that they leave"),
        pytest.param(29, 31, True, id="they left"),
        pytest.param(0, 60, True, id="all left"),
        pytest.param(10, 30, False, id="some left, more vanished"),
    ],
)
def test_people_may_be_missing_as_far_as_receipts_tell_of_it(people: int, receipts: int, passed: bool) -> None:
    found = check_people(people, known(receipts=receipts))
    assert found.passed is passed
    assert ("missing from the lake" in found.reason) is not passed


@pytest.mark.parametrize(
    ("events", "people", "receipts", "passed"),
    [
        pytest.param(720, 60, 0, True, id="as before"),
        pytest.param(360, 60, 0, True, id="half, as far as it goes"),
        pytest.param(359, 60, 0, False, id="more than half is gone, and everybody is here"),
        pytest.param(240, 20, 40, True, id="people left, and took theirs along"),
        pytest.param(100, 20, 40, False, id="people left, and those who stayed lost theirs"),
        pytest.param(60, 60, 120, True, id="all left, and as many came"),
        pytest.param(300, 100, 40, False, id="newcomers do not hide what is gone"),
        pytest.param(760, 100, 40, True, id="newcomers have little yet"),
        pytest.param(240, 20, None, True, id="receipts were not noted: those who are missing left"),
        pytest.param(359, 60, None, False, id="receipts were not noted, and nobody is missing"),
    ],
)
def test_volume_is_compared_with_what_people_who_cannot_have_left_had(
    events: int, people: int, receipts: int | None, passed: bool
) -> None:
    found = check_volume(events, people, known(receipts=receipts))
    assert found.passed is passed
    assert ("it takes 50 %" in found.reason) is not passed


def test_where_most_people_left_and_the_lander_removed_them_a_new_model_is_trained(
    check: Check, lake: Lake, grant: Grant, landed: pl.DataFrame, consents: ConsentProjection
) -> None:
    """A champion trained on people who left must not stay because they did."""
    before, gone = consents.receipts(), {f"u{person:03}": 41 for person in range(40)}
    for number, person in enumerate(sorted(gone)):
        grant([person], revoked=before + 1 + number)
    lake.forget(EVENTS, gone)
    assert all_passed(check(known(receipts=consents.receipts() - before)).values())
    assert failed(check(known(receipts=0))) == {"people", "volume"}
    assert landed.height == 720
