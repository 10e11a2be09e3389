"""A hostile afternoon: thousands of connections that say nothing, or too slowly, or without an end, while one client of
good faith goes on sending: what that costs it, and what all of it takes of the memory.
"""

import json
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from benchmarks import ours, processes
from benchmarks.instruments import Load
from benchmarks.measure import await_arrival
from benchmarks.place import ROOT
from benchmarks.rig import RigError
from benchmarks.scenarios.stage import Finding, Latencies, Stage, relay, stage
from relay.ingress.auth import hash_password

RTT = 20.0
RATE, CLIENTS = 50.0, 10
QUIET, SECONDS = 6.0, 34.0
"""How long the good client is alone, and how long it sends in all."""

CONNECTIONS, PER_SECOND = 10_000, 650
ADDRESSES = 20
FILES_TO_SPARE = 1_500
TOO_MANY = 500
SLOW = 100
ENDLESS = 300
"""Megabytes: half of them in a command, half in content."""

GUESSERS, GUESSES = 20, 3
HANDSHAKES = 150
GARBAGE, NOISE = 200, 5_000

TIMES = 3.0
"""As many times its quiet p99 the good client may have to wait while all this goes on."""

EACH_KB = 8.0
"""Memory that a connection may take which says nothing."""

REST_MB = 60.0
"""Memory that everything else may take; two passwords that are verified at once take 40 of it."""

MEGABYTE = 1e6


class Mob:
    """The process of `mob`, which does one kind of mischief after another; all it holds ends with it."""

    def __init__(self, port: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.scenarios.mob", str(port)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def does(self, kind: str, *numbers: int) -> Counter[str]:
        """What came of it, once it is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(kind, *numbers, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RigError(f"the mob ended with {self._process.wait()} over {kind}")
        return Counter(json.loads(line))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


def hostile() -> list[Finding]:
    """Plays it once."""
    connections = within_limits()
    with stage(RTT) as here, relay(here.place, configuration(here, connections)) as pid:
        return play(here, pid, connections)


def within_limits() -> int:
    """How many connections may be held, by the limit of open files; the relay's own limit becomes as high as it may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return CONNECTIONS if most == resource.RLIM_INFINITY else min(CONNECTIONS, most - FILES_TO_SPARE)


def configuration(here: Stage, connections: int) -> dict[str, Any]:
    """A relay that lets so many in, offers TLS and a login, and otherwise is as it always is."""
    values = ours.configure(here.place)
    folder = here.place.directory
    tls = {"mode": "starttls", "certificate": str(folder / "sink.pem"), "key": str(folder / "sink-key.pem")}
    values["listeners"][0] |= {"tls": tls, "auth": "optional"}
    values["identities"] = [
        {"name": "app", "match": {"login": "app"}, "password": hash_password("correct horse")},
        {"name": "default"},
    ]
    values["limits"] = {
        "connections": connections + FILES_TO_SPARE // 2,
        "connections_per_client": connections // ADDRESSES,
    }
    return values


@dataclass(frozen=True, slots=True)
class Act:
    """One kind of mischief: when, how much memory the relay had at its end, and what those who did it were told."""

    name: str
    began: float
    ended: float
    memory: int
    heard: Counter[str]


def acts(connections: int) -> Iterator[tuple[str, list[int]]]:
    """What is done, one after another, with its numbers; what holds connections holds them to the end."""
    yield "slow", [SLOW]
    yield "idle", [connections, ADDRESSES, PER_SECOND]
    yield "flood", [TOO_MANY]
    yield "garbage", [GARBAGE, NOISE]
    yield "starttls", [HANDSHAKES]
    yield "guess", [GUESSERS, GUESSES]
    yield "endless", [ENDLESS]


def play(here: Stage, pid: int, connections: int) -> list[Finding]:
    """The good client alone, then among all the others."""
    log = here.place.directory / "latencies"
    options: list[str | float] = ["--rate", RATE, "--clients", CLIENTS, "--seconds", SECONDS, "--latencies", str(log)]
    played: dict[str, Act] = {}
    with Load(here.place.port, *options) as load, Mob(here.place.port) as mob:
        time.sleep(QUIET)
        before, came_at = processes.rss(pid), time.monotonic()
        processes.reset_peak(pid)
        for name, numbers in acts(connections):
            began = time.monotonic()
            heard = mob.does(name, *numbers)
            played[name] = Act(name, began, time.monotonic(), processes.rss(pid), heard)
        over_at = time.monotonic()
        result = load.result()
        peak = processes.peak_rss(pid)
    await_arrival(here.sink, result.accepted)
    lost = result.accepted - here.sink.read().distinct
    refused = result.refused + result.broken + result.unanswered
    latencies = Latencies.read(log)
    quiet = latencies.between(result.started + 1, came_at)
    among = latencies.between(came_at, over_at)
    return [
        Finding("messages of the good client lost", f"{lost} of {result.accepted}", lost == 0),
        Finding("refused, or without an answer", f"{refused}", refused == 0),
        Finding("its p99 alone", f"{quiet.p99:.0f} ms"),
        Finding(
            f"its p99 among them, {over_at - came_at:.0f} s",
            f"{among.p99:.0f} ms (at most {TIMES * quiet.p99:.0f})",
            among.p99 <= TIMES * quiet.p99,
        ),
        *(what_it_cost(act, latencies) for act in played.values()),
        *what_they_got(played, connections),
        *what_it_took(played, connections, before, peak),
    ]


def what_it_cost(act: Act, latencies: Latencies) -> Finding:
    """For information: one act by itself."""
    p99 = latencies.between(act.began, act.ended).p99
    shown = f"p99 {p99:.0f} ms, {act.memory / MEGABYTE:.0f} MB, told {dict(act.heard)}"
    return Finding(f"  {act.name}, {act.ended - act.began:.1f} s", shown)


def what_they_got(played: dict[str, Act], connections: int) -> Iterator[Finding]:
    """Those who may connect are let in, and nobody else; no password is guessed."""
    held, more, guesses = played["idle"].heard, played["flood"].heard, played["guess"].heard
    yield Finding("connections held", f"{held['220']}", held["220"] == connections)
    yield Finding("beyond the limit of an address, told 421", f"{more['421']}", set(more) == {"421"})
    yield Finding("guessed passwords", f"{guesses['235']}", guesses["235"] == 0)


def what_it_took(played: dict[str, Act], connections: int, before: int, peak: int) -> Iterator[Finding]:
    """Memory, by connections that are merely held and by everything else."""
    held = played["idle"].memory - played["slow"].memory
    each, rest = held / connections / 1000, (peak - before - held) / MEGABYTE
    yield Finding("memory before", f"{before / MEGABYTE:.0f} MB")
    yield Finding("memory of one that is held", f"{each:.1f} kB (at most {EACH_KB:.0f})", each <= EACH_KB)
    yield Finding("memory of all the rest", f"{rest:.0f} MB (at most {REST_MB:.0f})", rest <= REST_MB)
