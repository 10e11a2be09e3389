"""`python -m benchmarks`: every peer under every workload, in alternating rounds; a table and `results/latest.json`.

Exit status: 0; 1 when a message was lost, sent twice, cut short or refused, when a peer did not run, or when the rig
did not; 2 for a wrong command line.
"""

import argparse
import datetime as dt
import importlib.metadata
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import certificates, instruments
from benchmarks.measure import Run, Workload, measure, show_size
from benchmarks.peers import BASELINES, PEERS, Peer, PeerError
from benchmarks.report import Summary, legend, summarise, table

RESULTS = Path(__file__).parent / "results" / "latest.json"
SIZES = [2_000, 50_000, 1_000_000]

NEW_CONNECTION_SIZE = 2_000
"""The size at which a new connection per message is measured too; with larger ones the connection hardly shows."""

LARGE = 500_000
"""From this size on a run lasts twice as long: in a short one too few messages would pass to say anything."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asked for."""

    peers: list[Peer]
    workloads: list[Workload]
    rounds: int
    seconds: float
    reply_delay_ms: float

    def seconds_for(self, workload: Workload) -> float:
        """How long one run of this workload loads the peer."""
        return self.seconds * (2 if workload.size >= LARGE else 1)


def main() -> int:
    """Runs the plan, keeps the numbers, prints the table."""
    plan = read_plan(sys.argv[1:])
    try:
        instruments.build()
        runs, failures = run_all(plan)
    except instruments.RigError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    summaries = summarise(runs, BASELINES)
    keep(plan, runs, summaries, failures)
    if summaries:
        print(f"{table(summaries, BASELINES)}\n\n{legend(plan.rounds)}\nEvery run: {RESULTS}")
    for failure in failures.values():
        print(f"\n{failure}", file=sys.stderr)
    return 1 if failures or any(run.faults for run in runs) else 0


def read_plan(arguments: Sequence[str]) -> Plan:
    """The command line as a plan; `--quick` changes defaults only."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Compare relays side by side.")
    parser.add_argument("--quick", action="store_true", help="three short rounds of the main peers: about 75 seconds")
    parser.add_argument("--rounds", type=_count, help="rounds over all peers (default 5; quick: 3)")
    parser.add_argument("--seconds", type=_positive, help="load per run (default 4, quick: 1.25; twice that at 1 MB)")
    parser.add_argument("--sizes", type=_sizes, default=SIZES, help="for example 2kB,50kB,1MB (the default)")
    parser.add_argument("--only", type=_peers, help=f"some of {','.join(PEERS)} (default all; quick: without uvloop)")
    parser.add_argument("--clients", type=_count, default=10, help="clients at work at a time (default 10)")
    parser.add_argument("--pipelining", action="store_true", help="clients send MAIL, RCPT and DATA in one flight")
    parser.add_argument("--reply-delay", type=_positive, default=0.0, metavar="MS", help="let the sink answer so late")
    options = parser.parse_args(arguments)
    workloads = [Workload(size, options.clients, kept=True, pipelining=options.pipelining) for size in options.sizes]
    if NEW_CONNECTION_SIZE in options.sizes:
        workloads.append(Workload(NEW_CONNECTION_SIZE, options.clients, kept=False, pipelining=options.pipelining))
    return Plan(
        peers=options.only or [peer for peer in PEERS.values() if peer.quick or not options.quick],
        workloads=workloads,
        rounds=options.rounds or (3 if options.quick else 5),
        seconds=options.seconds or (1.25 if options.quick else 4.0),
        reply_delay_ms=options.reply_delay,
    )


def run_all(plan: Plan) -> tuple[list[Run], dict[str, PeerError]]:
    """All runs, and what stopped a peer; such a peer takes no part in what follows.

    The peers of one workload run right after each other, each round beginning with another, so that what the machine
    does meanwhile falls on all alike.
    """
    runs: list[Run] = []
    failures: dict[str, PeerError] = {}
    with tempfile.TemporaryDirectory(prefix="relay-benchmark-") as scratch:
        issued = certificates.issue(Path(scratch))
        for number in range(1, plan.rounds + 1):
            for position, workload in enumerate(plan.workloads):
                first = (number - 1) % len(plan.peers)
                for peer in plan.peers[first:] + plan.peers[:first]:
                    if peer.name in failures:
                        continue
                    print(f"round {number} of {plan.rounds}: {workload.name}: {peer.name}", file=sys.stderr, flush=True)
                    try:
                        run = measure(
                            peer,
                            workload,
                            round_number=number,
                            seconds=plan.seconds_for(workload),
                            reply_delay_ms=plan.reply_delay_ms,
                            certificates=issued,
                            directory=Path(scratch, f"{number}-{position}-{peer.name}"),
                        )
                    except PeerError as error:
                        failures[peer.name] = error
                    else:
                        runs.append(run)
    return runs, failures


def keep(plan: Plan, runs: Sequence[Run], summaries: Sequence[Summary], failures: dict[str, PeerError]) -> None:
    """Writes everything that was measured, with the circumstances, to `results/latest.json`."""
    RESULTS.parent.mkdir(exist_ok=True)
    results = {
        "ended": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "settings": {"rounds": plan.rounds, "seconds": plan.seconds, "reply_delay_ms": plan.reply_delay_ms},
        "peers": {peer.name: peer.description for peer in plan.peers},
        "failures": {name: str(error) for name, error in failures.items()},
        "summaries": [asdict(summary) for summary in summaries],
        "runs": [asdict(run) | {"void": run.void, "faults": run.faults} for run in runs],
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cores": os.cpu_count(),
        "processor": model[1] if model else platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("aiosmtpd", "aiosmtplib")},
    }


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from 1")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: give a number above 0")
    return value


def _sizes(text: str) -> list[int]:
    """ "2kB,1MB" as octets; the unit may be short or missing."""
    sizes = []
    for word in text.split(","):
        match = re.fullmatch(r"(\d+) ?(|k|M)B?", word.strip(), re.IGNORECASE)
        if match is None:
            raise argparse.ArgumentTypeError(f"{word!r}: give sizes such as 2kB,50kB,1MB")
        sizes.append(int(match[1]) * {"": 1, "k": 1_000, "m": 1_000_000}[match[2].lower()])
    if min(sizes) < 1_000 or max(sizes) > 100_000_000:
        raise argparse.ArgumentTypeError(f"{text!r}: sizes lie between {show_size(1_000)} and {show_size(100_000_000)}")
    return list(dict.fromkeys(sizes))


def _peers(text: str) -> list[Peer]:
    names = list(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no peer is called {', '.join(unknown)}; there are {', '.join(PEERS)}")
    return [PEERS[name] for name in names]


if __name__ == "__main__":
    sys.exit(main())
