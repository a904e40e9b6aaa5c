"""Metrics of the hot path: plain numbers, put into Prometheus' form only when somebody asks for them."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator

import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from infra.telemetry import LogLag
from serving.fallback import Tier

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class RecommendationMetrics(Collector):
    """Counts of one event loop's answers: no locks, since only that loop writes them.

    Attributes:
        store_errors: reads of lists that failed, by kind of error.
        corrupt: stored lists that could not be read.
        refused: requests that were answered with a problem, by status.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.store_errors: Counter[str] = Counter()
        self.refused: Counter[int] = Counter()
        self.corrupt = 0
        self._answers = dict.fromkeys(Tier, 0)
        self._buckets = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0
        registry.register(self)

    def answered(self, tier: Tier, seconds: float) -> None:
        """Count an answer and the time it took."""
        self._answers[tier] += 1
        self._buckets[bisect_left(BOUNDS, seconds)] += 1
        self._seconds += seconds

    def answers(self, tier: Tier) -> int:
        """Answers given from `tier` so far."""
        return self._answers[tier]

    def collect(self) -> Iterator[Metric]:
        """The numbers in Prometheus' form."""
        answers = CounterMetricFamily("marquee_recommendations", "Lists served, by tier.", labels=["tier"])
        for tier, count in self._answers.items():
            answers.add_metric([tier.label], count)
        yield answers
        errors = CounterMetricFamily("marquee_list_read_errors", "Failed reads of stored lists.", labels=["error"])
        for error, count in self.store_errors.items():
            errors.add_metric([error], count)
        yield errors
        refused = CounterMetricFamily("marquee_recommendations_refused", "Requests refused.", labels=["status"])
        for status, count in self.refused.items():
            refused.add_metric([str(status)], count)
        yield refused
        yield CounterMetricFamily("marquee_corrupt_lists", "Stored lists that could not be read.", value=self.corrupt)
        yield self._latency()

    def _latency(self) -> HistogramMetricFamily:
        total, buckets = 0, []
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self._buckets, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return HistogramMetricFamily(
            "marquee_recommendation_seconds", "Time to make an answer.", buckets=buckets, sum_value=self._seconds
        )


class NearlineMetrics:
    """What the nearline worker counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.events = prometheus_client.Counter(
            "marquee_nearline_events", "Events met, by what became of them.", ["outcome"], registry=registry
        )
        self.lists = prometheus_client.Counter("marquee_live_lists", "Live lists written.", registry=registry)
        self.forgotten = prometheus_client.Counter(
            "marquee_nearline_forgotten", "People whose history was deleted.", registry=registry
        )
        self.undecodable = prometheus_client.Counter(
            "marquee_nearline_undecodable", "Records passed over; the lander keeps them.", registry=registry
        )
        self.waits = prometheus_client.Counter(
            "marquee_nearline_waits", "Pauses because something is down.", ["error"], registry=registry
        )
        self.lag = LogLag("nearline", registry)
        self.freshness = prometheus_client.Histogram(
            "marquee_freshness_seconds",
            "From an event's acceptance to the list that knows of it.",
            buckets=(0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 15, 60),
            registry=registry,
        )
