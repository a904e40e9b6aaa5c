"""BLAS on one thread: `implicit` has its own threads, and the two kinds together are many times slower."""

from contextlib import AbstractContextManager
from functools import cache
from typing import cast

from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]


def one_blas_thread() -> AbstractContextManager[object]:
    """A context in which BLAS works on one thread."""
    return cast("AbstractContextManager[object]", _controller().limit(limits=1, user_api="blas"))


@cache
def _controller() -> ThreadpoolController:
    # Looking for the loaded libraries takes milliseconds, too long to do for every list.
    return ThreadpoolController()
