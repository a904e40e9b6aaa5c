"""The search for traces finds an id wherever the platform may keep one: without that, finding none proves nothing."""

from pathlib import Path

import polars as pl
import pytest

from infra.online_store import OnlineStore
from workshop.traces import find_traces

NEEDLE = "canary-7f3a-viewer"


def test_nothing_is_found_where_nothing_is(tmp_path: Path, store: OnlineStore) -> None:
    (tmp_path / "file").write_text("someone else")
    store.set("list:1:someone else", b"\x01")
    assert find_traces(NEEDLE, tmp_path, store) == []


def test_bytes_of_any_file_are_searched(tmp_path: Path, store: OnlineStore) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "ledger.db").write_bytes(b"\x00\xff" + NEEDLE.encode() + b"\x00")
    assert find_traces(NEEDLE, tmp_path, store) == [str(tmp_path / "deep" / "er" / "ledger.db")]


@pytest.mark.parametrize("dtype", [pl.String, pl.Binary])
def test_compressed_columns_of_parquet_are_searched(
    tmp_path: Path, store: OnlineStore, dtype: type[pl.DataType]
) -> None:
    people = [f"someone {n}" for n in range(5000)] + [NEEDLE] * 3
    pl.DataFrame({"user_id": people}).cast(dtype).write_parquet(
        tmp_path / "rows.parquet", compression="zstd", statistics=False
    )
    assert NEEDLE.encode() not in (tmp_path / "rows.parquet").read_bytes()
    assert find_traces(NEEDLE, tmp_path, store) == [str(tmp_path / "rows.parquet")]


@pytest.mark.parametrize("kind", ["key", "string", "hash", "set", "zset", "stream"])
def test_every_kind_of_redis_value_is_searched(tmp_path: Path, store: OnlineStore, kind: str) -> None:
    match kind:
        case "key":
            store.set(f"history:{NEEDLE}", b"")
        case "string":
            store.set("a", f"x{NEEDLE}x")
        case "hash":
            store.hset("a", "field", NEEDLE)
        case "set":
            store.sadd("a", NEEDLE)
        case "zset":
            store.zadd("a", {NEEDLE: 1})
        case _:
            store.xadd("a", {"k": NEEDLE})
    assert len(find_traces(NEEDLE, tmp_path, store)) == 1
