# %% [markdown]
# # 4. Freshness against retraining
#
# **You will learn** two ways in which a recommender can be out of date, what each of them costs, and how much of the
# remedy comes without any retraining: by asking the old model with new histories, as nearline does.
#
# **You need** the repository with `make install` done. No platform: the world of this lesson is in one process.
#
# **Time**: 15 to 20 minutes to read and try; a quarter of a minute to run.
#
# Run it as it stands, or open it in an editor that knows `# %%` cells (VS Code, PyCharm, Spyder, Jupyter with jupytext)
# and go cell by cell. Guess before you run: each **?** is a question that the cell below it answers.

# %%
from dataclasses import replace
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from rich import print

from training.bootstrap import Figure
from workshop.rounds import POPULAR, RECIPE, Arms, Learner, Oracle, play
from workshop.rounds_report import mean
from workshop.world import Floats, Plan

FIGURE = Path("var/lessons/freshness.svg")
ROUNDS, WORLDS = 8, 4
PERIODS = (1, 2, 4, 8)

# %% [markdown]
# ## A world whose truth is known
#
# Viewers with hidden tastes are shown lists of ten and watch what they like; what they watched is what the next model
# learns from. New viewers and new items arrive before every round. `docs/simulation.md` says what is assumed; think of
# a round as a day.
#
# **?** In which two ways does a model that was trained four days ago know less than it could?

# %%
plan = Plan(viewers=200, items=240)
print(plan)

# %% [markdown]
# 1. What it has **learnt** is old: it never met the newest items, and has seen fewer people. Only retraining helps.
# 2. What it is **told** is old: lists were made in the night, from histories that ended in the night. The same old
#    model can be asked again with the newest history: fold-in. That takes milliseconds, no training, and is what
#    nearline does with each event.
#
# Most platforms have one knob for both, the retraining job. Here they are apart: a period from one retraining to the
# next, and whether histories go on in between.


# %%
def arm(period: int, fold_in: bool) -> partial[Learner]:
    """Trained every so many rounds; asked with histories of now, or of the last training."""
    return partial(Learner, RECIPE, retrain_every=period, fold_in=fold_in)


arms: Arms = {
    "popular": partial(Learner, POPULAR, retrain_every=1, fold_in=True),
    **{f"nightly, every {period}": arm(period, fold_in=False) for period in PERIODS},
    **{f"nearline, every {period}": arm(period, fold_in=True) for period in PERIODS[1:]},
    "oracle": Oracle,
}

# %% [markdown]
# "Nightly, every 1" is retrained before every round: there is nothing left to fold in, so it has no twin.
#
# **?** Order these from the worst to the best before you look: nightly every 8, nearline every 8, nightly every 4,
# popular. And how far from the oracle is the best of them?


# %%
def watch_rates(world: Plan, some: Arms) -> Floats:
    """(worlds, arms) share of the places shown that was watched from, over all rounds."""
    return np.array([play(world, ROUNDS, seed, some).mean(axis=1) for seed in range(1, WORLDS + 1)])


names = list(arms)
rates = watch_rates(plan, arms)
for name, values in zip(names, rates.T, strict=True):
    figure = mean(values)
    print(f"{name:18} {figure.value:.3f}  [{figure.low:.3f}, {figure.high:.3f}]")

# %% [markdown]
# The intervals are over worlds. They are wide, since worlds differ; but every arm lived in the same worlds with the
# same dice, so what counts is the difference within each world.
#
# **?** Of what a daily retraining gains over the period you chose, how much does fold-in give without any?


# %%
def difference(one: str, other: str) -> Figure:
    """World by world."""
    return mean(rates[:, names.index(one)] - rates[:, names.index(other)])


