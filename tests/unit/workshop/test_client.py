"""Calls are made again while there is hope, with the same ids, and end in an error that says which call and why."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ingest.events import Event, Item, now
from workshop.client import Client, PlatformError, Refused, Unreachable

Call = Callable[[Client], Coroutine[Any, Any, Any]]


@pytest.fixture
def call(connect: Any) -> Callable[..., Any]:
    """Runs one call of a client of the platform."""

    def run(do: Call, **arguments: Any) -> Any:
        async def within() -> Any:
            async with connect(**arguments) as client:
                return await do(client)

        return asyncio.run(within())

    return run


def event(name: str, user: str = "u1") -> Event:
    """A play."""
    return Event(event_id=name, type="play", user_id=user, item_id="m1", occurred_at=now())


def test_every_event_gets_its_verdict(platform: Any, call: Any) -> None:
    platform.consents.add("u1")
    batch = [event("1"), event("2", user="u2")]
    assert call(lambda client: client.send_events(batch)) == {"1": "accepted", "2": "consent_missing"}
    assert platform.events["1"]["occurred_at"].endswith("Z")


def test_a_batch_of_which_nothing_is_accepted_has_verdicts_too(call: Any) -> None:
    assert call(lambda client: client.send_events([event("1")])) == {"1": "consent_missing"}


@pytest.mark.parametrize("fault", [429, 503, 502, "lost", "down"])
def test_after_a_fault_the_same_bytes_are_sent_again(platform: Any, call: Any, fault: int | str) -> None:
    platform.consents.add("u1")
    platform.faults.extend([fault, fault])
    assert call(lambda client: client.send_events([event("1")])) == {"1": "accepted"}
    assert platform.received == [platform.received[0]] * (1 if fault == "down" else 3)
    assert set(platform.events) == {"1"}


def test_when_patience_is_over_the_error_says_which_call_and_what_it_last_got(platform: Any, call: Any) -> None:
    platform.faults.extend(["down"] * 100)
    with pytest.raises(Unreachable, match=r"POST /v1/events: no answer within 0 s, it last gave ConnectError"):
        call(lambda client: client.send_events([event("1")]), patience=0.2)


def test_a_pause_that_is_asked_for_is_kept(platform: Any, call: Any) -> None:
    """A client that may not wait that long gives up instead of coming back early."""
    platform.faults.extend([503] * 100)
    platform.retry_after = "3"
    with pytest.raises(Unreachable, match="answered 503"):
        call(lambda client: client.send_events([event("1")]), patience=2)
    assert len(platform.received) == 1


def test_what_is_refused_for_good_is_not_sent_again(platform: Any, call: Any) -> None:
    with pytest.raises(Refused, match=r"401 unauthorized: Send the platform's key") as refused:
        call(lambda client: client.send_events([event("1")]), api_key="wrong")
    assert (refused.value.status, refused.value.code) == (401, "unauthorized")
    assert platform.received == []


def test_errors_do_not_name_people(platform: Any, call: Any) -> None:
    platform.app.router.routes.clear()
    with pytest.raises(Refused) as refused:
        call(lambda client: client.recommendations("somebody"))
    assert "somebody" not in str(refused.value)


def test_an_unjudged_event_is_an_error(platform: Any, call: Any) -> None:
    platform.consents.add("u1")
    platform.faults.append(200)
    with pytest.raises(PlatformError, match="no verdict on 1 of 1"):
        call(lambda client: client.send_events([event("1")]))


def test_an_empty_batch_is_not_sent(platform: Any, call: Any) -> None:
    assert call(lambda client: client.send_events([])) == {}
    assert platform.received == []


def test_more_than_a_batch_may_hold_is_not_sent(call: Any) -> None:
    with pytest.raises(ValueError, match="at most 500"):
        call(lambda client: client.send_events([event(str(n)) for n in range(501)]))


def test_items_are_told_with_their_attributes(platform: Any, call: Any) -> None:
    call(lambda client: client.put_items([Item(item_id="m1", attributes={"title": "Alien"})]))
    assert platform.items == {"m1": {"title": "Alien"}}


@pytest.mark.parametrize("others", [[], [Item(item_id="m1", attributes={"title": "Alien"})]])
def test_an_item_that_is_refused_is_an_error(call: Any, others: list[Item]) -> None:
    with pytest.raises(Refused):
        call(lambda client: client.put_items([*others, Item(item_id="m2")]))


def test_consent_is_given_and_withdrawn_whatever_the_id_looks_like(platform: Any, call: Any) -> None:
    call(lambda client: client.put_consent("a user?"))
    assert platform.consents == {"a user?"}
    call(lambda client: client.withdraw("a user?"))
    assert platform.consents == set()


def test_a_list_comes_as_the_platform_gives_it(call: Any) -> None:
    answer = call(lambda client: client.recommendations("u1", k=2))
    assert answer["recommendation_id"] == "r-u1"
    assert [item["item_id"] for item in answer["items"]] == ["m1", "m2"]


def test_an_erasure_is_asked_for_and_followed(call: Any) -> None:
    assert call(lambda client: client.erase("u1")) == "e-u1"
    assert call(lambda client: client.erasure("e-u1"))["completed_at"]
    with pytest.raises(Refused, match="404"):
        call(lambda client: client.erasure("e-u2"))
