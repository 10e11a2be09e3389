"""What clients do to a relay, as a table's heading and as options of the load generator."""

from dataclasses import dataclass
from typing import Final

CONNECTIONS: Final = 10
"""As many as SparkPost wants at most, and as our relay and the naive pool open."""

MESSAGES_PER_CONNECTION: Final = 100

ROUND_TRIPS_PER_CONNECTION: Final = MESSAGES_PER_CONNECTION + 8
"""One for each message, and eight for the dial: TCP, greeting, EHLO, STARTTLS, TLS, EHLO, AUTH LOGIN in two."""

SETTLE: Final = 1.5
"""Seconds from the first message to the beginning of the window in which arrivals count, where messages wait."""

OFFERED: Final = 1.2
"""Where messages wait: how many come, as a multiple of what the connections can carry at one round trip each."""

BURST: Final = 400
NEARBY: Final = 40.0
"""Milliseconds of round trip: up to that, a burst is of so many more that it lasts seconds as well."""

NEARBY_BURST: Final = 1000

LONE_MESSAGES: Final = 12
LONE_DISTANCE: Final = 8
"""Round trips from one lone message to the next: each finds the relay at rest, and its connection still open."""


@dataclass(frozen=True, slots=True)
class Workload:
    """How many clients there are, how large their messages, whether they keep their connections, how far the sink is.

    At a distance messages are either `waiting`, so that every connection always has work, or so many come in a `burst`,
    or one comes at a time. Without a distance clients send as fast as they are answered.
    """

    size: int
    clients: int
    kept: bool = True
    pipelining: bool = False
    rtt_ms: float = 0.0
    waiting: bool = False
    burst: int = 0

    @property
    def lone(self) -> bool:
        """One message now and then: what counts is how long it takes, not how many there are."""
        return self.rtt_ms > 0 and not self.waiting and not self.burst

    @property
    def name(self) -> str:
        """In words, as the tables are headed."""
        if self.waiting:
            return f"{show_size(self.size)}, messages waiting, {self.rtt_ms:g} ms round trip"
        if self.burst:
            return f"{show_size(self.size)}, {self.burst} messages at once, {self.rtt_ms:g} ms round trip"
        if self.lone:
            return f"{show_size(self.size)}, a lone message now and then, {self.rtt_ms:g} ms round trip"
        connections = "kept connections" if self.kept else "a new connection per message"
        name = f"{show_size(self.size)}, {self.clients} clients, {connections}"
        return f"{name}, pipelining" if self.pipelining else name

    @property
    def limit(self) -> float | None:
        """Messages a second that the connections can carry at one round trip each, where that is the limit."""
        if not self.waiting:
            return None
        return CONNECTIONS / (self.rtt_ms / 1000) * MESSAGES_PER_CONNECTION / ROUND_TRIPS_PER_CONNECTION

    @property
    def window(self) -> float | None:
        """Seconds in which arrivals count, where messages wait: at least the life of a connection, with its dial."""
        return max(3.0, ROUND_TRIPS_PER_CONNECTION * self.rtt_ms / 1000) if self.waiting else None

    def options(self, seconds: float) -> list[str | float]:
        """The options of `rig/load.c` that say the same; `seconds` is for clients that go as fast as they can."""
        options: list[str | float] = ["--size", self.size, "--clients", self.clients]
        if self.window is not None:
            rate = OFFERED * CONNECTIONS / (self.rtt_ms / 1000)
            options += ["--rate", rate, "--seconds", SETTLE + self.window]
        elif self.burst:
            options += ["--messages", self.burst]
        elif self.lone:
            options += ["--rate", 1000 / (LONE_DISTANCE * self.rtt_ms), "--messages", LONE_MESSAGES]
        else:
            options += ["--seconds", seconds]
        if not self.kept:
            options.append("--new-connections")
        if self.pipelining:
            options.append("--pipelining")
        return options


def waiting(rtt_ms: float) -> Workload:
    """Every connection always has work."""
    return Workload(2_000, clients=40, rtt_ms=rtt_ms, waiting=True)


def burst(rtt_ms: float) -> Workload:
    """A night's invoices: a few hundred messages at once, to the last one's arrival."""
    return Workload(2_000, clients=10, rtt_ms=rtt_ms, burst=NEARBY_BURST if rtt_ms <= NEARBY else BURST)


def lone(rtt_ms: float) -> Workload:
    """Every message finds the relay at rest."""
    return Workload(2_000, clients=1, rtt_ms=rtt_ms)


def show_size(octets: int) -> str:
    """2000 as "2 kB"."""
    for unit, factor in (("MB", 1_000_000), ("kB", 1000)):
        if octets >= factor:
            return f"{octets / factor:g} {unit}"
    return f"{octets} B"
