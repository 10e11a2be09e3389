"""The relay's metrics, declared in one place with their help. One `Metrics` per relay; nothing is global."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

PREFIX: Final = "sparkpost_relay"

# From one round trip on localhost to the limit for the final dot.
_ATTEMPT_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """Counters and histograms; names as in the documentation, without the prefix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.messages_received = self._counter(
            "messages_received", "Messages whose content came to its end.", "listener", "identity"
        )
        self.messages = self._counter("messages", "Recipients served, by what became of them.", "identity", "outcome")
        self.replies = self._counter("replies", "Replies given to clients, by code.", "code")
        self.attempt_seconds = Histogram(
            "attempt_seconds",
            "How long an attempt at delivering a message took.",
            namespace=PREFIX,
            registry=self.registry,
            buckets=_ATTEMPT_BUCKETS,
        )
        self.port_fallbacks = self._counter("port_fallbacks", "Times mail moved to another port.")
        self.tolerances = self._counter("tolerances", "Leniencies shown to clients.", "kind")
        self.auth_failures = self._counter("auth_failures", "Logins that clients failed.")

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, labels, namespace=PREFIX, registry=self.registry)
