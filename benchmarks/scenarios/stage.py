"""What all scenarios need: a relay between load and sink, latencies by time, and findings with a verdict."""

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import certificates, ours
from benchmarks.instruments import Sink
from benchmarks.line import Line, distance
from benchmarks.peers import Peer, started
from benchmarks.place import Place, free_port


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what it is, what it came to, and whether that will do (None: for information)."""

    words: str
    shown: str
    good: bool | None = None

    def __str__(self) -> str:
        mark = {True: "ok", False: "FAILED", None: ""}[self.good]
        return f"  {mark:<6}  {self.words}: {self.shown}"


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a scenario plays: a sink at a distance, and a place for a relay that is not yet started."""

    line: Line
    sink: Sink
    place: Place


@contextmanager
def stage(rtt_ms: float, *, port_count: int = 1, refused_key: str | None = None) -> Iterator[Stage]:
    """A sink behind a line, and a scratch directory; all is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="relay-scenario-") as scratch, distance(rtt_ms) as line:
        issued = certificates.issue(Path(scratch), line.address)
        with Sink(issued, line=line, port_count=port_count, refused_key=refused_key) as sink:
            yield Stage(line, sink, Place(Path(scratch), free_port(), sink.host, sink.port, issued.ca))


@contextmanager
def relay(place: Place, configuration: Mapping[str, Any], launcher: Iterable[str] = ()) -> Iterator[int]:
    """This relay with a configuration of the scenario's own, and its process id; `launcher`: what to run in place of
    `python -m relay`.
    """

    def command(place: Place) -> list[str]:
        plain = ours.serve(place, configuration)
        own = list(launcher)
        return [sys.executable, *own, *plain[plain.index("serve") :]] if own else plain

    with started(Peer("relay", "as the scenario wants it", command), place) as pid:
        yield pid


@dataclass(frozen=True, slots=True)
class Latencies:
    """When messages were due (monotonic seconds), and how many milliseconds later they were answered 250."""

    messages: list[tuple[float, float]]

    @classmethod
    def read(cls, file: Path) -> "Latencies":
        """From what `rig/load.c` has written."""
        pairs = (line.split() for line in file.read_text().splitlines())
        return cls([(float(due), float(milliseconds)) for due, milliseconds in pairs])

    def between(self, start: float, end: float = float("inf")) -> "Latencies":
        """Those of the messages that fell due in a stretch of time."""
        return Latencies([(due, milliseconds) for due, milliseconds in self.messages if start <= due < end])

    def share(self, share: float) -> float:
        """The latency that this share of the messages did not exceed; 0 if there were none."""
        ordered = sorted(milliseconds for _, milliseconds in self.messages)
        return ordered[int((len(ordered) - 1) * share)] if ordered else 0.0

    @property
    def p99(self) -> float:
        return self.share(0.99)

    @property
    def slowest(self) -> float:
        return self.share(1.0)


Scenario = Callable[[], list[Finding]]
