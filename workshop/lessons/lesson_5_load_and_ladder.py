# %% [markdown]
# # 5. Load-test it, break it, watch the ladder
#
# **You will learn** what a load test measures (and what it hides), what viewers see when Redis hangs or dies, and how
# fast their own lists are back.
#
# **You need** the repository with `make install` done, and lesson 1. The lesson starts a platform of its own; all load
# stays on this machine.
#
# **Time**: 15 to 20 minutes to read and try; half a minute to run. Guess at each **?** before you run the cell below.

# %%
import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import matplotlib.pyplot as plt
import numpy as np
from rich import print

from infra.online_store import connect
from workshop.fresh_platform import FreshPlatform
from workshop.invented import generate

FIGURE = Path("var/lessons/load_and_ladder.svg")
COLOURS = {"live": "tab:green", "personal": "tab:blue", "popular": "tab:orange", "static": "tab:red", "none": "black"}

# %% [markdown]
# ## A platform with lists to serve
#
# 150 invented viewers, one version of the model. Half of the viewers then play a title: they have a *live* list, which
# knows of it. The others have the *personal* list of the last publish.

# %%
platform = FreshPlatform(Path("var/lessons/5"), {"TUNE_SECONDS": "0"}).start()
dataset = generate(users=150, items=120, acts=4000)
platform.send(dataset)
platform.command("train")

ingest = httpx.Client(base_url=platform.ingest_url, headers={"Authorization": f"Bearer {platform.key}"}, timeout=30)
viewers = dataset.users[:100]


def play(viewer: str) -> httpx.Response:
    """One viewer plays one title."""
    event = {"event_id": f"{viewer}-{time.monotonic_ns()}", "type": "play", "user_id": viewer, "item_id": "film-001"}
    return ingest.post("/v1/events", json={"events": [{**event, "occurred_at": datetime.now(UTC).isoformat()}]})


for viewer in viewers[::2]:
    play(viewer)


# %% [markdown]
# ## Load that waits for its answers
#
# Callers who ask, wait for the answer and ask again: more of them bring more requests, up to a point.
# **?** Four times the callers: how many times the requests, and how many times the waiting?


# %%
class Answer(NamedTuple):
    """What became of a request: when it was due, how long it took from then on, and the tier of the list."""

    due: float
    seconds: float
    tier: str


class Caller:
    """One connection to serving that asks for lists."""

    def __init__(self) -> None:
        self._http = HTTPConnection(platform.settings.host, platform.settings.serving_port, timeout=5)

    def ask(self, viewer: str, due: float) -> Answer:
        """Ask for a viewer's list. An answer that is not 200 counts as none."""
        try:
            headers = {"Authorization": f"Bearer {platform.key}"}
            self._http.request("GET", f"/v1/users/{viewer}/recommendations?k=10", headers=headers)
            answer = self._http.getresponse()
            answer.read()
            tier = answer.getheader("marquee-tier", "none") if answer.status == 200 else "none"
        except OSError:
            self._http.close()
            tier = "none"
        return Answer(due, time.monotonic() - due, tier)


def without_a_pause(seconds: float) -> list[Answer]:
    """A caller who asks again as soon as an answer is there."""
    caller, end = Caller(), time.monotonic() + seconds
    mine: list[Answer] = []
    while (now := time.monotonic()) < end:
        mine.append(caller.ask(viewers[len(mine) % len(viewers)], now))
    return mine


for callers in (1, 4, 16):
    with ThreadPoolExecutor(callers) as threads:
        took = [1000 * each.seconds for mine in threads.map(without_a_pause, [1.0] * callers) for each in mine]
    print(f"{callers:3} callers: {len(took):5} lists/s, median {np.median(took):.1f} ms, slowest {max(took):.1f} ms")

# %% [markdown]
# Beyond a point there are no more lists, only more waiting. (Here the point is this Python program: `make
# bench-serving` uses wrk and finds a worker's own limit.) And a caller who waits asks *less* when the server is slow:
# in an outage it would send one request and report one slow answer. Viewers do not queue up like that. From here on
# requests are sent at a steady rate whatever comes back, and time counts from when a request was **due**.
#
# ## Break it
#
# 40 viewers ask five times a second each. Meanwhile Redis, which holds all lists,
#
# 1. hangs for three seconds (SIGSTOP: it takes connections and says nothing),
# 2. dies (SIGKILL; `marquee up` starts it again from its file).
#
# **?** How many requests fail? What do viewers get while Redis hangs? How slow is the slowest answer?

# %%
SECONDS, PAUSE = 10.0, 0.2
store: Any = connect(platform.settings.redis_url)
answers: list[Answer] = []


