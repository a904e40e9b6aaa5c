"""Invented films and viewers: niches of films, and viewers whose tastes among the niches drift."""

from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ingest.events import Item, now
from workshop.datasets import TIME, Dataset, DatasetError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Strings = npt.NDArray[np.str_]

GENRES = (
    *("Adventure", "Animation", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("History", "Musical", "Mystery", "Romance", "Science Fiction", "Thriller", "Western"),
)
_FIRST = """
    Amber Borrowed Brass Broken Copper Crooked Distant Drowned Eleventh Faithful Forgotten Frozen Gilded Hidden Hollow
    Idle Ivory Last Lonely Lost Midnight Northern Painted Paper Patient Quiet Restless Rusted Salted Scarlet Secret
    Seventh Silent Silver Sleeping Southern Stolen Unwritten Velvet Wandering
"""
_SECOND = """
    Archive Bakery Bridge Caravan Cartographer Clockmaker Compass Courier Ferry Fiddler Garden Glacier Harbour Harvest
    Heirloom Island Lantern Letter Library Lighthouse Meadow Mirror Observatory Orchard Orchestra Passenger Postcard
    Promise Railway Recipe Riddle Shepherd Signal Staircase Station Suitcase Telescope Tide Violin Window
"""
_PATTERNS = ("The {} {}", "Beyond the {} {}", "Return to the {} {}", "Letters from the {} {}")

# A viewer has a few favourite niches, the first loved most; some of them change over time. The rest of what is watched
# are hits that everybody has heard of, or anything: popularity is worth something, knowing a person is worth more.
FILMS_A_NICHE = 30
MIN_NICHES = 24
SLOTS = (0.35, 0.25, 0.2, 0.12, 0.08)
DRIFT = 0.4
HITS = 0.15
EXPLORED = 0.08
DAYS = 60
ACTS_A_SESSION = 5
SESSION_DAYS = 3 / 24

# A viewer who has seen all of the favourite niches is given up on after so many draws, and takes anything.
DRAWS = 8


class _Films(NamedTuple):
    """Invented films. The number of a film is its row.

    Attributes:
        title, genre, second_genre, year: (films,) what is told of each; second_genre may be the same as genre.
        niche: (films,) the hidden taste that a film speaks to.
        fame: (films,) how often it is met, as Zipf has it; sums to 1.
    """

    title: Strings
    genre: Strings
    second_genre: Strings
    year: Ints
    niche: Ints
    fame: Floats


class _Acts(NamedTuple):
    """Who did what with which film, when; (acts,) each. `moment` runs from 0 to 1."""

    user: Ints
    film: Ints
    type: Strings
    moment: Floats


def generate(users: int, items: int, acts: int, seed: int = 1, until: datetime | None = None) -> Dataset:
    """Invented films and viewers, whose tastes drift over the last 60 days. Each acts with a film once at most.

    Args:
        users: number of viewers.
        items: number of films.
        acts: number of acts.
        seed: the same seed, sizes and `until` give the same data.
        until: time of the last acts; None: the present moment.

    Raises:
        DatasetError: so many acts do not fit so many viewers and films.
    """
    if users < 1 or items < 3 or not 0 <= acts <= users * (items // 3):
        raise DatasetError(f"{acts} acts of {users} viewers with {items} films: at most a third of all pairs can be.")
    rng = np.random.default_rng(seed)
    films = _invent_films(items, rng)
    drawn = _let_watch(users, acts, films, rng)
    begin_ms = int(((until or now()) - timedelta(days=DAYS)).timestamp() * 1000)
    frame = pl.DataFrame(
        {
            "user_id": _ids("viewer", users)[drawn.user],
            "item_id": _ids("film", items)[drawn.film],
            "type": pl.Series(drawn.type),
            "occurred_at": begin_ms + (drawn.moment * DAYS * 86_400_000).astype(np.int64),
        }
    ).with_columns(pl.from_epoch("occurred_at", "ms").cast(TIME))
    return Dataset(f"generated-{seed}", _film_items(films), frame.sort("occurred_at", "user_id", "item_id"))


def _invent_films(count: int, rng: np.random.Generator) -> _Films:
    """Invent films, in niches that share genres, with a popularity that has a long tail."""
    niches = max(MIN_NICHES, count // FILMS_A_NICHE)
    niche = rng.integers(niches, size=count)
    main, side = (rng.permutation(np.arange(niches) % len(GENRES)) for _ in range(2))
    second = np.where(rng.random(count) < 0.5, side[niche], main[niche])
    fame = 1 / (1 + rng.permutation(count)) ** 0.8
    year = 2025 - rng.exponential(14, count).astype(np.int64).clip(max=85)
    genres = np.array(GENRES)
    return _Films(_titles(count, rng), genres[main[niche]], genres[second], year, niche, fame / fame.sum())


def _let_watch(users: int, count: int, films: _Films, rng: np.random.Generator) -> _Acts:
    """Let viewers watch: mostly what their tastes of that moment point to, of that the more famous more often."""
    user = _who(users, count, len(films.fame), rng)
    moment = _when(user, users, rng)
    film, by_taste = _what(user, users, moment, films, rng)
    return _Acts(user, film, _how(by_taste, rng), moment)


def _titles(count: int, rng: np.random.Generator) -> Strings:
    every = [p.format(a, b) for p in _PATTERNS for a in _FIRST.split() for b in _SECOND.split()]
    order = rng.permutation(len(every))
    return np.array(
        [every[order[n % len(every)]] + (f" {n // len(every) + 1}" if n >= len(every) else "") for n in range(count)]
    )


def _who(users: int, count: int, films: int, rng: np.random.Generator) -> Ints:
    """(acts,) sorted: a few viewers watch a lot, and nobody more than half of all films."""
    eagerness = rng.lognormal(0, 0.7, users)
    each = np.minimum(rng.multinomial(count, eagerness / eagerness.sum()), films // 2)
    while missing := count - int(each.sum()):
        room = np.flatnonzero(each < films // 2)
        np.add.at(each, rng.choice(room, min(missing, len(room)), replace=False), 1)
    return np.repeat(np.arange(users), each)


def _when(user: Ints, users: int, rng: np.random.Generator) -> Floats:
    """(acts,) a viewer comes in evenings of a few acts each, from the day of joining on."""
    joined = rng.uniform(0, 0.7, users) * (rng.random(users) < 0.4)
    each = np.bincount(user, minlength=users)
    sessions = -(-each // ACTS_A_SESSION)
    first = np.concatenate([[0], np.cumsum(sessions)[:-1]])
    owner = np.repeat(np.arange(users), sessions)
    length = SESSION_DAYS / DAYS
    start = joined[owner] + rng.random(len(owner)) * (1 - length - joined[owner])
    session = first[user] + (rng.random(len(user)) * sessions[user]).astype(np.int64)
    moment: Floats = start[session] + rng.random(len(user)) * length
    return moment


def _what(
    user: Ints, users: int, moment: Floats, films: _Films, rng: np.random.Generator
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """(acts,) films, no pair of viewer and film twice; and whether taste led there."""
    early, late = _favourites(users, films, rng)
    film = np.full(len(user), -1)
    by_taste = np.zeros(len(user), bool)
    draws = 0
    while (missing := np.flatnonzero(film < 0)).size:
        has_drifted = rng.random(missing.size) < moment[missing]
        slot = rng.choice(len(SLOTS), size=missing.size, p=SLOTS)
        niche = np.where(has_drifted, late[user[missing], slot], early[user[missing], slot])
        why = rng.random(missing.size) if draws < DRAWS else np.ones(missing.size)
        hits = rng.choice(len(films.fame), size=missing.size, p=films.fame)
        anything = rng.integers(len(films.fame), size=missing.size)
        led = why < 1 - HITS - EXPLORED
        film[missing] = np.where(led, _from_niche(niche, films, rng), np.where(why < 1 - EXPLORED, hits, anything))
        by_taste[missing] = led
        film[_repeated(user, film)] = -1
        draws += 1
    return film, by_taste


def _favourites(users: int, films: _Films, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """(users, slots) favourite niches of each viewer on the first day and on the last."""
    niches = int(films.niche.max()) + 1
    early = rng.integers(niches, size=(users, len(SLOTS)))
    drifts = rng.random(early.shape) < DRIFT
    return early, np.where(drifts, rng.integers(niches, size=early.shape), early)


def _from_niche(niche: Ints, films: _Films, rng: np.random.Generator) -> Ints:
    """(acts,) a film of each niche, the famous more often."""
    order = np.argsort(films.niche, kind="stable")
    reach = np.concatenate([[0.0], np.cumsum(films.fame[order])])
    begin, end = (np.searchsorted(films.niche[order], niche, side) for side in ("left", "right"))
    point = reach[begin] + rng.random(len(niche)) * (reach[end] - reach[begin])
    found: Ints = order[(np.searchsorted(reach, point, "right") - 1).clip(begin, end - 1)]
    return found


def _repeated(user: Ints, film: Ints) -> Ints:
    """Positions of acts whose pair of viewer and film stands further up already."""
    pairs = np.where(film < 0, -1 - np.arange(len(film)), user * (film.max() + 1) + film)
    repeats = np.ones(len(film), bool)
    repeats[np.unique(pairs, return_index=True)[1]] = False
    return np.flatnonzero(repeats)


def _how(by_taste: npt.NDArray[np.bool_], rng: np.random.Generator) -> Strings:
    """(acts,) types: a match is finished and liked more often, a mismatch disliked now and then."""
    kinds = np.array(["play", "complete", "thumbs_up", "thumbs_down"])
    matched = rng.choice(kinds, size=len(by_taste), p=[0.5, 0.25, 0.24, 0.01])
    unmatched = rng.choice(kinds, size=len(by_taste), p=[0.7, 0.13, 0.05, 0.12])
    return np.where(by_taste, matched, unmatched)


def _ids(kind: str, count: int) -> pl.Series:
    """Ids of equal length, so that none is the beginning of another."""
    width = len(str(count))
    return pl.Series([f"{kind}-{number:0{width}d}" for number in range(count)], dtype=pl.String)


def _film_items(films: _Films) -> list[Item]:
    ids = _ids("film", len(films.title))
    return [
        Item(item_id=i, attributes={"title": title, "genres": list(dict.fromkeys([main, second])), "year": year})
        for i, title, main, second, year in zip(
            ids,
            films.title.tolist(),
            films.genre.tolist(),
            films.second_genre.tolist(),
            films.year.tolist(),
            strict=True,
        )
    ]
