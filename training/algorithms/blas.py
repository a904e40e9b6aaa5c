"""BLAS on one thread: more would sum in another order, and beside the threads of `implicit` they are far slower."""

from contextlib import AbstractContextManager
from functools import cache
from typing import cast

# Loaded before anybody looks for it: scipy brings a BLAS of its own beside numpy's.
import scipy.linalg  # noqa: F401
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]


def one_blas_thread() -> AbstractContextManager[object]:
    """A context in which BLAS works on one thread."""
    return cast("AbstractContextManager[object]", _controller().limit(limits=1, user_api="blas"))


@cache
def _controller() -> ThreadpoolController:
    # Looking for the loaded libraries takes milliseconds, too long to do for every list.
    return ThreadpoolController()
