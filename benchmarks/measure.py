"""One run: one peer under one workload, from a fresh start to the last message's arrival at the sink."""

import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import processes
from benchmarks.certificates import Certificates
from benchmarks.instruments import Load, LoadResult, Sink, SinkCounters, run_load
from benchmarks.line import Line
from benchmarks.peers import Peer, started
from benchmarks.place import PeerError, Place, free_port, log_tail
from benchmarks.workloads import SETTLE, Workload

WARM_UP_SIZE = 2000
ARRIVAL_PATIENCE = 10.0
"""Seconds without a further arrival after which a message that was accepted counts as lost."""

MOST_RIG_SHARE = 0.8
"""Of one core. Load generator and sink have one thread each: beyond this the rig measures itself."""

MOST_FOREIGN_SHARE = 0.25
"""Of one core. When others on this machine use more than this, a run says so."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run gave. Shares are of one core; CPU and memory are those of the peer's whole process tree.

    `round_trips`: how often, per message, the peer waited for the sink, dials and goodbyes not counted. `of_limit`: the
    rate as a share of what the connections could carry, where messages wait. `comparable`: false where messages come
    slowly on purpose, so that rates say nothing.
    """

    peer: str
    workload: str
    round_number: int
    seconds: float
    accepted: int
    delivered: int
    duplicates: int
    refused: int
    broken: int
    unanswered: int
    missing_octets: int
    last_failure: str
    rate: float
    cpu_ms: float
    p50_ms: float
    p99_ms: float
    peak_rss: int
    connections: int
    max_open: int
    round_trips: float
    load_share: float
    sink_share: float
    line_share: float
    foreign_share: float
    of_limit: float | None
    comparable: bool
    caveat: str | None

    @property
    def lost(self) -> int:
        """Messages that the peer answered 250 for and the sink never saw."""
        return max(0, self.accepted - self.delivered)

    @property
    def void(self) -> str | None:
        """Why this run says nothing about the peer, or None."""
        for name, share in (
            ("load generator", self.load_share),
            ("sink", self.sink_share),
            ("line", self.line_share),
        ):
            if share > MOST_RIG_SHARE:
                return f"{name} used {share:.0%} of a core"
        return None

    @property
    def faults(self) -> list[str]:
        """What went wrong with mail, in words; a good run has none."""
        counts = {
            "lost": self.lost,
            "sent twice": self.duplicates,
            "refused": self.refused,
            "broken off": self.broken,
            "unanswered": self.unanswered,
            "octets missing": self.missing_octets,
        }
        return [f"{count} {what}" for what, count in counts.items() if count > 0]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All the meters, read at one moment."""

    sink: SinkCounters
    peer_cpu: float
    line_cpu: float
    own_cpu: float
    machine_cpu: float
    at: float

    @classmethod
    def take(cls, sink: Sink, pid: int, line: Line) -> "Snapshot":
        """Reads them."""
        return cls(
            sink=sink.read(),
            peer_cpu=processes.cpu_seconds(pid),
            line_cpu=line.cpu_seconds(),
            own_cpu=time.process_time(),
            machine_cpu=processes.machine_cpu_seconds(),
            at=time.monotonic(),
        )


@dataclass(frozen=True, slots=True)
class Window:
    """The time in which arrivals count: two readings of the sink and the seconds between them."""

    first: SinkCounters
    last: SinkCounters
    seconds: float


def measure(
    peer: Peer,
    workload: Workload,
    *,
    round_number: int,
    seconds: float,
    certificates: Certificates,
    directory: Path,
    line: Line | None = None,
    reply_delay_ms: float = 0.0,
) -> Run:
    """Starts sink and peer afresh, warms the peer up, and loads it.

    Where messages wait, the line becomes short once the window is over: what is queued then arrives soon, and it shows
    whether all of it does.
    """
    line = line or Line()
    line.set_rtt(workload.rtt_ms)
    directory.mkdir(parents=True)
    directory.chmod(0o711)  # Postfix has users of its own
    with Sink(certificates, reply_delay_ms, line=line) as sink:
        place = Place(directory, free_port(), sink.host, sink.port, certificates.ca)
        with started(peer, place) as pid:
            warm_up(peer, place, sink, workload.clients)
            before = Snapshot.take(sink, pid, line)
            options = [*workload.options(seconds), "--first-serial", workload.clients]
            with Load(place.port, *options) as running:
                window = observe(sink, workload)
                if window is not None:
                    line.set_rtt(0)
                load = running.result()
            await_arrival(sink, before.sink.distinct + load.accepted)
            after = Snapshot.take(sink, pid, line)
            if load.accepted == 0:
                raise PeerError(f"{peer.name} accepted nothing: {load.last_failure}\n{log_tail(place)}")
            # From the first client's start to the last arrival: for a relay that queues this outlasts the clients.
            window = window or Window(
                before.sink, after.sink, max(after.sink.last_message_at, load.ended) - load.started
            )
            return evaluate(
                peer, workload, round_number, load, before, after, window, processes.peak_rss(pid), line.note
            )


def observe(sink: Sink, workload: Workload) -> Window | None:
    """Waits while messages wait, and reads the sink at the beginning and the end of the window; else None at once."""
    if workload.window is None:
        return None
    time.sleep(SETTLE)
    first = sink.read()
    time.sleep(workload.window)
    last = sink.read()
    return Window(first, last, last.at - first.at)


def warm_up(peer: Peer, place: Place, sink: Sink, clients: int) -> None:
    """One small message from each client, so that imports are done and connections that are kept are open."""
    load = run_load(place.port, "--messages", clients, "--clients", clients, "--size", WARM_UP_SIZE, "--timeout", 15)
    if load.accepted != clients:
        raise PeerError(
            f"{peer.name} accepted {load.accepted} of {clients} messages while warming up"
            f" ({load.last_failure or 'the others got no answer'}):\n{log_tail(place)}"
        )
    await_arrival(sink, clients)


def await_arrival(sink: Sink, expected: int) -> None:
    """Returns when the sink has seen so many messages, or none any more for a while."""
    counters = sink.read()
    quiet_since = counters.at
    while counters.distinct < expected and counters.at - quiet_since < ARRIVAL_PATIENCE:
        time.sleep(0.02)
        earlier, counters = counters, sink.read()
        if counters.distinct > earlier.distinct:
            quiet_since = counters.at


def evaluate(
    peer: Peer,
    workload: Workload,
    round_number: int,
    load: LoadResult,
    before: Snapshot,
    after: Snapshot,
    window: Window,
    peak_rss: int,
    caveat: str | None,
) -> Run:
    """The differences between two snapshots, as rates and shares; rate and round trips are those of the window."""
    delivered = after.sink.distinct - before.sink.distinct
    messages = after.sink.messages - before.sink.messages
    octets = after.sink.octets - before.sink.octets
    arrived = window.last.distinct - window.first.distinct
    rate = arrived / window.seconds
    elapsed = after.at - before.at
    peer_cpu = after.peer_cpu - before.peer_cpu
    line_cpu = after.line_cpu - before.line_cpu
    sink_cpu = after.sink.cpu_seconds - before.sink.cpu_seconds
    own_cpu = after.own_cpu - before.own_cpu
    foreign_cpu = after.machine_cpu - before.machine_cpu - peer_cpu - line_cpu - sink_cpu - own_cpu - load.cpu_seconds
    return Run(
        peer=peer.name,
        workload=workload.name,
        round_number=round_number,
        seconds=window.seconds,
        accepted=load.accepted,
        delivered=delivered,
        duplicates=messages - delivered,
        refused=load.refused,
        broken=load.broken,
        unanswered=load.unanswered,
        missing_octets=max(0, messages * workload.size - octets),
        last_failure=load.last_failure,
        rate=rate,
        cpu_ms=peer_cpu / max(1, delivered) * 1000,
        p50_ms=load.p50_ms,
        p99_ms=load.p99_ms,
        peak_rss=peak_rss,
        connections=after.sink.connections - before.sink.connections,
        max_open=after.sink.max_open,
        round_trips=(window.last.mail_flights - window.first.mail_flights) / max(1, arrived),
        load_share=load.cpu_seconds / (load.ended - load.started),
        sink_share=(window.last.cpu_seconds - window.first.cpu_seconds) / window.seconds,
        line_share=line_cpu / elapsed,
        foreign_share=max(0.0, foreign_cpu) / elapsed,
        of_limit=None if workload.limit is None else rate / workload.limit,
        comparable=not workload.lone,
        caveat=caveat,
    )
