"""The relay's metrics, declared in one place with their help. One `Metrics` per relay; nothing is global."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, disable_created_metrics
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

PREFIX: Final = "sparkpost_relay"

# From one round trip on localhost to the limit for the final dot.
_ATTEMPT_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series beside each counter that tells nothing


class Tally(Counter):
    """A counter for what happens several times a message: a dict until somebody looks, and for one thread only."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._pending: dict[tuple[object, ...], int] = {}
        super().__init__(*arguments, **named)

    def count(self, *labels: object) -> None:
        """Once more, under these values of the labels."""
        self._pending[labels] = self._pending.get(labels, 0) + 1

    def collect(self) -> Iterable[Metric]:
        """What was counted, as the registry asks for it."""
        pending, self._pending = self._pending, {}
        for labels, count in pending.items():
            self.labels(*labels).inc(count)
        return super().collect()


class Timings(Collector):
    """A histogram of seconds for what happens with every message: one count a bucket, and for one thread only."""

    def __init__(self, name: str, help_text: str, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self._name = name
        self._help = help_text
        self._bounds = (*bounds, math.inf)
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        registry.register(self)

    def observe(self, seconds: float) -> None:
        """It took so long, once more."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterable[Metric]:
        """Each bucket with all that took less, as the registry asks for it."""
        bounds = map(floatToGoString, self._bounds)
        buckets = [*zip(bounds, accumulate(self._counts), strict=True)]
        return [HistogramMetricFamily(self._name, self._help, buckets, self._sum)]


class Metrics:
    """All metrics; names as in the documentation, without the prefix. Gauges are set when somebody looks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.messages_received = self._tally(
            "messages_received", "Messages whose content came to its end.", "listener", "identity"
        )
        self.messages = self._tally("messages", "Recipients served, by what became of them.", "identity", "outcome")
        self.replies = self._tally("replies", "Replies given to clients, by code.", "code")
        self.attempt_seconds = Timings(
            f"{PREFIX}_attempt_seconds",
            "How long an attempt at delivering a message took.",
            _ATTEMPT_BUCKETS,
            self.registry,
        )
        self.port_fallbacks = self._counter("port_fallbacks", "Times mail moved to another port.")
        self.tolerances = self._tally("tolerances", "Leniencies shown to clients.", "kind")
        self.limits = self._tally("limits", "Times a client has met a limit.", "limit")
        self.auth_failures = self._counter("auth_failures", "Logins that clients failed.")

        self.queue_messages = self._gauge("queue_messages", "Messages in the spool, by state.", "state")
        self.queue_oldest_seconds = self._gauge(
            "queue_oldest_seconds", "How long the oldest message that is still to be delivered has waited."
        )
        self.upstream_connections = self._gauge(
            "upstream_connections", "Sessions with SparkPost.", "credential", "endpoint", "state"
        )
        self.endpoint_up = self._gauge("endpoint_up", "Whether mail can go by this port.", "endpoint")
        self.credential_ok = self._gauge("credential_ok", "Whether SparkPost accepts this key.", "credential")

    def _tally(self, name: str, help_text: str, *labels: str) -> Tally:
        return Tally(name, help_text, labels, namespace=PREFIX, registry=self.registry)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, labels, namespace=PREFIX, registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(name, help_text, labels, namespace=PREFIX, registry=self.registry)
