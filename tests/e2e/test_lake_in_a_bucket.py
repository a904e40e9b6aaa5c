"""The platform's collecting half with its lake in a bucket: what came in has landed, and who is forgotten is gone."""

from pathlib import Path
from uuid import uuid4

import obstore
import pytest
from obstore.store import S3Store

from bench.own_platform import ROOT, SECRET, OwnPlatform, wait_until
from infra.lake import EVENTS, Lake
from ingest.events import ConsentProjection, now, read_domain
from training.snapshot import read_lake

pytestmark = [pytest.mark.e2e]

CANARY, BYSTANDER = "canary-of-the-bucket", "bystander"


def act(person: str, number: int) -> dict[str, str]:
    event = {"event_id": uuid4().hex, "type": "play", "user_id": person, "item_id": f"m{number}"}
    return {**event, "occurred_at": now().isoformat()}


def test_events_land_in_a_bucket_and_an_erasure_leaves_nothing_there(bucket: str) -> None:
    address = f"{bucket}/marquee"
    store = S3Store(bucket.removeprefix("s3://"))
    with OwnPlatform(("ingest", "land"), proxied=False, settings={"LAKE": address}) as platform:
        for person in (CANARY, BYSTANDER):
            assert (
                platform.call("ingest", "PUT", f"/v1/users/{person}/consent", {"purposes": ["personalization"]})[0]
                == 200
            )
        events = [act(person, number) for number in range(20) for person in (CANARY, BYSTANDER)]
        assert platform.call("ingest", "POST", "/v1/events", {"events": events})[0] == 202
        lake = Lake(address)
        wait_until(lambda: lake.count(EVENTS) == len(events), "everything has landed", 60)
        reading = read_lake(lake, ConsentProjection(platform.store, SECRET), read_domain(Path(ROOT / "domain.toml")))
        assert reading.acts == len(events)
        assert objects_with(store, CANARY.encode())
        status, asked = platform.call("ingest", "DELETE", f"/v1/users/{CANARY}")
        assert status == 202

        def landers_step() -> bool:
            state = platform.call("ingest", "GET", f"/v1/erasures/{asked['erasure_id']}")[1]
            return any(step["stage"] == "lake" for step in state["steps"])

        wait_until(landers_step, "the lake has signed", 60)
        assert objects_with(store, CANARY.encode()) == []
        assert lake.count(EVENTS) == len(events) // 2


def objects_with(store: S3Store, needle: bytes) -> list[str]:
    """Objects of the bucket that hold these bytes, or are called so."""
    names = [str(found["path"]) for found in obstore.list(store).collect()]
    return [name for name in names if needle in bytes(obstore.get(store, name).bytes()) or needle.decode() in name]
