"""Who sends: they keep what was acknowledged, send again what was not answered, and 5 % of what was.

An event's id says whose it is and the how manieth: `u17:203`. Its time is that number of milliseconds after `BASE`, so
one person's acts can be told apart in the training read, which knows no ids.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException
from typing import Any, NamedTuple

import orjson

from tests.chaos.platform import KEY

BASE = datetime(2026, 1, 1, tzinfo=UTC)
BATCHES = (1, 5, 20, 50, 100, 500)
HOW_OFTEN = (4, 4, 4, 4, 2, 1)
ITEMS = 500
SENT_AGAIN = 0.05
NOT_WAITED_FOR = 0.02
ANSWER_SECONDS = 6.0
PAUSE_SECONDS = (0.05, 0.4)
TYPES = ("play", "complete", "thumbs_up")
NO_ANSWER = 0
NOT_ASKED = -1
"""Instead of a status: the connection was closed by us before there could be an answer."""

TICK_SECONDS = 0.02
LATER = 40
"""A batch is sent again after so many others, at most."""


class Answer(NamedTuple):
    """One attempt to send something.

    Attributes:
        began: by the monotonic clock.
        seconds: until the answer, or until it was given up.
        status: or NO_ANSWER, or NOT_ASKED.
    """

    began: float
    seconds: float
    status: int


class Pace:
    """How many events may be sent by now: faults and traffic go side by side.

    Args:
        events: that are sent in all.
        rate: of them in a second, once they may be sent; what was held up is made up for.

    Attributes:
        acknowledged: events, by now.
    """

    def __init__(self, events: int, rate: float) -> None:
        self.events = events
        self.acknowledged = 0
        self._rate = rate
        self._began = time.monotonic()
        self._taken = 0
        self._allowed = 0
        self._ended = False
        self._lock = threading.Lock()

    def allow(self, events: int) -> None:
        """So many may have been sent from here on."""
        with self._lock:
            if not self._allowed:
                self._began = time.monotonic()
            self._allowed = min(events, self.events)

    def end(self) -> None:
        """No more are sent."""
        self._ended = True

    def take(self, most: int) -> int:
        """How many to send now; waits for its turn. 0: no more."""
        while not self._ended:
            with self._lock:
                due = min(self._allowed, int(self._rate * (time.monotonic() - self._began)))
                taken = min(most, self.events - self._taken)
                if self._taken + taken <= due or not taken:
                    self._taken += taken
                    return taken
            time.sleep(TICK_SECONDS)
        return 0

    def note(self, acknowledged: int) -> None:
        """So many more were acknowledged."""
        with self._lock:
            self.acknowledged += acknowledged


class Silences:
    """When whose events have to be refused: from the answer to a withdrawal until the person allows it again."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._until: dict[str, float] = {}

    def begin(self, person: str) -> None:
        """The withdrawal was answered just now."""
        self._until.pop(person, None)
        self._since[person] = time.monotonic()

    def end(self, person: str) -> None:
        """The person is about to allow it again."""
        self._until[person] = time.monotonic()

    def cover(self, person: str, began: float, ended: float) -> bool:
        """Whether all of this time the person's events had to be refused."""
        since = self._since.get(person)
        return since is not None and since < began and ended < self._until.get(person, float("inf"))


class Kept(NamedTuple):
    """What one producer knows at the end.

    Attributes:
        acknowledged: ids of events that were called accepted.
        forbidden: ids of events that were called accepted though they were sent after a withdrawal's answer.
        refused: ids of events that were refused, the first time at least.
        counts: events, batches sent again, events refused.
        answers: to each attempt.
        surprises: answers that nothing accounts for.
    """

    acknowledged: set[str]
    forbidden: list[str]
    refused: set[str]
    counts: Counter[str]
    answers: list[Answer]
    surprises: list[str]


