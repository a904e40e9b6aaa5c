"""How far a search is, on the terminal."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from training.recipe import Recipe


class SearchBar:
    """A bar on stderr that shows the time, what is tried and what is best so far; nothing where that is no terminal.

    Args:
        seconds: how long the search may take; 0: not known.
    """

    def __init__(self, seconds: float) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("Searching"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._task = self._progress.add_task("", total=seconds or None)
        self._started = time.monotonic()
        self._best = ""
        self._highest = -1.0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def trying(self, recipe: Recipe) -> None:
        """Show what is tried now."""
        self._show(f"{self._best}trying {recipe.algorithm}")

    def tried(self, recipe: Recipe, ndcg: float) -> None:
        """Show it, if it is the best so far."""
        if ndcg > self._highest:
            self._highest, self._best = ndcg, f"best nDCG@10 {ndcg:.4f} ({recipe.algorithm}), "
        self._show(self._best)

    def _show(self, text: str) -> None:
        self._progress.update(self._task, completed=time.monotonic() - self._started, description=text)
