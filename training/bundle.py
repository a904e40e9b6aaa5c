"""CONTRACT: the published model. Manifest, item table, histories, and the Redis keys and codecs of what is served.

A bundle holds item-side parameters only: no person is in it. It is a function from histories to ranked lists, and the
same function makes the lists that are published, the live lists of nearline, the evaluation and a session's answer.

Redis keys, each with its type, lifetime, one writer and readers:

| key                       | type   | lifetime | writer   | readers           | holds                                |
|---------------------------|--------|----------|----------|-------------------|--------------------------------------|
| `{version}:current`       | string | none     | publish  | serving, nearline | the version that is served           |
| `{version}:kept`          | set    | none     | publish  | publish, schedule | versions that may have keys          |
| `{version}:next`          | string | 1 h      | publish  | nearline          | the version being published          |
| `{version}:caught-up:{n}` | hash   | 1 h      | nearline | publish           | partition → 1: n's live lists stand  |
| `{version}:nearline`      | string | 10 s     | nearline | publish           | somebody will catch up               |
| `manifest:{n}`            | string | none     | publish  | serving           | the manifest, for lineage            |
| `bundle:{n}`              | string | lists'   | publish  | serving, nearline | the bundle, as `Bundle.dump` made it |
| `list:{n}:{user}`         | string | lists'   | publish  | serving           | the person's list: `encode_list`     |
| `live:{n}:{user}`         | string | lists'   | nearline | serving           | the same, with the newest events     |
| `{histories}:of:{user}`   | string | its      | nearline | nearline, serving | the history: `encode_history`        |
| `{histories}:popular`     | zset   | none     | nearline | serving           | item id → votes, time-decayed        |
| `{histories}:trending`    | zset   | none     | nearline | serving           | the same, with a shorter half-life   |
| `{histories}:landmarks`   | string | none     | nearline | nearline          | what a vote's weight is from         |
| `{histories}:written`     | zset   | none     | nearline | nearline          | user → when the history was written  |
| `{histories}:complete`    | hash   | none     | nearline | nearline          | what a lost store was rebuilt from   |
| `{histories}:rebuilding`  | string | 1 min    | nearline | nearline          | somebody rebuilds them               |
| `{items}:hidden`          | set    | none     | nearline | serving           | item ids that must not be shown      |
| `{items}:expiring`        | hash   | none     | nearline | serving           | item id → ms since 1970 it leaves at |
| `{training}:lock`         | string | 1 min    | the job  | the job           | who is training now                  |
| `{training}:attempts`     | string | none     | schedule | schedule          | runs begun since one ended           |
| `{training}:run`          | string | 30 s     | the job  | operator's API    | where a run stands, as JSON          |
| `{training}:last`         | string | none     | the job  | operator's API    | how the last run ended               |
| `{training}:asked`        | string | 1 min    | operator | schedule          | an operator wants a run              |
| `{training}:schedule`     | string | 15 s     | schedule | operator's API    | somebody would take that up          |

The words in braces stand in the keys with their braces, and around the person of a list they do, too: what is between
a key's first braces decides on which master of a Redis Cluster it lives. So what changes together is together, and so
are a person's lists. `n` is the number of a version; "its" lifetime is a setting, as the lists' is.

The operator's edge also reads which version is served and which bundles stand, a person's history, and how much room
lists and histories take.
"""

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from scipy import sparse

from training.recency import UNWEIGHTED, Histories, Recency

CURRENT = "{version}:current"
KEPT = "{version}:kept"
NEXT = "{version}:next"
ALIVE = "{version}:nearline"
HIDDEN = "{items}:hidden"
EXPIRING = "{items}:expiring"
POPULAR = "{histories}:popular"
TRENDING = "{histories}:trending"
LANDMARKS = "{histories}:landmarks"
WRITTEN = "{histories}:written"
COMPLETE = "{histories}:complete"
REBUILDING = "{histories}:rebuilding"
LOCK = "{training}:lock"
ATTEMPTS = "{training}:attempts"
RUN = "{training}:run"
LAST = "{training}:last"
ASKED = "{training}:asked"
SCHEDULE = "{training}:schedule"
FORMAT = 2

Indices = npt.NDArray[np.int32]
Scores = npt.NDArray[np.float32]


class BundleError(Exception):
    """Bytes that are no bundle, or were altered since they were made."""


def bundle_key(version: int) -> str:
    """Redis key of a version's bundle."""
    return f"bundle:{version}"


