"""What people say while faults strike: they allow, withdraw, allow again; and what else comes into the log."""

import random
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from typing import Any

import orjson

from infra.event_log.port import EventLog, EventLogError
from tests.chaos.platform import KEY
from tests.chaos.producers import ITEMS, Pace, Silences

ANSWER_SECONDS = 15.0
BROKEN = (b"no JSON", b'{"kind":"nothing"}', b"\xff\xfe", b'{"kind":"event","user_id":"u1"}')
"""Bytes that are no records of the log."""


class Statements(threading.Thread):
    """Has people withdraw, spread over the run; every other one allows again. Each time something broken is logged too.

    Args:
        people: who withdraw.
        ports: of the collectors' front doors.
        pace: how far the run is.
        silences: told when whose events have to be refused.
        log: takes broken records.
        seed: of its decisions.

    Attributes:
        withdrawn: who has withdrawn so far.
    """

    def __init__(
        self, people: Sequence[str], ports: Sequence[int], pace: Pace, silences: Silences, log: EventLog, seed: int
    ) -> None:
        super().__init__(daemon=True)
        self.withdrawn: list[str] = []
        self._people = people
        self._ports = ports
        self._pace = pace
        self._silences = silences
        self._log = log
        self._random = random.Random(seed)
        self._over = threading.Event()

    def run(self) -> None:
        """Until everybody who was to has withdrawn, or the run is over."""
        for number, person in enumerate(self._people):
            due = (number + 1) / (len(self._people) + 2) * self._pace.events
            while self._pace.acknowledged < due:
                if self._over.wait(0.05):
                    return
            self._withdraw(person)
            self._break(person)
            if number % 2:
                self._over.wait(self._random.uniform(0.2, 2.0))
                self._silences.end(person)
                allow(self._random.choice(self._ports), person, self._over)

    def end(self) -> None:
        """Nobody else withdraws."""
        self._over.set()

    def _withdraw(self, person: str) -> None:
        answered = say(self._random.choice(self._ports), "DELETE", f"/v1/users/{person}/consent", None, self._over)
        if answered:
            self._silences.begin(person)
            self.withdrawn.append(person)

    def _break(self, person: str) -> None:
        whose = self._random.choice([person, "stranger", self._people[0]]).encode()
        with suppress(EventLogError):
            self._log.append([(whose, self._random.choice(BROKEN))])


def allow(port: int, person: str, over: threading.Event) -> None:
    """The person allows personalization."""
    say(port, "PUT", f"/v1/users/{person}/consent", {"purposes": ["personalization"]}, over)


def register_items(port: int) -> None:
    """Say what items there are."""
    items = [{"item_id": f"m{number}", "attributes": {"title": f"Film {number}"}} for number in range(ITEMS)]
    say(port, "PUT", "/v1/items", {"items": items}, threading.Event())


def say(port: int, method: str, path: str, body: Any, over: threading.Event) -> bool:
    """Ask until it is answered with success; False: `over` came first."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    while not over.is_set():
        connection = HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
        try:
            connection.request(method, path, None if body is None else orjson.dumps(body), headers)
            if connection.getresponse().status in (200, 202):
                return True
        except (OSError, HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.2)
    return False
