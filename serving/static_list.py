"""The list that outlives the process: popular items in a file, for a process that starts while the store is down."""

import os
import tempfile
from pathlib import Path
from typing import Any

import orjson
import structlog

from ingest.events import ItemRules
from serving.catalogue import MOST_POPULAR, Catalogue, Items, empty_catalogue
from serving.filters import Wanted


class StaticList:
    """Keeps the popular list in a file. Whatever the file system does, serving goes on without it.

    Args:
        path: of the file; its folder is made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = structlog.get_logger()

    def read(self, rules: ItemRules) -> tuple[Catalogue, dict[str, int]]:
        """A catalogue of version 0 with what the file holds, and when its items expire (milliseconds since 1970)."""
        try:
            kept = orjson.loads(self._path.read_bytes())
            attributes: list[dict[str, Any]] = kept["items"]
            item_ids = [of_item.pop("item_id") for of_item in attributes]
            items = Items.render(item_ids, attributes, range(len(item_ids)), rules)
            return Catalogue(0, None, items), {str(item_id): int(until) for item_id, until in kept["expiring"].items()}
        except FileNotFoundError:
            pass
        except Exception as error:  # a file that somebody else wrote into is as good as none
            self._log.warning("static_list_unreadable", error=type(error).__name__)
        return empty_catalogue(), {}

    def write(self, catalogue: Catalogue, expiring: dict[str, int]) -> None:
        """Replace the file, at once and whole, by the catalogue's most popular items."""
        popular = catalogue.popular_for(Wanted(MOST_POPULAR))
        shown = {catalogue.items.ids[index] for index in popular}
        times = orjson.dumps({item_id: until for item_id, until in expiring.items() if item_id in shown})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)
            with os.fdopen(handle, "wb") as file:
                file.write(b'{"items":[%b],"expiring":%b}' % (catalogue.join(popular), times))
            os.replace(name, self._path)
        except OSError as error:
            self._log.warning("static_list_unwritable", error=type(error).__name__)