def manifest_key(version: int) -> str:
    """Redis key of a version's manifest."""
    return f"manifest:{version}"


def caught_up_key(version: int) -> str:
    """Redis key of the partitions whose newest events are in a version's live lists."""
    return f"{{version}}:caught-up:{version}"


def published_parts_key(version: int) -> str:
    """Redis key of the parts of a version's people whose lists stand: part → how many there are."""
    return f"published-parts:{version}"


def list_key(version: int, user_id: str) -> str:
    """Redis key of a person's published list."""
    return f"list:{version}:{{{user_id}}}"


def live_key(version: int, user_id: str) -> str:
    """Redis key of a person's live list."""
    return f"live:{version}:{{{user_id}}}"


def history_key(user_id: str) -> str:
    """Redis key of a person's history."""
    return f"{{histories}}:of:{user_id}"


def encode_list(item_indices: npt.NDArray[np.integer]) -> bytes:
    """A ranked list as packed little-endian uint32 item indices; the padding (-1) is left out.

    >>> decode_list(encode_list(np.array([7, 2, -1]))).tolist()
    [7, 2]
    """
    return item_indices[item_indices >= 0].astype("<u4").tobytes()


def decode_list(value: bytes) -> npt.NDArray[np.uint32]:
    """Item indices, best first. They mean something only beside the item table of the same version.

    Raises:
        ValueError: the value is no packed list.
    """
    return np.frombuffer(value, dtype="<u4")


# --- histories -------------------------------------------------------------------------------------------------------


class Interaction(NamedTuple):
    """What a history knows of one item.

    Attributes:
        at_ms: time of the newest event about it, in milliseconds since 1970.
        weight: what that event's type weighs; 0 for "seen, but no reason to recommend alike".
    """

    at_ms: int
    weight: float


History = dict[str, Interaction]
"""item_id → the newest interaction with it."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def milliseconds(moment: datetime) -> int:
    """Milliseconds since 1970, rounded down exactly: a float would be one off now and then.

    >>> milliseconds(datetime(1990, 1, 1, 0, 0, 0, 1999, tzinfo=UTC))
    631152000001
    """
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def add_to_history(history: History, item_id: str, interaction: Interaction, length: int) -> None:
    """Fold one interaction in, in place. The newest decides, of two as new the heavier; the `length` newest items stay.

    Folding the same interactions in any order and any number of times gives the same history.

    >>> history: History = {}
    >>> for at, weight in ((2, 0.0), (1, 1.0), (2, 0.0)):
    ...     add_to_history(history, "m1", Interaction(at, weight), length=10)
    >>> history
    {'m1': Interaction(at_ms=2, weight=0.0)}
    """
    if item_id not in history or interaction > history[item_id]:
        history[item_id] = interaction
    if len(history) > length:
        oldest = min(history, key=lambda item: (history[item], item))
        del history[oldest]


def encode_history(history: History) -> bytes:
    """A history's form in Redis: JSON, oldest first."""
    return orjson.dumps(sorted((at, weight, item) for item, (at, weight) in history.items()))


def decode_history(value: bytes | None) -> History:
    """From its form in Redis; of no value: an empty history."""
    if value is None:
        return {}
    return {item: Interaction(at, weight) for at, weight, item in orjson.loads(value)}


# --- the bundle ------------------------------------------------------------------------------------------------------


class Model(Protocol):
    """A function from histories to ranked lists. `training.algorithms.base.Algorithm` is its implementation."""

    def recommend(self, user_items: sparse.csr_matrix, k: int) -> tuple[Indices, Scores]:
        """Best items of each row that the row does not hold.

        Args:
            user_items: (rows, items) histories; values are weights, all above 0.

        Returns:
            item indices (rows, k), best first, padded with -1, and their scores (rows, k), padded with -inf.
        """
        ...

    def similar_items(self, item_index: int, k: int) -> tuple[Indices, Scores]:
        """The items most like this one, itself left out: indices and scores, both (k,) or shorter."""
        ...

    def contributions(self, user_items: sparse.csr_matrix, item_index: int) -> Scores:
        """What each item of one history adds to the score of an item: "because you watched …".

        Args:
            user_items: (1, items) history.
            item_index: the item that is explained.

        Returns:
            (nnz,) float32, aligned with the history's values; all 0 where the model does not look at the history.
        """
        ...


