"""A body is read no further than was said: in length, packed or not; in depth; in time."""

import asyncio
import gzip
import json
import random
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request

from infra import bodies
from infra.bodies import DEEPEST, brackets_below, read_json
from infra.http import install_problem_handlers

LIMIT = 10_000


def build() -> FastAPI:
    app = FastAPI()
    install_problem_handlers(app)

    @app.post("/read")
    async def read(request: Request) -> Any:
        return await read_json(request, LIMIT)

    return app


def post(content: Any, **headers: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(build()), base_url="http://test") as client:
            return await client.post("/read", content=content, headers=headers)

    return asyncio.run(ask())


def packed(content: bytes) -> httpx.Response:
    return post(content, **{"Content-Encoding": "gzip"})


def said(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


# --- JSON ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("body", "found"), [(b'{"n":1}', {"n": 1}), (b"[1,2,3,4]", [1, 2, 3, 4]), (b" null ", None)])
def test_a_body_is_read(body: bytes, found: Any) -> None:
    assert post(body).json() == found


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"NaN", b'"\\ud800"', b"{'a':1}", b"1 2", b"[}", b'"', b"\\", b"[" * 9, b"]" * 99]
)
def test_a_body_that_is_no_json_is_malformed(body: bytes) -> None:
    assert said(post(body)) == (400, "malformed_json")


def nested(levels: int, each: str = "[") -> bytes:
    closed = {"[": "]", "{": "}"}
    opened = "".join('{"a":' if one == "{" else "[" for one in (each * levels)[:levels])
    return (opened + "1" + "".join(closed[one] for one in reversed((each * levels)[:levels]))).encode()


@pytest.mark.parametrize("each", ["[", "{", "[{", "{[["])
def test_a_body_may_have_16_levels_and_no_more(each: str) -> None:
    assert post(nested(DEEPEST, each)).json() == json.loads(nested(DEEPEST, each))
    for levels in (DEEPEST + 1, 2 * DEEPEST, 1500):
        assert said(post(nested(levels, each))) == (400, "too_deep")


def test_of_what_is_far_too_deep_nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies.orjson, "loads", lambda _: pytest.fail("built"))
    for body in (nested(2 * DEEPEST + 1), b"[" * LIMIT, b'{"a":[' * 1000):
        assert said(post(body)) == (400, "too_deep")


@pytest.mark.parametrize(
    "text", ["[" * 50, "{" * 50, '"[' * 50, "\\" * 50 + "[" * 50, '\\"[[[' * 20, "\\", "é\n\u2028]["]
)
def test_brackets_in_strings_do_not_count(text: str) -> None:
    for body in ({text: [text, {"a": text}]}, [text, [], text]):
        assert post(json.dumps(body).encode()).json() == body


def _any_json(chance: random.Random, levels: int) -> Any:
    kind = chance.randrange(6 if levels else 4)
    if kind < 4:
        return [None, 7, "".join(chance.choices('[]{}"\\ab', k=chance.randrange(6))), True][kind]
    some = [_any_json(chance, levels - 1) for _ in range(chance.randrange(4))]
    return some if kind == 4 else {f'{n}"[{{\\': each for n, each in enumerate(some)}


def _depth(value: Any) -> int:
    inside = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else None
    return 0 if inside is None else 1 + max(map(_depth, inside), default=0)


def test_levels_are_counted_as_json_has_them() -> None:
    """Of ten thousand texts with brackets, quotes and backslashes wherever they may be."""
    chance = random.Random(7)
    for _ in range(10_000):
        value, levels = _any_json(chance, 6), chance.randrange(7)
        text = json.dumps(value, indent=chance.choice([None, 1])).encode()
        assert (brackets_below(text, levels) == 0) == (_depth(value) <= levels), text


# --- length ----------------------------------------------------------------------------------------------------------


def test_a_long_body_is_too_large_whether_or_not_it_says_so() -> None:
    async def in_pieces() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b" " * 1000

    for content in (b" " * (LIMIT + 1), in_pieces()):
        assert said(post(content)) == (413, "too_large")
    assert said(post(b" " * LIMIT)) == (400, "malformed_json")


def test_a_packed_body_is_unpacked_in_whatever_pieces_it_comes() -> None:
    body = json.dumps(list(range(1500))).encode()
    sent = gzip.compress(body)

    async def in_pieces(size: int) -> AsyncIterator[bytes]:
        for start in range(0, len(sent), size):
            yield sent[start : start + size]

    for size in (1, 7, 4096):
        assert packed(in_pieces(size)).json() == json.loads(body)  # type: ignore[arg-type]
    assert post(body, **{"Content-Encoding": "identity"}).json() == json.loads(body)
    assert post(sent, **{"Content-Encoding": " GZIP "}).json() == json.loads(body)


def test_what_unpacks_to_more_than_the_limit_is_too_large() -> None:
    assert packed(gzip.compress(b"[" + b" " * (LIMIT - 2) + b"]")).json() == []
    assert said(packed(gzip.compress(b"[" + b" " * (LIMIT - 1) + b"]"))) == (413, "too_large")
    assert said(packed(gzip.compress(random.Random(7).randbytes(LIMIT)))) == (413, "too_large")


BOMB = gzip.compress(b" " * 2**25, 9)[:LIMIT]
"""Ten kilobytes that stand for ten megabytes."""


def _peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_a_bomb_is_never_unpacked() -> None:
    """It is refused when it has shown more than the limit; and the test finds a way of unpacking that does not stop."""
    assert said(packed(BOMB)) == (413, "too_large")
    unpacking = bodies._Unpacking(LIMIT)
    assert _peak(lambda: unpacking(BOMB)) < 20 * LIMIT
    assert _peak(lambda: zlib.decompressobj(31).decompress(BOMB)) > 500 * LIMIT


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", gzip.compress(b"[]")[:-1], gzip.compress(b"[]") + b"x", gzip.compress(b"[]") * 2,
     gzip.compress(b"[1]")[:-8] + b"\0" * 8, zlib.compress(b"[]"), b"\x1f\x8b"],
    ids=["nothing", "not packed", "cut short", "more behind", "two", "another sum", "another kind", "its first bytes"],
)  # fmt: skip
def test_what_is_not_one_whole_packet_is_refused(body: bytes) -> None:
    assert said(packed(body)) == (400, "malformed_gzip")


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "identity, gzip", "x", "gzip;q=1"])
def test_another_encoding_is_refused_with_what_is_taken(encoding: str) -> None:
    answer = post(gzip.compress(b"[]"), **{"Content-Encoding": encoding})
    assert said(answer) == (415, "unknown_encoding")
    assert answer.headers["accept-encoding"] == "gzip"


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A real server that waits .3 s for a body."""
    monkeypatch.setattr("infra.bodies.BODY_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(build(), loop="uvloop", http="httptools", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(20)


def test_who_sends_a_body_by_drops_is_cut_off(port: int) -> None:
    """Answered, and the connection closed, though a byte came again and again."""
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        client.sendall(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n[")
        client.settimeout(0.05)
        received, end = b"", time.monotonic() + 20
        while time.monotonic() < end:
            try:
                if not (more := client.recv(65536)):
                    break
                received += more
            except TimeoutError:
                client.sendall(b" ")
            except ConnectionError:
                break
    assert received.startswith(b"HTTP/1.1 408")
    assert b"too_slow" in received
    assert time.monotonic() < end
