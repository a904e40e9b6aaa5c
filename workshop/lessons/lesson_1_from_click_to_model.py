# %% [markdown]
# # 1. From click to model
#
# **You will learn** where one event goes: which stores it reaches, in what form, how fast, and how a list that it
# changed names the model and the data behind it.
#
# **You need** the repository with `make install` done. Nothing else: the lesson starts a platform of its own.
#
# **Time**: 15 to 20 minutes to read and try; half a minute to run.
#
# Run it as it stands, or open it in an editor that knows `# %%` cells (VS Code, PyCharm, Spyder, Jupyter with jupytext)
# and go cell by cell. Guess before you run: each **?** is a question that the cell below it answers.

# %%
import io
import json
import time
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import matplotlib.pyplot as plt
import polars as pl
from rich import print

from infra.event_log.redis_topic import stream_key
from infra.lake import EVENTS, Lake
from infra.online_store import connect
from training.bundle import bundle_key, decode_history, history_key, list_key, live_key
from workshop.fresh_platform import FreshPlatform
from workshop.invented import generate

FIGURE = Path("var/lessons/from_click_to_model.svg")
ME = "the-learner"

# %% [markdown]
# ## A platform, and people who have a past
#
# `marquee up` starts an embedded Redis (event log and online store at once) and the platform's processes: ingest,
# lander, nearline, training, serving. 150 invented viewers opt in and send what they watched in the last two months;
# then the retraining job makes version 1. `TUNE_SECONDS` 0 skips the search for a recipe.

# %%
platform = FreshPlatform(Path("var/lessons/1"), {"TUNE_SECONDS": "0"}).start()
platform.send(generate(users=150, items=120, acts=4000))
first_run = json.loads(platform.command("train"))
print(first_run["result"], "version", first_run["version"], first_run["reasons"])

# %% [markdown]
# ## Before the click
#
# You are a stranger. **?** What does a stranger get, and from which tier?

# %%
key = {"Authorization": f"Bearer {platform.key}"}
ingest = httpx.Client(base_url=platform.ingest_url, headers=key, timeout=30)
serving = httpx.Client(base_url=platform.serving_url, headers=key, timeout=30)


def my_list() -> dict[str, Any]:
    """What serving would show you now."""
    answer: dict[str, Any] = serving.get(f"/v1/users/{ME}/recommendations", params={"k": 5}).json()
    return answer


before = my_list()
print(before)

# %% [markdown]
# The list is the popular one: nobody knows anything of you. It carries a `recommendation_id`, signed, which you send
# back with what you do. Now try to play the first title.
#
# **?** You have not opted in. What becomes of the event?

# %%
click = {
    "event_id": "my-first-click",
    "type": "play",
    "user_id": ME,
    "item_id": before["items"][0]["item_id"],
    "occurred_at": datetime.now(UTC).isoformat(),
    "recommendation_id": before["recommendation_id"],
}
refused = ingest.post("/v1/events", json={"events": [click]})
print(refused.status_code, refused.json()["verdicts"])

# %% [markdown]
# Refused and kept nowhere. Opt in: the answer is a receipt of the consent ledger. Its `number` will travel with every
# event of yours, so that each store can tell under which consent it holds the event.

# %%
receipt = ingest.put(f"/v1/users/{ME}/consent", json={"purposes": ["personalization"]}).json()
print(receipt)

# %% [markdown]
# ## The click
#
# The same event again. The 202 means: durable in the event log. From then on nothing is asked of you: every store is
# watched until the click is in it. (The log has it before the 202. We look after it, so we see it a little later.)
#
# **?** Which store has it first, and which last? By what factor do they differ?

# %%
store: Any = connect(platform.settings.redis_url)
lake = Lake(platform.settings.lake_uri)


def log_record() -> tuple[str, bytes] | None:
    """The record as it stands in Redis: key of its stream, and its bytes."""
    for partition in range(platform.settings.partitions):
        stream = stream_key(platform.settings.topic, partition)
        for _, fields in store.xrevrange(stream, count=10):
            if b"my-first-click" in fields[b"v"]:
                return stream, fields[b"v"]
    return None


def lake_row() -> pl.DataFrame:
    """The row, from the newest commit of the lake."""
    return lake.snapshot(EVENTS).rows.filter(pl.col("event_id") == "my-first-click")


log_record(), lake_row()  # Connects, so that the first look later on is a quick one.
sent = time.monotonic()
accepted = ingest.post("/v1/events", json={"events": [click]})
seen = {"answer 202": time.monotonic() - sent}
print(accepted.status_code, accepted.json()["verdicts"])

places: dict[str, Callable[[], object]] = {
    "event log": log_record,
    "history": lambda: store.exists(history_key(ME)),
    "live list": lambda: store.exists(live_key(1, ME)),
    "answer to you": lambda: my_list()["tier"] == "live",
    "lake": lambda: lake_row().height,
}
while places:
    for place, holds in list(places.items()):
        if holds():
            seen[place] = time.monotonic() - sent
            del places[place]