class Snapshot(BaseModel):
    """What a model was trained on.

    Attributes:
        version: the lake table's version. Erasures end time travel, so it may be gone; the digest stays.
        digest: SHA-256 of the interactions in canonical order.
        watermark: partition → offset up to which the log's events are in it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    digest: str
    watermark: dict[int, int]
    events: int
    users: int


class Manifest(BaseModel):
    """What a bundle is, and where it came from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    algorithm: str
    parameters: dict[str, Any]
    recency: Recency = UNWEIGHTED
    domain: str
    history_length: int
    snapshot: Snapshot
    code: str = Field(description="Commit of the code that trained it, or 'unknown'.")
    run_id: str
    trained_at: AwareDatetime
    metrics: dict[str, float]


class ItemTable(NamedTuple):
    """The items of a bundle; a row's number is the item's index in this version.

    Attributes:
        item_ids: (items,) in canonical order.
        attributes: (items,) what `PUT /v1/items` said of each: title, genres, …
        popularity: (items,) float32, number of people whose history speaks for it (weight above 0).
    """

    item_ids: tuple[str, ...]
    attributes: tuple[Mapping[str, Any], ...]
    popularity: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Bundle:
    """A published model, ready to recommend. Made by training, loaded anywhere by `load`."""

    manifest: Manifest
    items: ItemTable
    model: Model
    arrays: Mapping[str, npt.NDArray[Any]]

    @cached_property
    def item_index(self) -> Mapping[str, int]:
        """item_id → its index in this version."""
        return {item_id: index for index, item_id in enumerate(self.items.item_ids)}

    @cached_property
    def popular(self) -> Indices:
        """(items,) item indices, most popular first; of two as popular the lower index."""
        return np.lexsort((np.arange(len(self.items.item_ids)), -self.items.popularity)).astype(np.int32)

    def recommend(self, histories: Sequence[History], k: int) -> tuple[Indices, Scores]:
        """Ranked lists, none of whose items is in the history; popular items fill up what the model leaves empty.

        Args:
            histories: one a row. Items that the bundle does not know are passed over.

        Returns:
            item indices (rows, k), best first, padded with -1, and their scores (rows, k), padded with -inf.
        """
        return recommend(self.model, self.popular, self.rows(histories).weighted(self.manifest.recency), k)

    def rows(self, histories: Sequence[History]) -> Histories:
        """Histories over the items of this bundle."""
        indptr: list[int] = [0]
        known: list[tuple[int, Interaction]] = []
        for history in histories:
            known += sorted((self.item_index[i], seen) for i, seen in history.items() if i in self.item_index)
            indptr.append(len(known))
        indices = np.array([index for index, _ in known], np.int32)
        weights = np.array([seen.weight for _, seen in known], np.float32)
        shape = (len(histories), len(self.items.item_ids))
        user_items = sparse.csr_matrix((weights, indices, np.array(indptr, np.int32)), shape=shape)
        return Histories(user_items, np.array([seen.at_ms for _, seen in known], np.int64))

    def dump(self) -> bytes:
        """The bundle as a zip file of JSON and npy members: nothing in it is executed when it is read."""
        items = [
            {"item_id": i, "attributes": a} for i, a in zip(self.items.item_ids, self.items.attributes, strict=True)
        ]
        members = {"items.json": orjson.dumps(items), "popularity.npy": _npy(self.items.popularity)}
        members |= {f"arrays/{name}.npy": _npy(array) for name, array in self.arrays.items()}
        digests = {name: sha256(content).hexdigest() for name, content in members.items()}
        members["manifest.json"] = orjson.dumps({"manifest": self.manifest.model_dump(mode="json"), "sha256": digests})
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
            for name, content in members.items():
                file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        return buffer.getvalue()

    def digest(self) -> str:
        """SHA-256 of what the model does: recipe, items and arrays; not of when or by which run."""
        recipe = [self.manifest.algorithm, self.manifest.parameters, self.manifest.recency.model_dump()]
        digest = sha256(orjson.dumps(recipe, option=orjson.OPT_SORT_KEYS))
        digest.update(orjson.dumps(self.items.item_ids))
        for name in sorted(self.arrays):
            digest.update(name.encode() + _npy(self.arrays[name]))
        return digest.hexdigest()


