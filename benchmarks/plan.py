"""The command line as a plan: which peers go through which workloads, how often."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.peers import PEERS, Peer
from benchmarks.workloads import Workload, burst, lone, show_size, waiting

SIZES: Final = [2_000, 50_000, 1_000_000]
DISTANCES: Final = [20.0, 80.0]

NEW_CONNECTION_SIZE: Final = 2_000
"""The size at which a new connection per message is measured too; with larger ones the connection hardly shows."""

LARGE: Final = 500_000
"""From this size on a run lasts twice as long: in a short one too few messages would pass to say anything."""

MAIN_SIZE: Final = 2_000
"""The size that the short comparison gives all its peers and rounds to."""

FEW: Final = ("naive-pool", "postfix-reuse", "relay", "relay-queue")
"""Who takes part in the short comparison beside its main workload: the best of each kind."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One workload, who goes through it, and how often."""

    workload: Workload
    peers: list[Peer]
    rounds: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asked for; `left_out` says who cannot take part, and why."""

    stages: list[Stage]
    left_out: dict[str, str]
    reply_delay_ms: float

    @property
    def peers(self) -> list[Peer]:
        """Everybody who takes part in something."""
        return list(dict.fromkeys(peer for stage in self.stages for peer in stage.peers))


def read_plan(arguments: Sequence[str]) -> Plan:
    """The command line as a plan. `--quick` changes defaults only; `--sizes` or `--rtt` alone leaves the other out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Compare relays side by side.")
    parser.add_argument("--quick", action="store_true", help="few short rounds of the main peers")
    parser.add_argument("--rounds", type=at_least_one, help="rounds over all peers (default 5; quick: 1 to 3)")
    parser.add_argument("--seconds", type=_positive, help="load per run (default 4, quick: 1.25; twice that at 1 MB)")
    parser.add_argument("--sizes", type=_sizes, help="without distance: 2kB,50kB,1MB is the default")
    parser.add_argument("--rtt", type=_distances, metavar="MS", help="round trip times to the sink: 20,80 by default")
    parser.add_argument("--only", type=_peers, help=f"some of {','.join(PEERS)}")
    parser.add_argument("--clients", type=at_least_one, default=10, help="clients at work at a time (default 10)")
    parser.add_argument("--pipelining", action="store_true", help="clients send MAIL, RCPT and DATA in one flight")
    parser.add_argument("--reply-delay", type=_positive, default=0.0, metavar="MS", help="let the sink answer so late")
    options = parser.parse_args(arguments)
    asked: list[Peer] = options.only or [peer for peer in PEERS.values() if peer.quick or not options.quick]
    left_out = {peer.name: reason for peer in asked if (reason := peer.missing()) is not None}
    present = [peer for peer in asked if peer.name not in left_out]
    few = [peer for peer in present if peer.name in FEW] if options.quick and not options.only else present
    seconds = options.seconds or (1.25 if options.quick else 4.0)

    def stage(workload: Workload, peers: list[Peer], rounds: int) -> Stage:
        longer = 2 if workload.size >= LARGE else 1
        return Stage(workload, peers, options.rounds or (rounds if options.quick else 5), seconds * longer)

    def at_work(size: int, *, kept: bool = True) -> Workload:
        return Workload(size, options.clients, kept=kept, pipelining=options.pipelining)

    sizes = options.sizes or ([] if options.rtt else SIZES)
    distances = options.rtt or ([] if options.sizes else DISTANCES)
    stages = []
    for size in sizes:
        main = size == MAIN_SIZE
        stages.append(stage(at_work(size), present if main else few, 3 if main else 1 if size >= LARGE else 2))
    if NEW_CONNECTION_SIZE in sizes:
        stages.append(stage(at_work(NEW_CONNECTION_SIZE, kept=False), few, 1))
    durable = [peer for peer in few if peer.durable]
    far = [peer for peer in present if peer in few or peer.name == "postfix"]
    stages += [stage(waiting(rtt), far, 1) for rtt in distances]
    stages += [stage(burst(rtt), durable, 1) for rtt in distances]
    stages += [stage(lone(rtt), few, 1) for rtt in distances[:1]]
    return Plan([each for each in stages if each.peers], left_out, options.reply_delay)


def at_least_one(text: str) -> int:
    """A whole number, as a type of argparse's."""
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


def _distances(text: str) -> list[float]:
    """ "20,80" as milliseconds."""
    distances = [_positive(word) for word in text.split(",")]
    if not all(1 <= rtt <= 1000 for rtt in distances):
        raise argparse.ArgumentTypeError(f"{text!r}: give round trip times from 1 to 1000 ms, such as 20,80")
    return list(dict.fromkeys(distances))


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
