"""Bodies of requests, read with limits: of length, also unpacked; of depth; of time."""

import re
import zlib
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import orjson
from anyio import fail_after
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from infra.http import Problem

BODY_SECONDS = 30.0
DEEPEST = 16
"""So many arrays and objects may stand within each other; what the APIs take has five."""

BODY_PROBLEMS: Final[Mapping[int, str]] = {
    400: "`malformed_json`, `malformed_gzip`: the body is none. `too_deep`: of more levels than anything here has.",
    408: f"`too_slow`: the body did not come within {BODY_SECONDS:.0f} seconds.",
    413: "`too_large`: the body is too long, as it was sent or unpacked.",
    415: "`unknown_encoding`: the body is packed by something else than gzip.",
}
"""A route's `responses`, as far as reading its body gives them."""

AnyModel = TypeVar("AnyModel", bound=BaseModel)

_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_ALIKE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKET = bytes(set(range(256)) - set(b'[]{}"'))
_STRING = re.compile(rb'"[^"]*+"')


async def read_json(request: Request, limit: int) -> Any:
    """The request's body, unpacked and decoded from JSON.

    Args:
        limit: most bytes of it, as it was sent and unpacked.

    Raises:
        Problem: one of BODY_PROBLEMS. It says where the body is wrong, and never repeats it.
    """
    body = await read_body(request, limit)
    too_deep = Problem(400, "too_deep", f"The body has more than {DEEPEST} arrays and objects within each other.")
    deeper = brackets_below(body, DEEPEST)
    if deeper > DEEPEST:
        raise too_deep  # before any of it is built
    try:
        decoded = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Problem(400, "malformed_json", f"The body is no JSON: it breaks at {where}.") from None
    if deeper:
        raise too_deep
    return decoded


async def read_model(request: Request, kind: type[AnyModel], limit: int) -> AnyModel:
    """The request's body, as a model has it.

    Args:
        kind: the model.
        limit: as of `read_json`.

    Raises:
        Problem: as `read_json` does.
        RequestValidationError: it is not of that form. What was sent is not repeated.
    """
    body = await read_json(request, limit)
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_input=False, include_context=False)) from None


async def read_body(request: Request, limit: int) -> bytes:
    """The request's body, counted while it arrives and is unpacked: what `Content-Length` says is not relied on.

    Raises:
        Problem: 408, 413, 415, or 400 `malformed_gzip`; each as soon as it is known.
    """
    too_large = Problem(413, "too_large", f"The body is longer than {limit} bytes. Send smaller batches.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    unpack = _Unpacking(limit) if _is_packed(request) else None
    body, sent = bytearray(), 0
    try:
        with fail_after(BODY_SECONDS):
            async for chunk in request.stream():
                sent += len(chunk)
                body += unpack(chunk) if unpack else chunk
                if max(sent, len(body)) > limit:
                    raise too_large
    except TimeoutError:
        detail = f"The body did not come within {BODY_SECONDS:.0f} seconds."
        raise Problem(408, "too_slow", detail, {"Connection": "close"}) from None
    if unpack:
        unpack.end()
    return bytes(body)


def brackets_below(body: bytes, levels: int) -> int:
    """0 if a JSON text is no deeper than so many levels; else how many opening brackets were left when that was plain.

    Takes out what stands in strings, then pairs with nothing in them, once a level, each in one pass of C.

    >>> brackets_below(b'{"a": [[], "[", {}]}', 3), brackets_below(b"[[[[]]], []]", 2) > 0
    (0, True)
    """
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    left = body.translate(_ALIKE, _NO_BRACKET).replace(b'""', b"")
    if b'"' in left:  # some strings have brackets in them
        left = _STRING.sub(b"", left)
    for level in range(levels, 0, -1):
        before = len(left)
        left = left.replace(b"[]", b"")
        # No level has more pairs than the one within it: what loses too few now does not end in time.
        if (before - len(left)) * level < before:
            break
    return left.count(b"[")


def _is_packed(request: Request) -> bool:
    encoding = ",".join(request.headers.getlist("content-encoding")).strip().lower()
    if encoding in ("", "identity"):
        return False
    if encoding == "gzip":
        return True
    raise Problem(415, "unknown_encoding", "Send the body as it is, or by gzip.", {"Accept-Encoding": "gzip"})


class _Unpacking:
    """Unpacks gzip as it comes, and never more than was asked for: a few bytes can stand for gigabytes."""

    def __init__(self, limit: int) -> None:
        self._most = limit + 1
        self._gzip = zlib.decompressobj(_GZIP_WINDOW)
        self._unpacked = 0

    def __call__(self, chunk: bytes) -> bytes:
        """What a chunk unpacks to; of more than the limit, as much as shows that it is more."""
        try:
            unpacked = self._gzip.decompress(chunk, self._most - self._unpacked) if chunk else b""
        except zlib.error:
            raise _malformed() from None
        self._unpacked += len(unpacked)
        return unpacked

    def end(self) -> None:
        """All has come: it has to be one whole packet."""
        if not self._gzip.eof or self._gzip.unused_data:
            raise _malformed()


def _malformed() -> Problem:
    return Problem(400, "malformed_gzip", "The body is not what gzip makes, or not all of it, or more.")