def load(value: bytes) -> Bundle:
    """The bundle that `value` is the dump of.

    Raises:
        BundleError: it is none, it was altered, or it is of a format that this code does not know.
    """
    from training.algorithms import algorithm_named

    try:
        with zipfile.ZipFile(io.BytesIO(value)) as file:
            members = {name: file.read(name) for name in file.namelist()}
        envelope = orjson.loads(members.pop("manifest.json"))
        _check(members, envelope["sha256"])
        manifest = Manifest.model_validate(envelope["manifest"])
        if manifest.format != FORMAT:
            raise BundleError(
                f"bundle of format {manifest.format}, this code reads format {FORMAT}: update the readers first"
            )
        rows = orjson.loads(members["items.json"])
        items = ItemTable(
            tuple(row["item_id"] for row in rows),
            tuple(row["attributes"] for row in rows),
            _array(members["popularity.npy"]),
        )
        arrays = {
            name.removeprefix("arrays/").removesuffix(".npy"): _array(content)
            for name, content in members.items()
            if name.startswith("arrays/")
        }
        model = algorithm_named(manifest.algorithm).from_arrays(manifest.parameters, arrays)
    except BundleError:
        raise
    except Exception as error:
        raise BundleError(f"not a bundle: {type(error).__name__}: {error}") from error
    return Bundle(manifest, items, model, arrays)


def recommend(model: Model, popular: Indices, user_items: sparse.csr_matrix, k: int) -> tuple[Indices, Scores]:
    """Ranked lists for histories: the one function behind publish, nearline, sessions and evaluation.

    Args:
        model: fitted.
        popular: (items,) item indices, most popular first: they fill up what the model leaves empty.
        user_items: (rows, items) CSR; explicit zeros are items that were seen but speak for nothing.
        k: list length.

    Returns:
        item indices (rows, k), best first, padded with -1, and their scores (rows, k), padded with -inf.
    """
    rows, items = user_items.shape
    indices, scores = np.full((rows, k), -1, np.int32), np.full((rows, k), -np.inf, np.float32)
    positive = user_items.copy()
    positive.eliminate_zeros()
    extra = np.diff(user_items.indptr) - np.diff(positive.indptr)
    speaks = np.flatnonzero(np.diff(positive.indptr))
    if len(speaks):
        found, found_scores = model.recommend(positive[speaks], min(k + int(extra.max()), items))
        if extra[speaks].any():
            found, found_scores = _without_seen(found, found_scores, user_items[speaks])
        width = min(k, found.shape[1])
        indices[speaks, :width], scores[speaks, :width] = found[:, :width], found_scores[:, :width]
    for row in np.flatnonzero((indices < 0).any(axis=1)):
        _fill_up(indices[row], scores[row], popular, _row(user_items, row))
    return indices, scores


def _without_seen(found: Indices, scores: Scores, histories: sparse.csr_matrix) -> tuple[Indices, Scores]:
    """Lists without the items that the row holds with weight 0; what stands after them moves up.

    Args:
        found: (rows, any) item indices, best first, padded with -1.
        scores: theirs.
        histories: (rows, items) CSR.
    """
    rows, items = np.arange(histories.shape[0]), histories.shape[1]
    seen = np.repeat(rows, np.diff(histories.indptr)) * items + histories.indices
    seen = np.sort(seen[histories.data == 0])
    asked = rows[:, None] * items + found
    gone = seen[np.minimum(np.searchsorted(seen, asked), len(seen) - 1)] == asked
    order = np.argsort(gone, axis=1, kind="stable")
    left = ~np.take_along_axis(gone, order, axis=1)
    lists = np.where(left, np.take_along_axis(found, order, axis=1), -1)
    return lists, np.where(left, np.take_along_axis(scores, order, axis=1), -np.inf)


def _fill_up(places: Indices, scores: Scores, popular: Indices, seen: Indices) -> None:
    """Put popular items, neither seen nor there already, in place into what the model left empty; they score 0."""
    there = int(np.count_nonzero(places >= 0))
    taken = np.concatenate([seen, places[:there]])
    head = popular[: len(places) + len(taken)]
    filling = head[~np.isin(head, taken)][: len(places) - there]
    places[there : there + len(filling)] = filling
    scores[there : there + len(filling)] = 0.0


def _row(user_items: sparse.csr_matrix, row: np.integer[Any]) -> Indices:
    return user_items.indices[user_items.indptr[row] : user_items.indptr[row + 1]]


def _check(members: Mapping[str, bytes], digests: Mapping[str, str]) -> None:
    for name in {*members, *digests}:
        if name not in members or name not in digests or sha256(members[name]).hexdigest() != digests[name]:
            raise BundleError(f"bundle member {name} is missing or was altered")


def _npy(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def _array(content: bytes) -> npt.NDArray[Any]:
    return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