shares = {}
for period in PERIODS[1:]:
    to_gain = difference("nightly, every 1", f"nightly, every {period}")
    by_folding = difference(f"nearline, every {period}", f"nightly, every {period}")
    shares[period] = by_folding.value / to_gain.value
    low, high = by_folding.low, by_folding.high
    print(f"every {period}: {to_gain.value:.3f} to gain, fold-in gains {by_folding.value:.3f} [{low:.3f}, {high:.3f}]")
    print(f"         that is {shares[period]:.0%} of it; trainings: {ROUNDS // period} instead of {ROUNDS}")
assert difference("nearline, every 8", "nightly, every 8").low > 0
assert difference("nightly, every 1", "nearline, every 8").low > 0

# %% [markdown]
# ## What is the rest?
#
# Fold-in cannot show what the model never met. **?** If no item were ever new, would nearline be enough?

# %%
two: Arms = {"nearline, never retrained": arms["nearline, every 8"], "retrained every round": arms["nightly, every 1"]}
gains = {"as above": difference("nightly, every 1", "nearline, every 8")}
for what, world in {
    "no new items": replace(plan, new_items=0.0),
    "twice as many new items": replace(plan, new_items=0.1),
}.items():
    never, always = watch_rates(world, two).T
    gains[what] = mean(always - never)
for what, gained in gains.items():
    print(f"{what:24} retraining adds {gained.value:.3f} [{gained.low:.3f}, {gained.high:.3f}] to fold-in")

# %% [markdown]
# Where nothing is new, about half is left to retraining (`WORLDS = 8` narrows the intervals): a model that was trained
# on the first days of a young platform gets better with every day. On a platform that has years of data that half
# shrinks; the one for new items does not.
#
# So: watch how fast *your* catalogue turns over before you choose a period; `MARQUEE_TRAIN_EVERY_SECONDS` is that knob,
# `MARQUEE_TRAIN_AFTER_EVENTS` the other one. And mind what this was: a world that we made ourselves. It shows which way
# things go when one number changes. It promises no number to you.
#
# ## Your figure

# %%
picture, axes = plt.subplots(figsize=(8, 4.4), layout="constrained")
places = np.arange(len(PERIODS))
for label, kind, colour, mark in (
    ("with nearline: histories of now", "nearline", "#0f7b6c", "^"),
    ("without: histories of the last training", "nightly", "#b35900", "v"),
):
    lost = [difference(f"{kind}, every {period}", "nightly, every 1") for period in PERIODS[1:]]
    middle, low, high = np.array([Figure(0.0, 0.0, 0.0), *lost]).T
    axes.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(places, middle, color=colour, marker=mark, label=label)
for place, period in enumerate(PERIODS[1:], 1):
    height = difference(f"nearline, every {period}", "nightly, every 1").value
    axes.annotate(f"{shares[period]:.0%}", (place, height), (6, 8), textcoords="offset points", color="#0f7b6c")
axes.axhline(0, color="0.7", linewidth=0.8, zorder=0)
axes.set_xticks(places, ["every round", *(f"every {period}" for period in PERIODS[1:-1]), "once"])
axes.margins(x=0.08)
axes.set(xlabel="how often the model is retrained", ylabel="watch rate beside retraining every round")
title = f"What a rare retraining costs, and how much of it fold-in gives back ({ROUNDS} rounds, {WORLDS} worlds)"
axes.set_title(title, loc="left", fontsize=11)
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False, loc="lower left")
FIGURE.parent.mkdir(parents=True, exist_ok=True)
picture.savefig(FIGURE)
print(f"Your figure: {FIGURE}")

# %% [markdown]
# ## Try this
#
# 1. `replace(plan, drift=0.5)`: tastes move fast. Which of the two remedies becomes worth less, and why?
# 2. `replace(plan, new_viewers=0.3)`: most viewers are new. What does a nightly list show to somebody who came today?
# 3. Look at the numbers by round (`play(...)` returns them): by which round has "nightly, every 8" come down to the
#    popular list?
# 4. `marquee audience --rounds 12` is the same with more people, and draws every round. Run it with `--users 50`: what
#    do the intervals say about a platform that has just begun?
