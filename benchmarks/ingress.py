"""`python -m benchmarks.ingress`: how fast mail is taken in and what it takes of the memory, beside stock aiosmtpd.

Three tables on standard output. The first sets messages per second and CPU time per message beside those of aiosmtpd
with a handler that does nothing; the relay does everything but keep the message, and logs. The second is of a whole
relay that can send nothing and stores it all, beside what the same disk gives to 16 threads that write a file a
message. The third says what an octet costs in messages of different sizes, the fourth is about large messages: memory
and stalls of the loop. Below stands what this is meant to be.

Exit status: 0; 1 when a message was refused or a receiver did not run.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks import certificates, disk, ours, processes, rig
from benchmarks.instruments import run_load
from benchmarks.peers import Peer, started
from benchmarks.place import PeerError, Place, free_port
from benchmarks.workloads import Workload, show_size

YARDSTICK: Final = "aiosmtpd"
RECEIVERS: Final = ["relay", "relay-asyncio", YARDSTICK]
WORKLOADS: Final = {
    Workload(2_000, 10): 3.0,
    Workload(2_000, 10, pipelining=True): 4.0,
    Workload(2_000, 10, kept=False): 2.0,
    Workload(50_000, 10): 5.0,
    Workload(1_000_000, 10): 5.0,
}
"""What clients do, and how many times as fast as aiosmtpd the relay is meant to be."""

SMALL: Final = 2_000
LARGE: Final = 20_000_000
SIZES: Final = {SMALL: 15_000, 50_000: 8000, 1_000_000: 500, LARGE: 30}
"""Of messages whose octets are compared: how many of each, about a second's worth."""
FLATNESS: Final = 1.3
STORED: Final = Workload(SMALL, 50)
STORED_GOAL: Final = 1.0
AT_ONCE: Final = 50
IDLE_MB: Final = 75.0
MEGABYTE: Final = 1e6


@dataclass(frozen=True, slots=True)
class Speed:
    """One run of one receiver."""

    rate: float
    cpu_ms: float
    failed: int


@dataclass(frozen=True, slots=True)
class Burden:
    """What large messages cost: megabytes of memory at most, milliseconds of the longest stall."""

    peak_mb: float
    stall_ms: float
    stall_cpu_ms: float
    failed: int


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingress", description="Measure how mail is taken in.")
    parser.add_argument("--quick", action="store_true", help="three short rounds")
    parser.add_argument("--rounds", type=int, help="rounds over all cells (default 5; quick: 3)")
    options = parser.parse_args()
    seconds = 1.0 if options.quick else 3.0
    try:
        rig.build()
        with tempfile.TemporaryDirectory(prefix="relay-ingress-benchmark-") as scratch:
            print(ours.form())
            rounds = options.rounds or (3 if options.quick else 5)
            failed = speeds(rounds, seconds, Path(scratch))
            failed += stored(rounds, seconds, Path(scratch))
            failed += octets(rounds, Path(scratch))
            failed += burdens(Path(scratch))
    except (rig.RigError, PeerError) as error:
        print(f"benchmarks.ingress: {error}", file=sys.stderr)
        return 1
    return 1 if failed else 0


# -- speed ------------------------------------------------------------------------------------------------------------


def speeds(rounds: int, seconds: float, scratch: Path) -> int:
    """Prints the first table, medians of the rounds; a ratio is formed within a round. How many messages failed."""
    failed = 0
    for workload, goal in WORKLOADS.items():
        print(f"\n{workload.name} (goal: {goal:g} x aiosmtpd)")
        print(f"{'':16}{'messages/s':>12}{'CPU ms/msg':>12}{'x aiosmtpd':>12}{'by CPU':>9}")
        runs: dict[str, list[Speed]] = {name: [] for name in RECEIVERS}
        for number in range(rounds):
            first = number % len(RECEIVERS)
            for name in [*RECEIVERS[first:], *RECEIVERS[:first]]:
                runs[name].append(_speed(name, workload, seconds, scratch))
        for name in RECEIVERS:
            pairs = list(zip(runs[name], runs[YARDSTICK], strict=True))
            print(
                f"  {name:<14}{median(run.rate for run in runs[name]):>12,.0f}"
                f"{median(run.cpu_ms for run in runs[name]):>12.3f}"
                f"{median(run.rate / other.rate for run, other in pairs):>12.2f}"
                f"{median(other.cpu_ms / run.cpu_ms for run, other in pairs):>9.2f}",
                flush=True,
            )
            failed += sum(run.failed for run in runs[name])
    return failed


