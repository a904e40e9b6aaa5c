"""Viewers for Locust: they look at a home page or a list, play something from it, and come back to see what changed.

`make loadtest` runs this file. Beside the requests it reports `event to list`: from the 202 of a play to the first list
that knows of it. LOADTEST_INGEST is the address of the ingest API, MARQUEE_API_KEY the key, LOADTEST_VIEWERS a file
with the names of people to be (one a line; else new ones), LOADTEST_FIGURES where the figures go.
"""

import itertools
import json
import os
import random
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from locust import FastHttpUser, between, events, task
from locust.env import Environment

INGEST = os.environ["LOADTEST_INGEST"]
HEADERS = {"Authorization": f"Bearer {os.environ['MARQUEE_API_KEY']}"}
LIST, HOME, PLAY, FRESHNESS = "list", "home", "play", "event to list"
K = 20
POLL_SECONDS = 0.03
PATIENCE_SECONDS = 10.0
DRAW = random.Random()  # noqa: S311


def _people() -> list[str]:
    named = os.environ.get("LOADTEST_VIEWERS")
    if named:
        return Path(named).read_text().split()
    run = uuid4().hex[:8]
    return [f"loadtest-{run}-{number}" for number in range(10_000)]


PEOPLE = itertools.cycle(_people())


class Viewer(FastHttpUser):
    """Somebody who opts in, comes now and then, and leaves no consent behind."""

    wait_time = between(0.5, 2.0)
    connection_timeout = network_timeout = PATIENCE_SECONDS

    def on_start(self) -> None:
        """Opt in."""
        self.name = next(PEOPLE)
        self._ingest("PUT", f"/v1/users/{self.name}/consent", {"purposes": ["personalization"]}, "opt in")

    def on_stop(self) -> None:
        """Withdraw: what was kept of this viewer goes."""
        self._ingest("DELETE", f"/v1/users/{self.name}/consent", None, "withdraw")

    @task(3)
    def look_at_a_list(self) -> None:
        """Look at a list and, more often than not, play from it."""
        answer = self._serving(f"/v1/users/{self.name}/recommendations?k={K}", LIST)
        if answer and answer["items"] and DRAW.random() < 0.6 and (played := self._play(answer)):
            self._come_back(played)

    @task(1)
    def look_at_home(self) -> None:
        """Look at the rows of the home page and play something from one of them."""
        page = self._serving(f"/v1/users/{self.name}/home", HOME)
        rows = [row for row in page["rows"] if row["items"]] if page else []
        if rows:
            self._play(DRAW.choice(rows))

    def _play(self, shown: dict[str, Any]) -> str | None:
        """Play one of the items, the first most often; returns it, once the event is taken."""
        items = [item["item_id"] for item in shown["items"]]
        played = DRAW.choices(items, [1 / (1 + place) for place in range(len(items))])[0]
        kinds = [("impression", item) for item in items] + [("play", played)]
        acts = [self._act(kind, item, shown["recommendation_id"]) for kind, item in kinds]
        return played if self._ingest("POST", "/v1/events", {"events": acts}, PLAY) else None

    def _come_back(self, played: str) -> None:
        """Ask for the list until what was played from it is gone."""
        begin = time.monotonic()
        missing = TimeoutError("the list does not know of the event")
        while time.monotonic() - begin < PATIENCE_SECONDS:
            answer = self._serving(f"/v1/users/{self.name}/recommendations?k={K}", LIST)
            if answer and answer["tier"] == "live" and played not in {item["item_id"] for item in answer["items"]}:
                self._tell(time.monotonic() - begin, None)
                return
            time.sleep(POLL_SECONDS)
        self._tell(PATIENCE_SECONDS, missing)

    def _tell(self, seconds: float, error: Exception | None) -> None:
        self.environment.events.request.fire(
            request_type="WAIT",
            name=FRESHNESS,
            response_time=seconds * 1000,
            response_length=0,
            exception=error,
            context={},
        )

    def _act(self, kind: str, item_id: str, recommendation_id: str) -> dict[str, str]:
        act = {"event_id": uuid4().hex, "type": kind, "user_id": self.name, "item_id": item_id}
        return act | {"occurred_at": datetime.now(UTC).isoformat(), "recommendation_id": recommendation_id}

    def _serving(self, path: str, name: str) -> dict[str, Any] | None:
        answer = self.client.get(path, headers=HEADERS, name=name)
        return dict(answer.json()) if answer.status_code == 200 else None

    def _ingest(self, method: str, path: str, body: Any, name: str) -> bool:
        answer = self.client.request(method, INGEST + path, json=body, headers=HEADERS, name=name)
        return bool(200 <= answer.status_code < 300)


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def write_figures(environment: Environment, **_: Any) -> None:
    """Write what the service levels are judged by."""
    stats, target = environment.stats, os.environ.get("LOADTEST_FIGURES")
    if target is None:
        return
    figures: dict[str, Any] = {"requests": stats.total.num_requests, "failures": stats.total.num_failures}
    if stats.total.num_requests:
        figures["availability_percent"] = round(100 * (1 - stats.total.fail_ratio), 3)
    for name, method, key, share in (
        (LIST, "GET", "list_p99_ms", 0.99),
        (HOME, "GET", "home_p99_ms", 0.99),
        (FRESHNESS, "WAIT", "freshness_p50_ms", 0.5),
        (FRESHNESS, "WAIT", "freshness_p99_ms", 0.99),
    ):
        if (name, method) in stats.entries:
            figures[key] = stats.entries[name, method].get_response_time_percentile(share)
    Path(target).write_text(json.dumps(figures))
