"""Invented tracks and listeners: what is data of a product, and no part of the platform.

Who watches films has tastes that last. Who listens to music is full of an artist or two for a week or so, plays what
they made again and again, and goes on to the next: in this world, what somebody did last says most of what comes next.
"""

from datetime import datetime, timedelta

import numpy as np
import polars as pl

from ingest.events import Item, now
from workshop.datasets import TIME, Dataset

GENRES = ("Ambient", "Blues", "Electronic", "Folk", "Hip-Hop", "Jazz", "Metal", "Pop", "Rock", "Soul")
TRACKS_AN_ARTIST = 12
DAYS = 60
PHASES = 8
"""Times in sixty days that a listener turns to other artists."""
ASTRAY = 0.15
"""Share of what is heard because everybody hears it."""


def music(listeners: int, tracks: int, acts: int, seed: int = 1, until: datetime | None = None) -> Dataset:
    """Tracks of artists, and listeners who go from artist to artist.

    Args:
        listeners: number of people.
        tracks: number of items.
        acts: number of acts; somebody may act on a track more than once.
        seed: the same seed, sizes and `until` give the same data.
        until: time of the last acts; None: the present moment.
    """
    rng = np.random.default_rng(seed)
    artist = np.arange(tracks) // TRACKS_AN_ARTIST
    artists = int(artist[-1]) + 1
    genre = rng.integers(len(GENRES), size=artists)
    fame = 1 / (1 + rng.permutation(tracks)) ** 0.8
    # Neighbours in sound: who is full of one artist turns to another of the genre next, more often than not.
    at_first = rng.integers(artists, size=(listeners, PHASES))
    follows = rng.random((listeners, PHASES)) < 0.6
    for phase in range(1, PHASES):
        alike = [rng.choice(np.flatnonzero(genre == genre[one])) for one in at_first[:, phase - 1]]
        at_first[:, phase] = np.where(follows[:, phase], alike, at_first[:, phase])

    who, moment = rng.integers(listeners, size=acts), rng.random(acts)
    of_artist = at_first[who, (moment * PHASES).astype(int)]
    chosen = of_artist * TRACKS_AN_ARTIST + rng.integers(TRACKS_AN_ARTIST, size=acts)
    heard = rng.choice(tracks, size=acts, p=fame / fame.sum())
    astray = (rng.random(acts) < ASTRAY) | (chosen >= tracks)
    kind = np.where(astray, rng.choice(["listen", "skip"], acts, p=[0.6, 0.4]), rng.choice(["listen", "like"], acts))
    begin_ms = int(((until or now()) - timedelta(days=DAYS)).timestamp() * 1000)
    rows = pl.DataFrame(
        {
            "user_id": [f"listener-{one:04}" for one in who],
            "item_id": [f"track-{one:04}" for one in np.where(astray, heard, chosen)],
            "type": kind.tolist(),
            "occurred_at": begin_ms + (moment * DAYS * 86_400_000).astype(np.int64),
        }
    ).with_columns(pl.from_epoch("occurred_at", "ms").cast(TIME))
    items = [
        Item(
            item_id=f"track-{one:04}",
            attributes={
                "title": f"Take {one % TRACKS_AN_ARTIST + 1}",
                "artist": f"Artist {artist[one] + 1}",
                "genres": [GENRES[genre[artist[one]]]],
                "year": int(rng.integers(1965, 2026)),
                "minutes": round(float(rng.uniform(2, 8)), 1),
            },
        )
        for one in range(tracks)
    ]
    return Dataset(f"music-{seed}", items, rows.sort("occurred_at", "user_id", "item_id"))
