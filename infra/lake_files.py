"""Where the lake's files are: in a folder, or in a bucket. What deltalake does not do by itself is done here.

A lake in a bucket stands on one promise of its store: that of two writers who create the same object one is refused
(a conditional put, `If-None-Match: *`). Delta's commits are such objects. A store without it would take both, the
second over the first, and rows would be lost without a word; so it is tried before anything is written.
"""

import time
import uuid
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

SECOND = 1.1
"""Longer than the second to which a bucket tells when an object was made."""


class UnsafeStore(Exception):
    """The bucket takes a second object of the same name: two landers would lose rows in it."""


class LakeFile(NamedTuple):
    """A file of a table.

    Attributes:
        name: its path below the table's root.
        made: when it was last written, as a number that only compares with others of the same lake.
    """

    name: str
    made: float


class LakeFiles(Protocol):
    """Files of the tables, by their names below a table's root."""

    def address(self, table: str) -> str:
        """What deltalake opens."""
        ...

    def check(self) -> None:
        """See that commits are safe here.

        Raises:
            UnsafeStore: see there.
        """
        ...

    def wait(self) -> None:
        """Wait until whatever is written from now on can be told, by when it was made, from what is there."""
        ...

    def of(self, table: str) -> Iterator[LakeFile]:
        """All of a table, Delta's log included."""
        ...

    def made(self, table: str, name: str) -> float:
        """When one was made."""
        ...

    def remove(self, table: str, name: str) -> None:
        """Remove one; if it is gone, all is well."""
        ...


class FolderFiles:
    """Files in a folder, where a commit is a link that is there or not.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def address(self, table: str) -> str:
        """See `LakeFiles.address`."""
        return str(self._root / table)

    def check(self) -> None:
        """See `LakeFiles.check`."""

    def wait(self) -> None:
        """See `LakeFiles.wait`: file systems tell nanoseconds."""

    def of(self, table: str) -> Iterator[LakeFile]:
        """See `LakeFiles.of`."""
        root = self._root / table
        for path in root.rglob("*"):
            if path.is_file():
                yield LakeFile(path.relative_to(root).as_posix(), path.stat().st_mtime_ns)

    def made(self, table: str, name: str) -> float:
        """See `LakeFiles.made`."""
        return (self._root / table / name).stat().st_mtime_ns

    def remove(self, table: str, name: str) -> None:
        """See `LakeFiles.remove`."""
        (self._root / table / name).unlink(missing_ok=True)


class BucketFiles:
    """Objects in a bucket: `s3://bucket/prefix`. Keys, region and endpoint are AWS's own variables.

    Args:
        url: of the lake.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        parts = urlsplit(self._url)
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")

    def address(self, table: str) -> str:
        """See `LakeFiles.address`."""
        return f"{self._url}/{table}"

    def check(self) -> None:
        """See `LakeFiles.check`: an object is created twice, and the second time has to be refused."""
        probe = self._key("", f"_commits-are-safe/{uuid.uuid4()}")
        with _answering():
            self._create(probe, b"1")
            try:
                self._create(probe, b"2")
            except AlreadyExistsError:
                return
            finally:
                obstore.delete(self._store, probe)
        raise UnsafeStore(
            f"{self._url} takes a second object of the same name, so two landers would lose rows in it. Use a store "
            "with conditional writes (If-None-Match), or a folder."
        )

    def wait(self) -> None:
        """See `LakeFiles.wait`."""
        time.sleep(SECOND)

    def of(self, table: str) -> Iterator[LakeFile]:
        """See `LakeFiles.of`."""
        root = self._key(table, "") + "/"
        with _answering():
            for some in obstore.list(self._store, prefix=root.rstrip("/")):
                for found in some:
                    yield LakeFile(str(found["path"]).removeprefix(root), found["last_modified"].timestamp())

    def made(self, table: str, name: str) -> float:
        """See `LakeFiles.made`."""
        with _answering():
            return float(obstore.head(self._store, self._key(table, name))["last_modified"].timestamp())

    def remove(self, table: str, name: str) -> None:
        """See `LakeFiles.remove`."""
        with _answering():
            obstore.delete(self._store, self._key(table, name))

    def _create(self, key: str, value: bytes) -> None:
        obstore.put(self._store, key, value, mode="create")

    @cached_property
    def _store(self) -> Any:
        return S3Store(self._bucket)

    def _key(self, table: str, name: str) -> str:
        return "/".join(part for part in (self._prefix, table, name) if part)


class _answering:  # noqa: N801
    """Has the bucket's errors be those of the operating system, as a folder's are."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, BaseError) and not isinstance(error, AlreadyExistsError):
            raise OSError(str(error)) from error


def files_at(uri: str) -> LakeFiles:
    """The files of the lake at this address.

    Raises:
        ValueError: it is neither a folder nor a bucket.
    """
    if uri.startswith("s3://"):
        return BucketFiles(uri)
    if "://" in uri and not uri.startswith("file://"):
        raise ValueError(f"The lake is kept in a folder or in s3://bucket/prefix; {uri} is neither.")
    return FolderFiles(Path(uri.removeprefix("file://")))
