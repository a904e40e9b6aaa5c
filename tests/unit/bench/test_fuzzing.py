"""The fuzzing finds an API that does not keep to its document."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import pytest
import uvicorn
from fastapi import FastAPI, Query
from pydantic import BaseModel
from starlette.responses import JSONResponse

from bench.fuzzing import ASCII, fuzz
from bench.own_platform import free_ports


class Sum(BaseModel):
    sum: int


Number = Annotated[int, Query(ge=0, le=1000)]


def add(number: Number) -> Sum:
    return Sum(sum=number + 1)


def breaks_on_large_numbers(number: Number) -> Sum:
    return Sum(sum=1 // (number < 1000))


def answers_something_else(number: Number) -> JSONResponse:
    return JSONResponse({"sum": str(number)})


def answers_what_is_not_documented(number: Number) -> JSONResponse:
    return JSONResponse({"sum": number}, 418)


@contextmanager
def serving(route: Callable[..., object]) -> Iterator[str]:
    app = FastAPI()
    app.get("/add", response_model=Sum)(route)
    (port,) = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def test_an_api_that_keeps_to_its_document_passes() -> None:
    with serving(add) as url:
        found = fuzz(url, "key", 1, [ASCII])
    assert found.failures == []
    assert found.operations == 1
    assert found.cases > 5


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (breaks_on_large_numbers, "Server error: GET /add"),
        (answers_something_else, "Response violates schema: GET /add"),
        (answers_what_is_not_documented, "Undocumented status code: GET /add"),
    ],
)
def test_an_api_that_does_not_is_found(broken: Callable[..., object], says: str) -> None:
    with serving(broken) as url:
        assert says in fuzz(url, "key", 1, [ASCII]).failures


def test_where_nobody_answers_nothing_passes() -> None:
    (port,) = free_ports(1)
    assert fuzz(f"http://127.0.0.1:{port}", "key", 1).failures