def _speed(name: str, workload: Workload, seconds: float, scratch: Path) -> Speed:
    with receiver(name, scratch) as (pid, place):
        return _taken_in(pid, place, workload, seconds)


def _taken_in(pid: int, place: Place, workload: Workload, seconds: float) -> Speed:
    """What a receiver takes of a workload, once it is warm."""
    run_load(place.port, "--clients", workload.clients, "--messages", 100)
    before = processes.cpu_seconds(pid)
    load = run_load(place.port, *workload.options(seconds))
    used = processes.cpu_seconds(pid) - before
    failed = load.refused + load.broken + load.unanswered
    return Speed(
        load.accepted / (load.ended - load.started), used / max(1, load.accepted) * 1000 or float("nan"), failed
    )


# -- durably ----------------------------------------------------------------------------------------------------------


def stored(rounds: int, seconds: float, scratch: Path) -> int:
    """Prints the second table, medians of the rounds; a ratio is formed within a round. How many messages failed.

    Nobody listens where the relay would send to: all its work is for what comes in.
    """
    relay = Peer("relay", "the whole relay, which stores all mail", ours.command(delivery="queue"))
    runs: list[Speed] = []
    threads: list[float] = []
    for number in range(rounds):
        for of_the_relay in (True, False) if number % 2 else (False, True):
            if of_the_relay:
                with running(relay, scratch) as (pid, place):
                    runs.append(_taken_in(pid, place, STORED, seconds))
            else:
                with tempfile.TemporaryDirectory(dir=scratch) as directory:
                    threads.append(disk.in_threads(Path(directory), SMALL, disk.Limit(SMALL, seconds, 500_000_000)))
    print(f"\n{STORED.name}, each stored before it is answered (goal: {STORED_GOAL:g} x a file a message)")
    print(f"{'':16}{'messages/s':>12}{'CPU ms/msg':>12}{'x files':>12}")
    print(
        f"  {'relay':<14}{median(run.rate for run in runs):>12,.0f}{median(run.cpu_ms for run in runs):>12.3f}"
        f"{median(run.rate / other for run, other in zip(runs, threads, strict=True)):>12.2f}"
    )
    print(f"  {f'{disk.THREADS} threads':<14}{median(threads):>12,.0f}{'':>12}{1:>12.2f}", flush=True)
    return sum(run.failed for run in runs)


@contextmanager
def receiver(name: str, scratch: Path) -> Iterator[tuple[int, Place]]:
    """One of the receivers, running: its process id and its place."""

    def command(place: Place) -> list[str]:
        return [sys.executable, "-m", "benchmarks.receivers", name, "--port", str(place.port)]

    with running(Peer(name, name, command), scratch) as (pid, place):
        yield pid, place


@contextmanager
def running(peer: Peer, scratch: Path) -> Iterator[tuple[int, Place]]:
    """A peer in a place of its own, which nobody is behind."""
    directory = Path(tempfile.mkdtemp(dir=scratch))
    issued = certificates.issue(directory, "127.0.0.1")
    place = Place(directory, free_port(), "127.0.0.1", free_port(), issued.ca)
    with started(peer, place) as pid:
        yield pid, place


# -- octets -----------------------------------------------------------------------------------------------------------


