"""Whatever happens on the way, every act is sent, counted once, and in the order of its viewer's time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from rich.progress import Progress

from workshop.audience import Tally, Visits, bars, browse, opts_in, send
from workshop.client import Client, Unreachable
from workshop.datasets import Dataset
from workshop.invented import generate


@pytest.fixture
def dataset() -> Dataset:
    """40 viewers, 5,000 acts: more than one batch a sender."""
    return generate(40, 600, 5000, seed=1)


@pytest.fixture
def run(connect: Any) -> Callable[..., Any]:
    """Runs a function of a client of the platform."""

    def act(do: Callable[[Client], Awaitable[Any]], **arguments: Any) -> Any:
        async def within() -> Any:
            async with connect(**arguments) as client:
                return await do(client)

        return asyncio.run(within())

    return act


def test_every_act_is_accepted_or_refused_for_want_of_consent(platform: Any, run: Any, dataset: Dataset) -> None:
    tally: Tally = run(lambda client: send(client, dataset))
    by_consent = dataset.acts["user_id"].is_in(sorted(tally.opted_in))
    assert tally.accepted == len(platform.events) == by_consent.sum()
    assert tally.refused_by_code == {"consent_missing": len(dataset.acts) - tally.accepted}
    assert tally.refused == tally.refused_by_code["consent_missing"] > 0


def test_those_who_opt_in_and_all_items_are_told_before(platform: Any, run: Any, dataset: Dataset) -> None:
    tally: Tally = run(lambda client: send(client, dataset))
    assert platform.consents == tally.opted_in == {user for user in dataset.users if opts_in(user, 0.8)}
    assert platform.items == {item.item_id: item.attributes for item in dataset.items}


def test_faults_on_the_way_change_nothing_in_the_count(platform: Any, run: Any, dataset: Dataset) -> None:
    expected: Tally = run(lambda client: send(client, dataset))
    first = dict(platform.events)
    platform.events.clear()
    platform.accepted_times.clear()
    platform.faults.extend(["lost", 503, "down", 429, "lost", 503, "lost"])
    tally: Tally = run(lambda client: send(client, dataset))
    assert not platform.faults
    assert tally == expected
    assert platform.events == first
    assert max(platform.accepted_times.values()) > 1, "no answer was lost after the events were taken"


def test_a_viewers_acts_arrive_in_the_order_of_time(platform: Any, run: Any, dataset: Dataset) -> None:
    platform.faults.extend([503, "lost", "down"])
    run(lambda client: send(client, dataset, share=1.0))
    newest: dict[str, str] = {}
    for event in (event for batch in platform.received for event in batch):
        if event["event_id"] in platform.events:
            platform.events.pop(event["event_id"])
            assert newest.get(event["user_id"], "") <= event["occurred_at"]
            newest[event["user_id"]] = event["occurred_at"]
    assert not platform.events


def test_an_act_has_the_same_event_id_whenever_it_is_sent_and_no_other_act_has_it(
    platform: Any, run: Any, dataset: Dataset
) -> None:
    run(lambda client: send(client, dataset, share=1.0))
    first = set(platform.events)
    half = Dataset(dataset.name, dataset.items, dataset.acts.tail(2500))
    run(lambda client: send(client, half, share=1.0))
    assert set(platform.events) == first
    assert len(first) == len(dataset.acts)


def test_a_platform_that_stays_away_is_one_plain_error(platform: Any, run: Any, dataset: Dataset) -> None:
    platform.faults.extend(["down"] * 1000)
    with pytest.raises(Unreachable):
        run(lambda client: send(client, dataset), patience=0.1)


def test_the_share_who_opt_in_is_about_as_asked_and_grows_with_the_share() -> None:
    users = [f"u{n}" for n in range(5000)]
    some, more = ({user for user in users if opts_in(user, share)} for share in (0.5, 0.8))
    assert 3900 < len(more) < 4100
    assert some < more
    assert {user for user in users if opts_in(user, 0.5, seed=2)} != some


def test_progress_is_shown_up_to_the_end_for_each_kind_of_thing(run: Any, dataset: Dataset) -> None:
    progress = Progress()
    tally: Tally = run(lambda client: send(client, dataset, progress=bars(progress)))
    done = {task.description: (task.completed, task.total) for task in progress.tasks}
    assert done == {
        "items": (600, 600),
        "viewers opting in": (len(tally.opted_in), len(tally.opted_in)),
        "events": (5000, 5000),
    }


def test_viewers_who_come_back_play_mostly_from_their_list(platform: Any, run: Any) -> None:
    platform.consents.update(["u1", "u2"])
    visits: Visits = run(lambda client: browse(client, ["u1", "u2"], ["m9"], events_per_second=2000, seconds=0.5, k=3))
    acts = list(platform.events.values())
    plays = [act for act in acts if act["type"] == "play"]
    assert visits.made == len(plays) > 20
    assert visits.tiers == {"personal": visits.made}
    assert visits.tally.accepted == len(acts) == visits.made * 4
    assert 0 < sum(act["item_id"] == "m9" for act in plays) < len(plays) / 2
    for act in acts:
        assert act.get("recommendation_id") == (None if act["item_id"] == "m9" else f"r-{act['user_id']}")


def test_a_viewer_with_an_empty_list_finds_something_else(platform: Any, run: Any) -> None:
    platform.consents.add("u1")
    platform.shown, platform.tier = [], "static"
    visits: Visits = run(lambda client: browse(client, ["u1"], ["m9"], events_per_second=100, seconds=0.2))
    assert visits.tiers == {"static": visits.made}
    assert {act["item_id"] for act in platform.events.values()} == {"m9"}


def test_no_two_visits_share_an_event_id(platform: Any, run: Any) -> None:
    platform.consents.add("u1")
    for _ in range(2):
        run(lambda client: browse(client, ["u1"], ["m9"], events_per_second=500, seconds=0.1))
    assert set(platform.accepted_times.values()) == {1}


def test_visits_without_consent_are_counted_as_refused(run: Any) -> None:
    visits: Visits = run(lambda client: browse(client, ["u1"], ["m9"], events_per_second=100, seconds=0.1, k=3))
    assert visits.tally.accepted == 0
    assert visits.tally.refused_by_code == {"consent_missing": visits.made * 4}
