"""The relay's metrics, declared in one place with their help. One `Metrics` per relay; nothing is global."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, disable_created_metrics
from prometheus_client.metrics_core import HistogramMetricFamily
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


class Timings(Histogram):
    """A histogram for what happens with every message: one count a bucket until somebody looks, and for one thread
    only.
    """

    def __init__(self, name: str, help_text: str, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self._full_name = f"{PREFIX}_{name}"
        self._bounds = (*bounds, math.inf)
        self._counts = [0] * len(self._bounds)
        self._total = 0.0
        super().__init__(name, help_text, namespace=PREFIX, registry=registry, buckets=bounds)

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """That much, once more; exemplars are not kept."""
        self._counts[bisect_left(self._bounds, amount)] += 1
        self._total += amount

    def collect(self) -> Iterable[Metric]:
        """Each bucket with all that is less, as the registry asks for it."""
        buckets = zip(map(floatToGoString, self._bounds), accumulate(self._counts), strict=True)
        return [HistogramMetricFamily(self._full_name, self._documentation, [*buckets], self._total)]


class Metrics:
    """All metrics; names as in the documentation, without the prefix. Gauges are set when somebody looks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.messages_received = self._tally(
            "messages_received", "Messages whose content came to its end.", "listener", "identity"
        )
        self.messages = self._tally("messages", "What attempts at each recipient came to.", "identity", "outcome")
        self.replies = self._tally("replies", "Replies given to clients, by code.", "code")
        self.attempt_seconds = Timings(
            "attempt_seconds", "How long an attempt at delivering a message took.", _ATTEMPT_BUCKETS, self.registry
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
