"""`marquee up` as a newcomer meets it, and every command against it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.own_platform import free_ports

pytestmark = [pytest.mark.e2e]

ROOT = Path(__file__).parents[2]
PORTS = ("INGEST", "SERVING", "OPERATOR", "LANDER_METRICS", "NEARLINE_METRICS", "TRAINER_METRICS")


class Platform:
    """A platform that is up, in a folder of its own, on free ports."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MARQUEE_")}
        ports = {f"MARQUEE_{name}_PORT": str(port) for name, port in self.ports.items()}
        own = {f"MARQUEE_{name}": value for name, value in {"TUNE_SECONDS": "3", **settings}.items()}
        self.environment = {**clean, **ports, **own, "MARQUEE_DATA": str(folder / "data")}
        self._output = folder / "up.out"
        with self._output.open("wb") as output:
            command = [sys.executable, "-m", "marquee", "up"]
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=output, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 120
        while "Ctrl-C stops everything." not in self.printed():
            assert time.monotonic() < deadline, self.printed()
            assert self.process.poll() is None, self.printed()
            time.sleep(0.1)

    def printed(self) -> str:
        """What `marquee up` has printed so far."""
        return self._output.read_text()

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Type a `marquee` command."""
        command = [sys.executable, "-m", "marquee", *words]
        return subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)

    def operate(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of a call to the operator's API, with the key that `marquee up` made."""
        secrets = (Path(self.environment["MARQUEE_DATA"]) / "secrets.env").read_text()
        [key] = re.findall("^MARQUEE_API_KEY=(.*)$", secrets, re.M)
        content = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.ports['OPERATOR']}{path}"
        request = urllib.request.Request(url, content, {"Authorization": f"Bearer {key}"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def metrics(self, port: str) -> str:
        """What a process shows on /metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[port]}/metrics", timeout=5) as answer:
            return str(answer.read().decode())


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One platform for the tests of this module, in their order."""
    started = Platform(tmp_path_factory.mktemp("up"))
    yield started
    if started.process.poll() is None:
        started.process.terminate()
        started.process.wait(60)


def test_the_three_lines_it_prints_work(platform: Platform, curl: str) -> None:
    lines = re.findall(r"^  (curl .*)$", platform.printed(), re.M)
    answers = [bash(line.replace("curl ", f"{curl} -sS -w '\\n%{{http_code}}' ", 1)) for line in lines]
    assert [answer.rpartition("\n")[2] for answer in answers] == ["200", "202", "200"]


def test_the_pages_of_serving_may_call_ingest_and_no_others(platform: Platform) -> None:
    def asked_by(host: str, port: str) -> str:
        asking = {"Origin": f"http://{host}:{platform.ports[port]}", "Access-Control-Request-Method": "POST"}
        asking["Access-Control-Request-Headers"] = "authorization,content-type"
        url = f"http://127.0.0.1:{platform.ports['INGEST']}/v1/events"
        try:
            request = urllib.request.Request(url, headers=asking, method="OPTIONS")
            with urllib.request.urlopen(request, timeout=5) as answer:
                return str(answer.headers["Access-Control-Allow-Origin"])
        except urllib.error.HTTPError as error:
            return str(error.headers["Access-Control-Allow-Origin"])

    serving = platform.ports["SERVING"]
    assert asked_by("127.0.0.1", "SERVING") == f"http://127.0.0.1:{serving}"
    assert asked_by("localhost", "SERVING") == f"http://localhost:{serving}"
    assert asked_by("localhost", "INGEST") == asked_by("evil.example.org", "SERVING") == "None"


def test_training_says_what_is_missing_and_fails_while_there_is_too_little(platform: Platform) -> None:
    trained = platform.command("train")
    assert trained.returncode == 3
    assert "collect more before training" in trained.stderr
    assert platform.command("rollback").returncode == 1


def test_a_data_set_is_loaded(platform: Platform, tmp_path: Path) -> None:
    loaded = platform.command("load", "movielens", str(movielens(tmp_path)))
    assert loaded.returncode == 0, loaded.stdout + loaded.stderr
    assert "1200 events accepted, refused: none" in loaded.stdout
    wait_until(lambda: "events in the lake: 1201," in platform.command("status").stdout)


def test_a_run_that_an_operator_asks_for_is_seen_and_its_version_served(platform: Platform) -> None:
    """The schedule starts `marquee train` for it."""
    status, asked = platform.operate("POST", "/v1/training")
    assert (status, asked["state"]) == (202, "asked")
    phases = set()

    def is_over() -> bool:
        _, found = platform.operate("GET", "/v1/training")
        phases.add((found["run"] or {}).get("phase"))
        return bool(found["state"] == "idle" and found["last"]["result"] == "published")

    wait_until(is_over)
    assert phases & {"read", "check", "split", "tune", "compare", "fit", "register", "publish"}
    assert re.search(r"1\s.*served, champion", platform.command("status").stdout)


def test_an_operator_judges_a_version_and_promotes_it(platform: Platform) -> None:
    _, found = platform.operate("GET", "/v1/models")
    assert (found["served"], [one["version"] for one in found["models"]]) == (1, [1])
    assert all(one["gate"]["passed"] and one["gate"]["verdicts"] and one["kept"] for one in found["models"])
    assert platform.operate("POST", "/v1/models/1/promotion", {"reason": "it is good"}) == (200, {"served": 1})
    assert "it is good" in platform.command("models", "1").stdout
    assert platform.operate("POST", "/v1/rollback", {})[1]["code"] == "nothing_to_roll_back_to"
    status, lists = platform.operate("GET", "/v1/users/1/lists?version=1&k=5")
    shown = {item["item_id"] for item in lists["lists"][0]["items"]}
    assert (status, len(shown)) == (200, 5)
    assert shown.isdisjoint(item["item_id"] for item in lists["history"])


def test_an_operator_sees_the_whole_platform_in_one_answer(platform: Platform) -> None:
    status, found = platform.operate("GET", "/v1/operations")
    assert status == 200
    assert [one["name"] for one in found["processes"] if not one["answers"]] == []
    assert (found["landed_rows"], found["redis"]["people"]) == (1201, 61)
    assert found["lag"] == {"lander": 0, "nearline": 0, "trainer": 0}
    assert found["redis"]["bytes_a_person"]["total"] > 100


def test_a_broken_data_set_is_refused_with_file_and_line(platform: Platform, tmp_path: Path) -> None:
    folder = movielens(tmp_path)
    (folder / "ratings.csv").write_text((folder / "ratings.csv").read_text() + "7,eight,4.0,1\n")
    loaded = platform.command("load", "movielens", str(folder))
    assert loaded.returncode == 1
    assert "ratings.csv, line 1202" in " ".join(loaded.stdout.split())


def test_an_audience_comes_and_plays(platform: Platform) -> None:
    came = platform.command("audience", "--users", "30", "--seconds", "2", "--rate", "60")
    assert came.returncode == 0, came.stdout + came.stderr
    assert re.search(r"\d+ visits in \d+ s; lists by tier: .*(live|personal)", came.stdout)


def test_every_process_shows_metrics_of_its_own(platform: Platform) -> None:
    assert 'marquee_events_total{verdict="accepted"}' in platform.metrics("INGEST")
    assert 'marquee_landed_rows_total{table="events"}' in platform.metrics("LANDER_METRICS")
    assert 'marquee_log_lag{group="lander",partition="0"}' in platform.metrics("LANDER_METRICS")
    assert 'marquee_log_lag{group="nearline",partition="0"}' in platform.metrics("NEARLINE_METRICS")
    assert 'marquee_log_lag{group="trainer",partition="0"}' in platform.metrics("TRAINER_METRICS")
    assert 'marquee_recommendations_total{tier="live"}' in platform.metrics("SERVING")


def test_a_person_is_erased_by_command(platform: Platform) -> None:
    erased = platform.command("erase", "you")
    assert erased.returncode == 0, erased.stdout + erased.stderr
    assert '"status": "complete"' in erased.stdout


def test_a_second_platform_on_the_same_ports_says_so(platform: Platform) -> None:
    second = platform.command("up")
    assert second.returncode == 1
    assert "is taken" in second.stdout


def test_ctrl_c_stops_it_and_leaves_nothing_running(platform: Platform) -> None:
    children = psutil.Process(platform.process.pid).children(recursive=True)
    assert len(children) >= 6
    platform.process.send_signal(signal.SIGINT)
    assert platform.process.wait(60) == 0
    assert platform.printed().rstrip().endswith("Everything is stopped.")
    assert "killed" not in platform.printed()
    assert [child for child in children if child.is_running()] == []


def movielens(folder: Path) -> Path:
    """60 viewers with 20 ratings each: two tastes, so that there is something to learn."""
    ratings = [
        f"{user},{1 + (user % 2) * 30 + (user * 3 + n * 7) % 30},4.0,{1_000_000_000 + n * 86_400 + user}"
        for n in range(20)
        for user in range(1, 61)
    ]
    (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *ratings]) + "\n")
    titles = [f"{movie},Film {movie} (1999),Drama" for movie in range(1, 61)]
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *titles]) + "\n")
    return folder


def bash(line: str) -> str:
    """What a line typed into a shell prints."""
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True, timeout=30).stdout


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for two minutes at most."""
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)
