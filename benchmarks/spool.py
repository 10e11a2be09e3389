"""`python -m benchmarks.spool`: how fast the spool takes mail in, durably, and whether a long queue makes it slower.

Two tables on standard output. The first sets messages per second beside what the disk itself gives in the same rounds:
the bare price of a file a message (create, write, fsync, one after another), and what a spool of files would do with 16
threads (create, write, fsync, rename, fsync of the directory). The second shows the price of claiming, of asking for
numbers and of storing with ever more messages in the queue.

Exit status: 0; 1 when claiming is not flat (over 1.5 times the price with the shortest queue).
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import depth, disk
from benchmarks.disk import Limit
from relay.observe import log as events
from relay.spool.opening import open_spool

SIZES = [2_000, 50_000, 1_000_000]
PUTTERS = [1, 10, 50]
FLATNESS = 1.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asked for. A cell writes for `seconds`, but no more than `octets`."""

    rounds: int
    seconds: float
    octets: int
    depths: list[int]
    directory: Path


def main() -> int:
    """Measures and prints."""
    events.configure(form="console", level="error", addresses="plain")  # the table is what is to be read
    plan = read_plan(sys.argv[1:])
    print(accept_table(plan), flush=True)
    rows = asyncio.run(depth.measure(plan.directory, plan.depths))
    print(f"\n{depth.table(rows)}")
    return 1 if max(row.ratios.claim for row in rows) > FLATNESS else 0


def read_plan(arguments: Sequence[str]) -> Plan:
    """The command line as a plan."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spool", description="Measure the spool.")
    parser.add_argument("--quick", action="store_true", help="short rounds, and a queue of 100,000 at most")
    parser.add_argument("--rounds", type=int, help="rounds over all cells of the first table (default 5; quick: 3)")
    parser.add_argument("--directory", type=Path, help="a directory on the disk to be measured (default: here)")
    options = parser.parse_args(arguments)
    deepest = 5 if options.quick else 6
    return Plan(
        rounds=options.rounds or (3 if options.quick else 5),
        seconds=0.3 if options.quick else 1.5,
        octets=100_000_000 if options.quick else 500_000_000,
        depths=[10**power for power in range(3, deepest + 1)],
        directory=options.directory or Path.cwd(),
    )


def accept_table(plan: Plan) -> str:
    """Messages per second, medians of the rounds; a ratio is formed within a round."""
    lines = ["accepted durably, messages/s    bare fsync  16 threads       spool   to bare   to 16 threads"]
    for size in SIZES:
        for putters in PUTTERS:
            rounds = [_round(plan, size, putters, number) for number in range(plan.rounds)]
            bare, threads, spool = (median(rates[name] for rates in rounds) for name in ("bare", "threads", "spool"))
            to_bare = median(rates["spool"] / rates["bare"] for rates in rounds)
            to_threads = median(rates["spool"] / rates["threads"] for rates in rounds)
            name = f"{size // 1000} kB, {putters} at a time"
            lines.append(f"{name:<30}{bare:>12,.0f}{threads:>12,.0f}{spool:>12,.0f}{to_bare:>10.2f}{to_threads:>16.2f}")
    return "\n".join(lines)


def _round(plan: Plan, size: int, putters: int, number: int) -> dict[str, float]:
    """Messages per second of the bare price, of 16 threads and of the spool: right after each other, each round
    beginning with another, as the disk still tidies up after the one before."""
    contenders: list[tuple[str, Callable[[Path], float]]] = [
        ("bare", lambda place: disk.one_by_one(place, size, Limit(size, plan.seconds, plan.octets))),
        ("threads", lambda place: disk.in_threads(place, size, Limit(size, plan.seconds, plan.octets))),
        ("spool", lambda place: asyncio.run(_spool(place, size, putters, plan))),
    ]
    first = number % len(contenders)
    rates = {}
    for name, run in contenders[first:] + contenders[:first]:
        with tempfile.TemporaryDirectory(prefix="relay-spool-benchmark-", dir=plan.directory) as place:
            rates[name] = run(Path(place))
    return rates


async def _spool(place: Path, size: int, putters: int, plan: Plan) -> float:
    spool = await open_spool(place / "spool.db", depth.BenchmarkClock(), reserve=0)
    make = depth.deposits(size)
    limit = Limit(size, plan.seconds, plan.octets)

    async def put() -> None:
        for number in limit:
            await spool.put(make(number))

    await asyncio.gather(*(put() for _ in range(putters)))
    rate = limit.rate
    await spool.close()
    return rate


if __name__ == "__main__":
    sys.exit(main())
