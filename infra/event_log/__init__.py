"""The event log: a port and its adapters, chosen by URL."""

from infra.event_log.port import EventLog


def open_event_log(url: str, topic: str, partitions: int) -> EventLog:
    """Open the log at `url`, creating `topic` with `partitions` where it does not exist.

    Args:
        url: `kafka://host:port[,host:port]`, or `redis://`, `rediss://`, `unix://`.

    Raises:
        ValueError: the URL's scheme names no adapter.
        EventLogUnavailable: nothing answers there.
    """
    if url.startswith("kafka://"):
        from infra.event_log.kafka import KafkaEventLog

        return KafkaEventLog(url, topic, partitions)
    if url.startswith(("redis://", "rediss://", "unix://")):
        from infra.event_log.redis_streams import RedisStreamsEventLog

        return RedisStreamsEventLog(url, topic, partitions)
    raise ValueError(
        f"MARQUEE_EVENT_LOG: {url.split('://', maxsplit=1)[0]}:// is no event log; use kafka://, redis://, rediss:// or unix://"
    )
