"""The preferred port is blocked while mail flows, and opened again: nothing is lost, and little is late.

Blocked as by a firewall that begins to drop: connections are reset in the middle of whatever they are doing, new ones
are taken and hear nothing. The relay may send twice what was under way at that moment and never answered.
"""

import time

from benchmarks import ours
from benchmarks.instruments import Load
from benchmarks.measure import await_arrival
from benchmarks.scenarios.stage import Finding, Latencies, Stage, relay, stage
from benchmarks.workloads import CONNECTIONS

RTT = 20.0
RATE = 100.0
CLIENTS = 30
FALLBACK_AFTER = 2.0
MEMORY = 4.0
"""Seconds before the relay looks at the blocked port again; minutes otherwise."""

MESSAGES, DIAL = 20, 8
"""What a connection carries, one in each round trip: few, so that connections are made all the time. And how many round
trips it takes to make one."""

RAMP = 3 * DIAL * RTT / 1000
"""Seconds until all connections are there again: the first, those that it allows, and the rest."""

SPARE_RATE = CONNECTIONS * MESSAGES / ((MESSAGES + DIAL) * RTT / 1000) - RATE

CATCH_UP = 1.25 * (RAMP + RATE * (FALLBACK_AFTER + RAMP) / SPARE_RATE)
"""Seconds in which what had to wait can be carried beside what comes, as far as the line goes, and a quarter more."""

QUIET, BLOCKED, OPEN = 4.0, 6.0, 8.0
"""Seconds of each act."""

JITTER = 50.0
"""Milliseconds that may be anybody's fault."""


def switch() -> list[Finding]:
    """Plays it once."""
    with stage(RTT, port_count=2) as here:
        configuration = ours.configure(here.place)
        configuration["upstream"] |= {
            "ports": here.sink.ports,
            "fallback_after": f"{FALLBACK_AFTER:g}s",
            "messages_per_connection": MESSAGES,
        }
        configuration["delivery"] = {"retry": {"first": "1s"}}
        launcher = ("-m", "benchmarks.scenarios.hurried", str(MEMORY))
        with relay(here.place, configuration, launcher):
            return play(here)


def play(here: Stage) -> list[Finding]:
    """The three acts, under one load."""
    log = here.place.directory / "latencies"
    options: list[str | float] = [
        "--rate",
        RATE,
        "--clients",
        CLIENTS,
        "--seconds",
        QUIET + BLOCKED + OPEN,
        "--latencies",
        str(log),
    ]
    with Load(here.place.port, *options) as load:
        time.sleep(QUIET)
        blocked_at = time.monotonic()
        here.sink.block_or_open()
        time.sleep(BLOCKED)
        opened_at = time.monotonic()
        before, _ = here.sink.read().ports
        here.sink.block_or_open()
        back_at = first_arrival(here, before, opened_at + OPEN)
        result = load.result()
    await_arrival(here.sink, result.accepted)
    counters = here.sink.read()
    latencies = Latencies.read(log)
    quiet = latencies.between(result.started + 1, blocked_at - 1)
    settled = blocked_at + FALLBACK_AFTER + CATCH_UP
    hit = latencies.between(blocked_at - 1, settled)
    later = latencies.between(settled, opened_at)
    after = latencies.between(opened_at)
    usual = max(2 * quiet.p99, quiet.p99 + JITTER)
    lost, twice = result.accepted - counters.distinct, counters.messages - counters.distinct
    refused = result.refused + result.broken + result.unanswered
    back = "not within the time" if back_at is None else f"{back_at - opened_at:.1f} s after the port was opened"
    limit = FALLBACK_AFTER * 1000 + 1000
    return [
        Finding("messages accepted and lost", f"{lost} of {result.accepted}", lost == 0),
        Finding("messages refused or without an answer", f"{refused}", refused == 0),
        Finding("sent twice: under way at the reset, at most one a connection", f"{twice}", twice <= CONNECTIONS),
        Finding("usual latency, p99", f"{quiet.p99:.0f} ms"),
        Finding(
            "the slowest when the port was blocked", f"{hit.slowest:.0f} ms (at most {limit:.0f})", hit.slowest <= limit
        ),
        Finding("messages after that, p99", f"{later.p99:.0f} ms (at most {usual:.0f})", later.p99 <= usual),
        Finding("the first message by the preferred port again", back, back_at is not None),
        Finding("messages on the way back, p99", f"{after.p99:.0f} ms (at most {usual:.0f})", after.p99 <= usual),
    ]


def first_arrival(here: Stage, before: int, until: float) -> float | None:
    """When the preferred port had taken another message; None if it had not."""
    while time.monotonic() < until:
        if here.sink.read().ports[0] > before:
            return time.monotonic()
        time.sleep(0.02)
    return None
