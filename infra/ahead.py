"""Steps ahead: the next pieces of work are begun before the last one is handed out."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T], steps: int = 1) -> Iterator[T]:
    """The items, each after the next ones were taken: where taking one begins its work, as many are under way.

    >>> def begun():
    ...     for name in "abc":
    ...         print("begin", name)
    ...         yield name
    >>> for name in ahead(begun()):
    ...     print("use", name)
    begin a
    begin b
    use a
    begin c
    use b
    use c

    Args:
        items: what to hand out.
        steps: how many are taken before they are asked for.
    """
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > steps:
            yield waiting.popleft()
    yield from waiting
