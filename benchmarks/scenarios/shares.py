"""Five credentials want more than ten connections can carry: each gets its share, however loudly the first one asks."""

import time
from contextlib import ExitStack
from typing import Any

from benchmarks import ours
from benchmarks.instruments import KeyCounters, Load
from benchmarks.place import free_port
from benchmarks.scenarios.stage import Finding, Stage, relay, stage
from benchmarks.workloads import CONNECTIONS

RTT = 40.0
KEYS = ["key-of-one", "key-of-two", "key-of-three", "key-of-four", "key-of-five"]
LOUD_CLIENTS, CLIENTS = 60, 20
FAIR_RATE = CONNECTIONS / (RTT / 1000) / len(KEYS)
LOUD_RATE, RATE = 3 * FAIR_RATE, 1.2 * FAIR_RATE
SETTLE, WINDOW = 1.5, 4.0
TOLERANCE = 0.2


def shares(delivery: str) -> list[Finding]:
    """Plays it once, with this mode of delivery."""
    with stage(RTT) as here:
        ports = [here.place.port, *(free_port() for _ in KEYS[1:])]
        with relay(here.place, several(here, KEYS, ports, delivery=delivery)):
            return play(here, ports)


def several(here: Stage, keys: list[str], ports: list[int], *, delivery: str) -> dict[str, Any]:
    """A configuration with a listener, an identity and a credential for each key."""
    configuration = ours.configure(here.place)
    names = [f"app{number}" for number in range(1, len(keys) + 1)]
    configuration["listeners"] = [ours.listener(name, port) for name, port in zip(names, ports, strict=True)]
    configuration["credentials"] = {name: {"api_key": key} for name, key in zip(names, keys, strict=True)}
    configuration["limits"] = {"connections_per_client": LOUD_CLIENTS + CLIENTS * len(keys)}
    configuration["identities"] = [
        {"name": name, "match": {"listener": name}, "credential": name, "delivery": delivery} for name in names
    ]
    return configuration


def play(here: Stage, ports: list[int]) -> list[Finding]:
    """All credentials at once; what arrives in the window counts."""
    with ExitStack() as stack:
        for number, port in enumerate(ports):
            clients, rate = (LOUD_CLIENTS, LOUD_RATE) if number == 0 else (CLIENTS, RATE)
            options: list[str | float] = ["--clients", clients, "--rate", rate, "--seconds", SETTLE + WINDOW + 0.5]
            stack.enter_context(Load(port, *options, "--first-serial", number * 1_000_000))
        time.sleep(SETTLE)
        first = here.sink.read()
        time.sleep(WINDOW)
        last = here.sink.read()
    counts = [last.of_key(key).messages - first.of_key(key).messages for key in KEYS]
    mean = sum(counts) / len(counts)
    farthest = max(abs(count - mean) for count in counts) / max(1.0, mean)
    shown = ", ".join(f"{count / WINDOW:.0f}" for count in counts)
    return [
        Finding("messages/s of each, the first asks for most", shown),
        Finding("farthest from an equal share", f"{farthest:.0%} (at most {TOLERANCE:.0%})", farthest <= TOLERANCE),
        Finding("connections at most", f"{last.max_open}", last.max_open <= CONNECTIONS),
        Finding("keys that logged in", f"{len(logged_in(last.keys))}", len(logged_in(last.keys)) == len(KEYS)),
    ]


def logged_in(keys: dict[str, KeyCounters]) -> list[KeyCounters]:
    """Those with a login."""
    return [key for key in keys.values() if key.logins > key.refused]
