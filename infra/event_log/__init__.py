"""The event log: a port and its adapters, chosen by URL."""

from infra.event_log.port import EventLog, Fences


def nothing_landed() -> dict[int, int]:
    """The fences of a lake that has no record of the log."""
    return {}


def open_event_log(
    url: str,
    topic: str,
    partitions: int,
    retention_seconds: int | None = None,
    fences: Fences | None = nothing_landed,
) -> EventLog:
    """Open the log at `url`, creating `topic` with `partitions` where it does not exist.

    Args:
        url: `kafka://host:port[,host:port]`, by TLS `kafkas://user:password@host:port`, or `redis://`, `rediss://`,
            `unix://`.
        retention_seconds: on Kafka, how long records stay at most, where nobody has given the topic a retention of its
            own; None: its retention is left as it is. A log on Redis keeps all that it is not made to forget.

        fences: what was landed of it, which a topic that is made goes on above. None: this process cannot know, so it
            waits until another one has made the topic.

    Raises:
        ValueError: the URL's scheme names no adapter.
        EventLogBehind: see there.
        EventLogUnavailable: nothing answers there.
    """
    if url.startswith(("kafka://", "kafkas://")):
        from infra.event_log.kafka import KafkaEventLog

        return KafkaEventLog(url, topic, partitions, retention_seconds, fences)
    if url.startswith(("redis://", "rediss://", "unix://")):
        from infra.event_log.redis_streams import RedisStreamsEventLog

        return RedisStreamsEventLog(url, topic, partitions, fences)
    scheme = url.split("://", maxsplit=1)[0]
    known = "kafka://, kafkas://, redis://, rediss:// or unix://"
    raise ValueError(f"MARQUEE_EVENT_LOG: {scheme}:// is no event log; use {known}")
