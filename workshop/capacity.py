"""What a load needs, on paper: from what one of each thing was measured to do, and from assumptions that are all named.

A plan is arithmetic. It says which order of size to expect and what gives way first; what your machines do, only a
measurement on them says (`make bench-serving`, `make bench-ingest`, `make bench-training`, `python -m bench.units`).
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

DAY = 86_400
GB = 10**9
RESULTS = Path(__file__).parents[1] / "bench/results"


class UnitsMissing(Exception):
    """The measured units are not to be had; the message says which file, and what makes it."""


class Load(NamedTuple):
    """What is asked of the platform.

    Attributes:
        users: people who allow personalization.
        events_per_day: accepted.
        requests_per_second: for lists, at the peak.
        items: in the catalogue.
    """

    users: int
    events_per_day: int
    requests_per_second: float
    items: int


class Assumptions(NamedTuple):
    """What nobody measured.

    Attributes:
        peak: events a second at the peak, of the day's mean.
        headroom: share of what was measured that is planned with.
        kept_days: how many days of events are trained on.
        history_items: of a person, on average.
        cores: of a machine.
        memory_gb: of a machine.
        retention_days: of Kafka's topic.
        replicas: of each record in Kafka.
        shard_gb: of data in one Redis process, at most.
        iterations: of fitting; the hold-out's and the final one, so twice as many.
        retrain_hours: a retraining has to be over in this time.
        broker_feeds: ingest processes that one broker keeps up with.
        process_gb: memory of a process that is not training or a store.
        factors: length of the model's vectors.
    """

    peak: float = 3.0
    headroom: float = 0.6
    kept_days: int = 365
    history_items: int = 100
    cores: int = 8
    memory_gb: int = 32
    retention_days: int = 7
    replicas: int = 3
    shard_gb: float = 12.0
    iterations: int = 15
    retrain_hours: float = 6.0
    broker_feeds: float = 4.0
    process_gb: float = 0.3
    factors: int = 64


class Units(NamedTuple):
    """What one does, or takes, and where that was measured; bytes and seconds.

    Attributes:
        ingest: events a second of one process, in batches of 50, durable on Kafka.
        land: events a second of one lander.
        fold: events a second of one nearline worker.
        serve: lists a second of one worker.
        list_bytes: in Redis, of a person's published list.
        history_bytes: in Redis, of one item of a history.
        consent_bytes: in Redis, of a person.
        lake_bytes: of an event.
        log_bytes: of an event.
        read: rows of the lake a second.
        fit: interactions a second and iteration.
        publish: lists a second.
        read_bytes: memory of a row of the lake while it is read.
    """

    ingest: float
    land: float
    fold: float
    serve: float
    list_bytes: float
    history_bytes: float
    consent_bytes: float
    lake_bytes: float
    log_bytes: float
    read: float
    fit: float
    publish: float
    read_bytes: float


class Part(NamedTuple):
    """What one part of the platform needs.

    Attributes:
        name: of the part.
        many: processes, brokers or shards.
        what: one of them is.
        cores: that they keep busy, all together.
        memory_gb: that they hold.
        disk_gb: that they fill.
        used: share of what one process, or one machine, can do; above 1 it takes more.
        because: the arithmetic, in words.
    """

    name: str
    many: int
    what: str
    cores: float
    memory_gb: float
    disk_gb: float
    used: float
    because: str


class Plan(NamedTuple):
    """What a load needs.

    Attributes:
        parts: in the order of the road of the data.
        machines: of the assumed kind, one of them for training, however large that has to be.
        partitions: of Kafka's topic.
        shards: of Redis, without replicas.
        training_hours: of one retraining in one process.
        training_gb: of memory, of the same.
        first: name of the part that reaches the end of its one process, or machine, first as the load grows.
        factor: by how much the load may grow until then; below 1 it has gone by.
    """

    parts: tuple[Part, ...]
    machines: int
    partitions: int
    shards: int
    training_hours: float
    training_gb: float
    first: str
    factor: float


def read_units(folder: Path = RESULTS) -> Units:
    """The units, from the result files of the benchmarks.

    Raises:
        UnitsMissing: see there.
    """
    serving = _read(folder, "serving.json", "make bench-serving")
    ingest = _read(folder, "ingest.json", "make bench-ingest")
    units = _read(folder, "units.json", "python -m bench.units")
    training = _read(folder, "training.json", "make bench-training LARGE=1")
    try:
        size = max(training["sizes"], key=lambda one: one["interactions"])
        memory = size["measured"]["memory"]
        return Units(
            ingest=ingest["events_per_second"],
            land=units["landed_per_second"],
            fold=serving["replayed_events"] / serving["replay_seconds"],
            serve=serving["requests_per_second"]["ours"],
            list_bytes=serving["bytes_per_user"],
            history_bytes=units["history_bytes"] / units["history_items"],
            consent_bytes=units["consent_bytes"],
            lake_bytes=units["lake_bytes_an_event"],
            log_bytes=units["log_bytes_an_event"],
            read=size["rows_per_second"],
            fit=memory["nnz"] / size["fit_seconds_an_iteration"],
            publish=size["lists_per_second"],
            read_bytes=memory["read_peak_bytes"] / memory["rows"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UnitsMissing(f"a result file in {folder} is of another form: {error!r}; measure again") from error


def plan(load: Load, units: Units, assumed: Assumptions = Assumptions()) -> Plan:  # noqa: B008
    """What a load needs.

    >>> units = Units(1e4, 3e4, 1e4, 2e4, 500, 30, 100, 40, 250, 1e6, 5e6, 5e3, 30)
    >>> small = plan(Load(100_000, 1_000_000, 100, 10_000), units)
    >>> small.partitions, small.shards, small.first, small.machines
    (4, 1, 'training', 2)
    """
    peak = load.events_per_day / DAY * assumed.peak
    parts = (
        _stateless("ingest", peak, units.ingest, "events/s at the peak", assumed),
        _kafka(load, peak, units, assumed),
        _stateless("land", peak, units.land, "events/s at the peak", assumed),
        _lake(load, units, assumed),
        _training(load, units, assumed),
        _redis(load, units, assumed),
        _stateless("nearline", peak, units.fold, "events/s at the peak", assumed),
        _stateless("serve", load.requests_per_second, units.serve, "lists/s", assumed),
    )
    by_name = {part.name: part for part in parts}
    consumers = max(by_name["land"].many, by_name["nearline"].many)
    first = max(parts, key=lambda part: part.used)
    always = [part for part in parts if part.name != "training"]
    cores, memory = sum(part.cores for part in always), sum(part.memory_gb for part in always)
    return Plan(
        parts=parts,
        machines=1 + max(1, math.ceil(cores / assumed.cores), math.ceil(memory / assumed.memory_gb)),
        partitions=max(4, 2 ** math.ceil(math.log2(2 * consumers))),
        shards=by_name["redis"].many,
        training_hours=_training_hours(load, units, assumed),
        training_gb=by_name["training"].memory_gb,
        first=first.name,
        factor=1 / first.used,
    )


def _stateless(name: str, wanted: float, does: float, what: str, assumed: Assumptions) -> Part:
    used = wanted / (does * assumed.headroom)
    because = f"{wanted:,.0f} {what}; one does {does:,.0f}, planned with {assumed.headroom:.0%} of it"
    count = max(1, math.ceil(used))
    return Part(name, count, "process", used, assumed.process_gb * count, 0.0, used, because)


def _kafka(load: Load, peak: float, units: Units, assumed: Assumptions) -> Part:
    kept = load.events_per_day * assumed.retention_days * units.log_bytes / GB
    used = peak / (units.ingest * assumed.headroom * assumed.broker_feeds)
    brokers = 1 if used < 1 else max(assumed.replicas, math.ceil(used * assumed.replicas))
    because = f"{assumed.retention_days} days of {units.log_bytes:.0f} bytes an event" + (
        f", {assumed.replicas} replicas" if brokers > 1 else ""
    )
    copies = assumed.replicas if brokers > 1 else 1
    return Part("kafka", brokers, "broker", used * copies, float(brokers), kept * copies, used, because)


def _lake(load: Load, units: Units, assumed: Assumptions) -> Part:
    size = load.events_per_day * assumed.kept_days * units.lake_bytes / GB
    because = f"{assumed.kept_days} days of {units.lake_bytes:.0f} bytes an event"
    return Part("lake", 1, "folder", 0.0, 0.0, size, 0.0, because)


def _training(load: Load, units: Units, assumed: Assumptions) -> Part:
    acts, interactions = _learned_from(load, assumed)
    memory = (acts * units.read_bytes + (load.users + load.items) * assumed.factors * 4) / GB
    hours = _training_hours(load, units, assumed)
    used = max(hours / assumed.retrain_hours, memory / assumed.memory_gb)
    because = (
        f"{acts:,.0f} acts of {assumed.kept_days} days, {interactions:,.0f} interactions: {hours:.1f} h and "
        f"{memory:,.0f} GB in one process"
    )
    return Part("training", 1, "process", min(1.0, hours / assumed.retrain_hours), memory, 0.0, used, because)


def _learned_from(load: Load, assumed: Assumptions) -> tuple[int, int]:
    """Acts that are read, and interactions that are fitted on."""
    acts = load.events_per_day * assumed.kept_days
    return acts, min(acts, load.users * assumed.history_items)


def _training_hours(load: Load, units: Units, assumed: Assumptions) -> float:
    acts, interactions = _learned_from(load, assumed)
    fits = 2 * assumed.iterations * interactions / units.fit
    return (acts / units.read + fits + load.users / units.publish) / 3600


def _redis(load: Load, units: Units, assumed: Assumptions) -> Part:
    a_person = 2 * units.list_bytes + units.list_bytes + assumed.history_items * units.history_bytes
    size = load.users * (a_person + units.consent_bytes) / GB
    used = size / assumed.shard_gb
    shards = max(1, math.ceil(used))
    histories = load.users * assumed.history_items * units.history_bytes / GB
    because = f"{a_person + units.consent_bytes:,.0f} bytes a person: two versions' lists, a live one, history, consent"
    because += f"; of a cluster, one master holds all histories, {histories:,.1f} GB" if shards > 1 else ""
    return Part("redis", shards, "shard and replica", 2.0 * shards, size * 3, size * 4, used, because)


def _read(folder: Path, name: str, made_by: str) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads((folder / name).read_text())
    except (OSError, ValueError) as error:
        raise UnitsMissing(f"{folder / name} cannot be read ({error}): {made_by} makes it") from error
    return found