print({place: f"{seconds * 1000:.0f} ms" for place, seconds in seen.items()})

# %% [markdown]
# ## What each store holds
#
# One event, four forms. Look for what was added on the way: the receipt, the time of acceptance, the offset.

# %%
print("event log", log_record())
print("lake     ", lake_row().to_dicts())
print("history  ", decode_history(store.get(history_key(ME))))
print("live list", store.get(live_key(1, ME))[:20], "… item numbers, four bytes each")

# %% [markdown]
# The history knows neither the event's id nor the receipt: one item, its time, its weight. The live list is bare
# numbers; titles come from the catalogue that serving holds in memory.
#
# **?** Is the title that you played still in your list?

# %%
after = my_list()
print({"tier": after["tier"], "played": click["item_id"], "list": [item["item_id"] for item in after["items"]]})

# %% [markdown]
# ## Into the model
#
# So far no model has been trained on the click: version 1 was only asked again, with a longer history. The next
# retraining reads the lake.
#
# **?** Version 2 comes from version 1's data and one click. Does the gate let it pass? And are you in the model?

# %%
second_run = json.loads(platform.command("train"))
seen["model, your new list"] = time.monotonic() - sent
print(second_run["result"], "version", second_run["version"], second_run["reasons"])
print("a list of yours in version 2:", bool(store.exists(list_key(2, ME))))
with zipfile.ZipFile(io.BytesIO(store.get(bundle_key(2)))) as bundle:
    content = b"".join(map(bundle.read, bundle.namelist()))
print("in its bundle: the item", click["item_id"].encode() in content, "- your id", ME.encode() in content)

# %% [markdown]
# A bundle holds what is known of items, and of no person. Your click moved some weights between items by a little.
# That is why new people need no retraining, and why a forgotten person leaves nothing behind in the next model
# (lesson 6).
#
# ## And back: lineage
#
# The list that you are shown now carries a new id. **?** Can you prove that the model behind it has seen your click,
# with nothing in hand but that id?

# %%
now_shown = my_list()
lineage = serving.get(f"/v1/recommendations/{now_shown['recommendation_id']}").json()
print(lineage)

row = lake_row().row(0, named=True)
watermark = lineage["model"]["watermark"][str(row["partition"])]
print(f"your click: partition {row['partition']}, offset {row['offset']}; the model saw all below offset {watermark}")
assert row["offset"] < watermark

# %% [markdown]
# It can be proved: the id names a version, the version its snapshot, the snapshot its watermark, and the click's offset
# is below it. The snapshot's digest pins the data even when the lake has moved on.
#
# ## Your figure
#
# When was the click where? The axis is logarithmic: from milliseconds to the next retraining.

# %%
held = {
    "answer 202": f"durable, under receipt {receipt['number']}",
    "event log": f"a record of partition {row['partition']}, offset {row['offset']}",
    "history": "item, time, weight",
    "live list": "item numbers, without what you watched",
    "answer to you": f"tier {after['tier']}, version {after['version']}",
    "lake": "a row, in a commit that holds the offset too",
    "model, your new list": f"version {now_shown['version']}, without your name in it",
}
figure, axes = plt.subplots(figsize=(10, 4.2), layout="constrained")
end = max(seen.values()) * 60
for height, (place, seconds) in enumerate(sorted(seen.items(), key=lambda pair: -pair[1])):
    axes.barh(height, end - seconds, left=seconds, color=plt.get_cmap("viridis")(0.15 + height / 10), height=0.7)
    axes.text(seconds * 0.9, height, f"{seconds * 1000:,.0f} ms", ha="right", va="center", color="0.4")
    axes.text(seconds * 1.1, height, held[place], ha="left", va="center", color="white", fontsize=9)
    axes.text(0.0003, height, place, ha="left", va="center", fontweight="bold")
axes.set(xscale="log", xlim=(0.00025, end), yticks=[], xlabel="since the click was sent")
axes.set_xticks([0.001, 0.01, 0.1, 1, 10], ["1 ms", "10 ms", "100 ms", "1 s", "10 s"])
axes.set_title("One click, and what each place holds of it", loc="left")
axes.spines[["left", "top", "right"]].set_visible(False)
FIGURE.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(FIGURE)
print(f"Your figure: {FIGURE}")

# %% [markdown]
# ## Try this
#
# 1. Send the click a second time, with the same `event_id`. It is accepted: how many rows has the lake then, and how
#    many of them does training count? (`marquee account` says; so does `first_run`.)
# 2. Send a `thumbs_down` for a title of your list. Its weight in `domain.toml` is 0: what happens to the history, and
#    what to the list?
# 3. Change one letter of the `recommendation_id` and ask for its lineage. What would an unsigned id allow?
# 4. Withdraw (`DELETE /v1/users/you/consent`) and run the watching cell's checks again: which place is empty first?
#
# Stop the platform; its files stay in `var/lessons/1` for a look.

# %%
platform.stop()