class Producer(threading.Thread):
    """Sends for some people, one batch after the other.

    Args:
        people: whose events it sends; nobody else does.
        ports: of the collectors' front doors.
        pace: how fast.
        silences: whose events have to be refused.
        seed: of its decisions.
    """

    def __init__(self, people: Sequence[str], ports: Sequence[int], pace: Pace, silences: Silences, seed: int) -> None:
        super().__init__(daemon=True)
        self.kept = Kept(set(), [], set(), Counter(), [], [])
        self._people = people
        self._ports = ports
        self._pace = pace
        self._silences = silences
        self._random = random.Random(seed)
        self._numbers: Counter[str] = Counter()
        self._later: list[list[dict[str, str]]] = []
        self._over = threading.Event()

    def run(self) -> None:
        """Send until there is no more to send, each batch until it is answered."""
        try:
            self._send_all()
        except Exception as error:
            self.kept.surprises.append(f"a producer died of {error!r}")

    def _send_all(self) -> None:
        while size := self._pace.take(*self._random.choices(BATCHES, HOW_OFTEN)):
            batch = self._fresh(size)
            self._deliver(batch)
            if self._random.random() < SENT_AGAIN:
                self._later.append(batch)
            if self._later and self._random.random() < 1 / LATER:
                self._again()
        while self._later:
            self._again()

    def give_up(self) -> None:
        """Stop even where something was not answered."""
        self._over.set()

    def _again(self) -> None:
        self.kept.counts["batches_sent_again"] += 1
        self._deliver(self._later.pop(self._random.randrange(len(self._later))))

    def _fresh(self, size: int) -> list[dict[str, str]]:
        self.kept.counts["events"] += size
        return [self._event(self._random.choice(self._people)) for _ in range(size)]

    def _event(self, person: str) -> dict[str, str]:
        number = self._numbers[person]
        self._numbers[person] += 1
        return {
            "event_id": f"{person}:{number}",
            "type": self._random.choice(TYPES),
            "user_id": person,
            "item_id": f"m{self._random.randrange(ITEMS)}",
            "occurred_at": (BASE + timedelta(milliseconds=number)).isoformat(),
        }

    def _deliver(self, batch: list[dict[str, str]]) -> None:
        body = orjson.dumps({"events": batch})
        while not self._over.is_set():
            began = time.monotonic()
            status, answer = self._post(self._random.choice(self._ports), body)
            ended = time.monotonic()
            self.kept.answers.append(Answer(began, ended - began, status))
            if status in (202, 422) and "verdicts" in answer:
                self._note(batch, answer["verdicts"], began, ended)
                return
            if status not in (NOT_ASKED, NO_ANSWER, 503):
                self.kept.surprises.append(f"{status}: {answer}"[:500])
            self._over.wait(self._random.uniform(*PAUSE_SECONDS))

    def _note(self, batch: list[dict[str, str]], verdicts: list[dict[str, str]], began: float, ended: float) -> None:
        fresh = 0
        for event, verdict in zip(batch, verdicts, strict=True):
            event_id, person = event["event_id"], event["user_id"]
            if verdict["code"] == "accepted":
                fresh += event_id not in self.kept.acknowledged
                self.kept.acknowledged.add(event_id)
                if self._silences.cover(person, began, ended):
                    self.kept.forbidden.append(event_id)
            elif verdict["code"] == "consent_missing":
                self.kept.counts["refused"] += 1
                self.kept.refused.add(event_id)
            else:
                self.kept.surprises.append(f"verdict {verdict}"[:500])
        self._pace.note(fresh)

    def _post(self, port: int, body: bytes) -> tuple[int, Any]:
        connection = HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        try:
            connection.request("POST", "/v1/events", body, headers)
            if self._random.random() < NOT_WAITED_FOR:
                return NOT_ASKED, {}
            answer = connection.getresponse()
            return answer.status, orjson.loads(answer.read())
        except (OSError, HTTPException, orjson.JSONDecodeError):
            return NO_ANSWER, {}
        finally:
            connection.close()


def in_parallel(work: Callable[[str], None], people: Sequence[str], threads: int = 16) -> None:
    """Do something for each of these people, several at a time."""
    left = iter(people)
    lock = threading.Lock()

    def some() -> None:
        while True:
            with lock:
                person = next(left, None)
            if person is None:
                return
            work(person)

    workers = [threading.Thread(target=some, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