def steadily(number: int, begin: float) -> None:
    """One viewer who asks whenever it is time, for the whole of the experiment."""
    caller = Caller()
    for turn in range(int(SECONDS / PAUSE)):
        due = begin + turn * PAUSE + number * PAUSE / 40
        time.sleep(max(0.0, due - time.monotonic()))
        answers.append(caller.ask(viewers[number], due))


def redis_pid() -> int:
    """Of the Redis that runs now."""
    return int(store.info("server")["process_id"])


begin = time.monotonic()
crowd = [threading.Thread(target=steadily, args=(number, begin)) for number in range(40)]
for thread in crowd:
    thread.start()

time.sleep(2)
pid, hangs_at = redis_pid(), time.monotonic() - begin
os.kill(pid, signal.SIGSTOP)
time.sleep(1)
refused = play(viewers[0])
print(
    "an event meanwhile:", refused.status_code, refused.json()["code"], "- Retry-After", refused.headers["Retry-After"]
)
time.sleep(max(0.0, begin + hangs_at + 3 - time.monotonic()))
os.kill(pid, signal.SIGCONT)
back_at = time.monotonic() - begin

time.sleep(1.5)
killed_at = time.monotonic() - begin
os.kill(redis_pid(), signal.SIGKILL)
for thread in crowd:
    thread.join()

print("answers by tier:", Counter(answer.tier for answer in answers))
for name, start, end in (("whole", 0.0, 2.0), ("hanging", hangs_at, back_at), ("after", back_at + 1, killed_at)):
    some = [answer.seconds * 1000 for answer in answers if start <= answer.due - begin < end]
    print(f"{name:8} {len(some):4} lists, median {np.median(some):.1f} ms, slowest {max(some):.1f} ms")

# %% [markdown]
# Nobody got an error. The ladder has a next step for whatever is missing: live → personal → popular → static. One read
# waits 50 ms for the silent Redis; from then on everybody is answered from serving's own memory, and a probe in the
# background finds out when Redis is back. That is why answers may be *faster* while Redis hangs. Events are another
# matter: what cannot be made durable is not accepted, and the client keeps it and sends it again (503, Retry-After).
#
# **?** Which of the two outages lasts longer for viewers: three seconds of hanging, or a death with a restart at once?
#
# ## Your figure

# %%
due = np.array([answer.due - begin for answer in answers])
figure, (counts, waits) = plt.subplots(2, 1, figsize=(10, 5.5), sharex=True, layout="constrained")
edges = np.arange(0, SECONDS + 0.2, 0.2)
by_tier = {tier: due[[answer.tier == tier for answer in answers]] for tier in COLOURS}
there = [tier for tier, times in by_tier.items() if len(times)]
counts.hist([by_tier[tier] for tier in there], edges, stacked=True, color=[COLOURS[t] for t in there], label=there)
for tier in there:
    took = [answer.seconds * 1000 for answer in answers if answer.tier == tier]
    waits.plot(by_tier[tier], took, ".", color=COLOURS[tier], markersize=3)
for axes in (counts, waits):
    axes.axvspan(hangs_at, back_at, color="0.85", zorder=0)
    axes.axvline(killed_at, color="0.3", linestyle="--")
    axes.spines[["top", "right"]].set_visible(False)
counts.text(hangs_at + 0.05, counts.get_ylim()[1] * 1.02, "Redis hangs", color="0.3")
counts.text(killed_at + 0.05, counts.get_ylim()[1] * 1.02, "Redis is killed", color="0.3")
counts.set(ylabel="lists in a fifth of a second")
counts.legend(loc="lower right", bbox_to_anchor=(1, 1.06), ncols=len(there), frameon=False)
waits.set(yscale="log", ylabel="milliseconds since due", xlabel="seconds")
figure.suptitle("200 lists a second while Redis hangs, and dies", x=0.01, ha="left", fontweight="bold")
FIGURE.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(FIGURE)
print(f"Your figure: {FIGURE}")

# %% [markdown]
# ## Try this
#
# 1. Send the load with `without_a_pause` during the outage instead of `steadily`, and compare the p99. Which of the two
#    would you believe?
# 2. Kill `marquee serve` as well, while Redis hangs: which tier comes back? (The static list is on the disk, below
#    `var/lessons/5/serving`.)
# 3. `make drill NAMES="redis-down publish"` does this with a verdict. What does it check that your figure does not
#    show?
# 4. `make loadtest UI=1` opens Locust. At how many viewers does the p99 leave what
#    [service levels](../../docs/service-levels.md) promise?
#
# Stop the platform.

# %%
platform.stop()
