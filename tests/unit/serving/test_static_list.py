"""The list that outlives the process."""

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from ingest.events import Domain
from serving.catalogue import Catalogue
from serving.fallback import Tier, choose
from serving.filters import Wanted
from serving.static_list import StaticList
from training.bundle import Bundle


def test_what_was_written_is_served_with_its_filters(tmp_path: Path, domain: Domain, cinema: Bundle) -> None:
    """The same items in the same order, as tier static of version 0; hidden ones were left out."""
    catalogue = Catalogue.of(3, cinema, domain.items, frozenset({"f00"}))
    StaticList(tmp_path / "new/static.json").write(catalogue, {"f01": 5, "f00": 6, "unknown": 7})
    kept, expiring = StaticList(tmp_path / "new/static.json").read(domain.items)
    tier, items, _ = choose(kept, None, Wanted(2))
    assert (kept.version, tier, expiring) == (0, Tier.STATIC, {"f01": 5})
    assert items == catalogue.popular(2)
    of_war = orjson.loads(b"[%b]" % choose(kept, None, Wanted(1, (("category", "War"),))).items)
    assert of_war[0]["genres"] == ["War"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["static.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"items":[{}],"expiring":{}}', b'{"items":[{"item_id":"a"}]}'])
def test_a_file_that_cannot_be_read_is_none(tmp_path: Path, domain: Domain, content: bytes) -> None:
    """Serving begins with nothing, as it does without a file."""
    (tmp_path / "static.json").write_bytes(content)
    catalogue, expiring = StaticList(tmp_path / "static.json").read(domain.items)
    assert (choose(catalogue, None, Wanted(2)), expiring) == ((Tier.STATIC, b"", 0), {})


def test_a_folder_that_cannot_be_written_disturbs_nobody(
    tmp_path: Path, domain: Domain, make_bundle: Callable[..., Bundle]
) -> None:
    """It is logged, and that is all."""
    (tmp_path / "file").touch()
    StaticList(tmp_path / "file/static.json").write(Catalogue.of(1, make_bundle(), domain.items), {})
