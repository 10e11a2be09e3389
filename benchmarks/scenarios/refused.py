"""One key is refused while three others send: SparkPost sees it once a minute, and the others feel nothing."""

import time
from contextlib import ExitStack

from benchmarks.instruments import Load
from benchmarks.measure import await_arrival
from benchmarks.place import free_port
from benchmarks.scenarios.shares import several
from benchmarks.scenarios.stage import Finding, Latencies, Stage, relay, stage

RTT = 20.0
GOOD = ["key-of-one", "key-of-two", "key-of-three"]
REFUSED = "key-that-was-revoked"
RATE, REFUSED_RATE = 30.0, 30.0
CLIENTS = 20
QUIET, TOGETHER = 3.0, 8.0
JITTER = 50.0
"""Milliseconds that may be anybody's fault."""


def refused() -> list[Finding]:
    """Plays it once."""
    with stage(RTT, refused_key=REFUSED) as here:
        ports = [here.place.port, *(free_port() for _ in GOOD)]
        with relay(here.place, several(here, [*GOOD, REFUSED], ports, delivery="cut-through")):
            return play(here, ports)


def play(here: Stage, ports: list[int]) -> list[Finding]:
    """The good keys alone, then all."""
    logs = [here.place.directory / f"latencies-{number}" for number in range(len(GOOD))]
    with ExitStack() as stack:
        loads = []
        for number, (port, log) in enumerate(zip(ports, logs, strict=False)):
            options: list[str | float] = [
                "--clients",
                CLIENTS,
                "--rate",
                RATE,
                "--seconds",
                QUIET + TOGETHER,
                "--latencies",
                str(log),
            ]
            loads.append(stack.enter_context(Load(port, *options, "--first-serial", number * 1_000_000)))
        time.sleep(QUIET)
        joined_at = time.monotonic()
        options = ["--clients", CLIENTS, "--rate", REFUSED_RATE, "--seconds", TOGETHER]
        other = stack.enter_context(Load(ports[-1], *options, "--first-serial", len(GOOD) * 1_000_000))
        results = [load.result() for load in loads]
        stranger = other.result()
    accepted = sum(result.accepted for result in results)
    await_arrival(here.sink, accepted)
    counters = here.sink.read()
    everything = Latencies([message for log in logs for message in Latencies.read(log).messages])
    quiet = everything.between(min(result.started for result in results) + 1, joined_at)
    together = everything.between(joined_at)
    usual = max(2 * quiet.p99, quiet.p99 + JITTER)
    logins = counters.of_key(REFUSED).logins
    complaints = sum(result.refused + result.broken + result.unanswered for result in results)
    return [
        Finding(
            "messages of the good keys lost",
            f"{accepted - counters.distinct} of {accepted}",
            accepted == counters.distinct,
        ),
        Finding("messages of the good keys refused", f"{complaints}", complaints == 0),
        Finding("logins with the refused key", f"{logins} in {TOGETHER:g} s (at most 1 a minute)", logins <= 1),
        Finding(
            "its messages, kept for when the key is good",
            f"{stranger.accepted} of {stranger.accepted + stranger.refused}",
            stranger.refused == 0,
        ),
        Finding("p99 of the good keys without it", f"{quiet.p99:.0f} ms"),
        Finding(
            "p99 of the good keys beside it", f"{together.p99:.0f} ms (at most {usual:.0f})", together.p99 <= usual
        ),
    ]
