"""A person gets what is stored of that person: all of it, as it is stored, and nothing of anybody else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from infra.lake import EVENTS, LakeUnavailable
from infra.online_store import connect
from ingest.events import read_domain
from ingest.export import HISTORY_KEY, Exports
from training.bundle import Interaction, encode_history, history_key
from training.snapshot import read_lake
from workshop.datasets import DatasetError, read_export

MakeEvent = Callable[..., dict[str, Any]]
DATA = "/v1/users/u1/data"


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson"), answer.text
    return [orjson.loads(line) for line in answer.content.splitlines()]


def of_kind(rows: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "kind"} for row in rows if row["kind"] == kind]


def test_all_that_is_stored_is_told_and_nothing_of_anybody_else(
    client: httpx.Client, ingest: Any, event: MakeEvent
) -> None:
    ingest.allow("u1")
    ingest.allow("u1x")
    sent = [event(event_id=f"e{n}", recommendation_id="r1" if n % 2 else None) for n in range(5)]
    client.post("/v1/events", json={"events": [*sent, event(user_id="u1x", event_id="canary"), sent[0]]})
    ingest.log.append([(b"u1", b"\xffno record"), (b"u1x", b"canary")])
    ingest.store.set(history_key("u1"), encode_history({"m1": Interaction(1000, 0.5)}))
    ingest.store.set(history_key("u1x"), encode_history({"canary": Interaction(1000, 0.5)}))
    ingest.land()
    answer = client.get(DATA)
    rows = lines(answer)
    assert "canary" not in answer.text
    assert [row["kind"] for row in rows] == ["person", "receipt", *["event"] * 6, "dead_letter", "history"]
    assert rows[0]["user_id"] == "u1"
    assert of_kind(rows, "receipt") == client.get("/v1/users/u1/consent").json()["receipts"]
    stored = ingest.lake.snapshot(EVENTS).rows.filter(user_id="u1").drop("day").sort("partition", "offset")
    assert of_kind(rows, "event") == orjson.loads(orjson.dumps(stored.to_dicts(), option=orjson.OPT_UTC_Z))
    assert of_kind(rows, "dead_letter")[0]["value"] == "\ufffdno record"
    assert of_kind(rows, "history") == [{"at_ms": 1000, "weight": 0.5, "item_id": "m1"}]


def test_of_a_stranger_nothing_is_stored(client: httpx.Client, ingest: Any, event: MakeEvent) -> None:
    answer = client.get("/v1/users/stranger/data")
    assert (answer.status_code, answer.json()["code"]) == (404, "nothing_stored")
    ingest.allow("u2")
    client.post("/v1/events", json={"events": [event(user_id="u2")]})
    ingest.land()
    assert client.get("/v1/users/stranger/data").status_code == 404


def test_after_a_withdrawal_only_the_receipts_are_left(client: httpx.Client, ingest: Any, event: MakeEvent) -> None:
    ingest.allow("u1")
    client.post("/v1/events", json={"events": [event()]})
    ingest.land()
    assert of_kind(lines(client.get(DATA)), "event")
    client.delete("/v1/users/u1/consent")
    ingest.land()
    assert {row["kind"] for row in lines(client.get(DATA))} == {"person", "receipt"}


def test_names_that_a_query_would_stumble_over_are_names(client: httpx.Client, ingest: Any, event: MakeEvent) -> None:
    for name in ("o'neil", "a*", "{user_id}", "100%"):
        ingest.allow(name)
        client.post("/v1/events", json={"events": [event(user_id=name)]})
    ingest.land()
    for name in ("o'neil", "a*", "{user_id}"):
        assert [row["user_id"] for row in of_kind(lines(client.get(f"/v1/users/{name}/data")), "event")] == [name]


def test_while_a_store_does_not_answer_nobody_is_told_half(
    client: httpx.Client, ingest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest.allow("u1")

    def down(_: str) -> None:
        raise LakeUnavailable("down")

    with monkeypatch.context() as patch:
        patch.setattr(ingest.app.state.services.exports._lake, "events_of", down)
        answer = client.get(DATA)
        assert (answer.status_code, answer.json()["code"]) == (503, "lake_unavailable")
    nowhere = Exports(ingest.lake, ingest.consents, connect("unix:///nowhere.sock"))
    monkeypatch.setattr(ingest.app.state.services.exports, "_store", nowhere._store)
    answer = client.get(DATA)
    assert (answer.status_code, answer.json()["code"]) == (503, "consent_unavailable")


def test_the_history_is_where_nearline_writes_it() -> None:
    for name in ("u1", "a:b", "{}"):
        assert HISTORY_KEY.format(user_id=name) == history_key(name)


def test_an_export_can_be_sent_in_again_and_gives_the_same_events(
    client: httpx.Client, ingest: Any, event: MakeEvent, tmp_path: Path
) -> None:
    """With their ids: sent in twice, they count once."""
    ingest.allow("u1", "personalization", "research")
    sent = [event(event_id=f"e{n}", recommendation_id="r1" if n % 2 else None) for n in range(4)]
    client.post("/v1/events", json={"events": sent})
    ingest.land()
    file = tmp_path / "u1.jsonl"
    file.write_bytes(client.get(DATA).content)
    export = read_export(file)
    assert (export.user_id, export.purposes) == ("u1", ("personalization", "research"))
    ids = {row["event_id"]: row for row in export.events}
    assert ids.keys() == {row["event_id"] for row in sent}
    answer = client.post("/v1/events", json={"events": export.events})
    assert answer.json()["accepted"] == 4
    ingest.land()
    file.write_bytes(client.get(DATA).content)
    again = read_export(file).events
    assert again == export.events * 2


def test_a_fresh_platform_that_takes_an_export_stores_the_same_and_would_learn_the_same(
    client: httpx.Client,
    ingest: Any,
    event: MakeEvent,
    own_redis: Any,
    new_ingest: Any,
    serving: Any,
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
) -> None:
    """But for what a platform says by itself: when and under which receipt it took an event, and where it stands."""
    ingest.allow("u1")
    ingest.allow("u1", "personalization", "analytics")
    sent = [event(event_id=f"e{n}", item_id=f"m{n % 5}", recommendation_id="r1" if n % 2 else None) for n in range(8)]
    client.post("/v1/events", json={"events": sent})
    ingest.land()
    file = tmp_path / "u1.jsonl"
    file.write_bytes(client.get(DATA).content)
    fresh = new_ingest(tmp_path_factory.mktemp("fresh"), own_redis.url, own_redis.url)
    fresh.rebuild()
    with serving(fresh.app) as other:
        export = read_export(file)
        other.put("/v1/users/u1/consent", json={"purposes": export.purposes})
        assert other.post("/v1/events", json={"events": export.events}).json()["accepted"] == 8
        fresh.land()
        again = lines(other.get(DATA))
    before = lines(client.get(DATA))
    assert [as_said(row) for row in of_kind(again, "event")] == [as_said(row) for row in of_kind(before, "event")]
    assert of_kind(again, "receipt")[-1]["purposes"] == of_kind(before, "receipt")[-1]["purposes"]
    domain = read_domain(Path("domain.toml"))
    digests = [read_lake(each.lake, each.projection, domain).histories().digest for each in (ingest, fresh)]
    assert digests[0] == digests[1]
    fresh.close()


def as_said(row: dict[str, Any]) -> dict[str, Any]:
    """An event without what the platform that took it added."""
    return {name: row[name] for name in row if name not in {"accepted_at", "receipt", "partition", "offset"}}


def test_of_an_export_the_consent_given_last_counts(client: httpx.Client, ingest: Any, tmp_path: Path) -> None:
    file = tmp_path / "u1.jsonl"
    ingest.allow("u1")
    ingest.allow("u1", "research")
    file.write_bytes(client.get(DATA).content)
    assert read_export(file).purposes == ("research",)
    ingest.consents.withdraw("u1", "1", "test")
    file.write_bytes(client.get(DATA).content)
    assert read_export(file).purposes == ()


@pytest.mark.parametrize(
    "content", [b"", b"{}\n", b"no JSON\n", b'{"kind":"event"}\n', b'{"kind":"receipt","purposes":7}\n'], ids=str
)
def test_what_is_no_export_is_told_with_its_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "export.jsonl"
    file.write_bytes(content)
    with pytest.raises(DatasetError):
        read_export(file)
    with pytest.raises(DatasetError, match="cannot be read"):
        read_export(tmp_path / "none")