def octets(rounds: int, scratch: Path) -> int:
    """Prints the third table, medians of the rounds. How many messages failed.

    A message has a price of its own, which is that of a small one; what a large one costs beyond is its octets'.
    """
    nanoseconds: dict[int, list[float]] = {size: [] for size in SIZES}
    failed = 0
    for _ in range(rounds):
        with receiver("relay", scratch) as (pid, place):
            run_load(place.port, "--clients", 10, "--messages", 100)
            for size, count in SIZES.items():
                before = processes.cpu_seconds(pid)
                load = run_load(place.port, "--size", size, "--clients", 10, "--messages", count, "--timeout", 120)
                nanoseconds[size].append((processes.cpu_seconds(pid) - before) / count * 1e9)
                failed += load.refused + load.broken + load.unanswered
    small, *others = ((size, median(found)) for size, found in nanoseconds.items())
    print(f"\nCPU time, 10 clients{'ns/octet':>22}{f'beyond {show_size(SMALL)}':>14}")
    beyond = [(price - small[1]) / (size - SMALL) for size, price in others]
    for (size, price), octet in zip(others, beyond, strict=True):
        print(f"  {show_size(size):<14}{price / size:>26.2f}{octet:>14.2f}")
    print(f"  dearest to cheapest: {max(beyond) / min(beyond):.2f} (at most {FLATNESS:g})", flush=True)
    return failed


# -- large messages ---------------------------------------------------------------------------------------------------


def burdens(scratch: Path) -> int:
    """Prints the fourth table and what it should be. How many messages failed."""
    idle = _idle_mb(scratch)
    print(f"\nlarge messages{'peak MB':>28}{'stall ms':>10}{'in CPU ms':>11}")
    with receiver("relay", scratch) as (pid, place):
        run_load(place.port, "--messages", 20)
        at_rest = processes.rss(pid) / MEGABYTE
        rows = {
            f"{show_size(size)}, {clients} at once": _burden(pid, place, size, clients, count)
            for size, clients, count in ((1_000_000, 1, 100), (LARGE, 1, 5), (LARGE, AT_ONCE, AT_ONCE))
        }
    for name, row in rows.items():
        print(f"  {name:<28}{row.peak_mb:>12.1f}{row.stall_ms:>10.1f}{row.stall_cpu_ms:>11.1f}")
    one, many = rows[f"{show_size(LARGE)}, 1 at once"], rows[f"{show_size(LARGE)}, {AT_ONCE} at once"]
    print(
        f"\n  memory of an idle relay with its spool: {idle:.0f} MB (at most {IDLE_MB:g})"
        f"\n  memory for one message of 20 MB: {one.peak_mb - at_rest:.1f} MB over rest (at most 8)"
        f"\n  memory for 50 at once: {many.peak_mb:.0f} MB in all (at most 150)"
        f"\n  stall by one message of 20 MB: {one.stall_ms:.1f} ms (at most 20)"
    )
    return sum(row.failed for row in rows.values())


def _idle_mb(scratch: Path) -> float:
    """The memory of a whole relay that has nothing to do."""
    with running(Peer("relay", "the whole relay", ours.command()), scratch) as (pid, _):
        return processes.rss(pid) / MEGABYTE


def _burden(pid: int, place: Place, size: int, clients: int, count: int) -> Burden:
    _stalls(pid, place)
    processes.reset_peak(pid)
    load = run_load(place.port, "--size", size, "--clients", clients, "--messages", count, "--timeout", 120)
    wall, cpu = _stalls(pid, place)
    peak = processes.peak_rss(pid) / MEGABYTE
    return Burden(peak, wall, cpu, load.refused + load.broken + load.unanswered)


def _stalls(pid: int, place: Place) -> tuple[float, float]:
    """The longest stall since the last time this was asked, in milliseconds: by the clock, and in CPU time."""
    known = _reports(place)
    os.kill(pid, signal.SIGUSR1)
    while len(reports := _reports(place)) == len(known):
        time.sleep(0.01)
    report = json.loads(reports[-1])
    return report["stall_ms"], report["stall_cpu_ms"]


def _reports(place: Place) -> list[str]:
    return [line for line in place.log.read_text().splitlines() if line.startswith('{"stall_ms"')]


if __name__ == "__main__":
    sys.exit(main())
