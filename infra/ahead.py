"""One step ahead: the next piece of work is begun before the last one is handed out."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def one_ahead(items: Iterable[T]) -> Iterator[T]:
    """The items, each after the next one was taken: where taking one begins its work, one is always under way.

    >>> def begun():
    ...     for name in "abc":
    ...         print("begin", name)
    ...         yield name
    >>> for name in one_ahead(begun()):
    ...     print("use", name)
    begin a
    begin b
    use a
    begin c
    use b
    use c
    """
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting
