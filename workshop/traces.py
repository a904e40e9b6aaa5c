"""Looks for an id in everything the embedded platform keeps: the proof that someone was forgotten."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from infra.online_store import OnlineStore


def find_traces(needle: str, folder: Path, store: OnlineStore) -> list[str]:
    """Where `needle` still stands: files below the folder, Parquet's compressed values, Redis' keys and values.

    Args:
        needle: an id that is no part of another.
        folder: the platform's data folder.
        store: its online store, which holds the embedded event log as well.
    """
    found = [str(path) for path in sorted(folder.rglob("*")) if path.is_file() and _in_file(needle, path)]
    found += [f"redis {key!r}" for key in store.scan_iter(count=1000) if _in_key(needle.encode(), key, store)]
    return found


def _in_file(needle: str, path: Path) -> bool:
    try:
        content = path.read_bytes()
    except FileNotFoundError:  # A running platform: Redis' rewrite or a commit took it away.
        return False
    return needle.encode() in content or (path.suffix == ".parquet" and needle in _strings(path))


def _strings(parquet: Path) -> str:
    rows = pl.read_parquet(parquet, hive_partitioning=False)
    texts = rows.select(pl.selectors.string() | pl.selectors.binary())
    return "\n".join(str(value) for column in texts for value in column.unique())


def _in_key(needle: bytes, key: bytes, store: OnlineStore) -> bool:
    return needle in key or any(needle in part for part in _values(key, store))


def _values(key: bytes, store: Any) -> Iterator[bytes]:
    match store.type(key):
        case b"string":
            yield store.get(key) or b""
        case b"hash":
            yield from (part for pair in store.hgetall(key).items() for part in pair)
        case b"set":
            yield from store.smembers(key)
        case b"zset":
            yield from store.zrange(key, 0, -1)
        case b"stream":
            yield from (part for _, fields in store.xrange(key) for pair in fields.items() for part in pair)
