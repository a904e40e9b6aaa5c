"""What the training schedule shows on /metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from infra.telemetry import LogLag
from training.job import Outcome


class TrainingMetrics:
    """Figures of the last retraining, and of what happened since the process began.

    Args:
        registry: where they are shown.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._runs = Counter("marquee_training_runs", "Retrainings by result.", ["result"], registry=registry)
        self._phases = Gauge(
            "marquee_training_phase_seconds", "How long each phase of the last run took.", ["phase"], registry=registry
        )
        self._holdout = Gauge(
            "marquee_holdout", "Figures of the last run on its hold-out.", ["metric"], registry=registry
        )
        self._version = Gauge("marquee_published_version", "Version that was last published.", registry=registry)
        self._users = Gauge("marquee_published_users", "People whose lists are published.", registry=registry)
        self.lag = LogLag("trainer", registry)
        self.forgotten_lists = Counter(
            "marquee_forgotten_lists", "Lists removed because of a withdrawal or an erasure.", registry=registry
        )

    def finished(self, outcome: Outcome | None) -> None:
        """Show what a retraining came to; None: it failed."""
        self._runs.labels("failed" if outcome is None else outcome.result).inc()
        if outcome is None:
            return
        for phase, seconds in outcome.seconds.items():
            self._phases.labels(phase).set(seconds)
        for metric, value in outcome.metrics.items():
            self._holdout.labels(metric).set(value)
        if outcome.result == "published" and outcome.version is not None:
            self._version.set(outcome.version)
        self._users.set(outcome.users_published)
