"""Gives a target its inputs, watches time and memory, and makes small what fails."""

import gc
import hashlib
import os
import signal
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.fuzz.mutation import Mutator

SLOW_SECONDS = 0.05  # of CPU time, for one input
HANG_SECONDS = 5.0  # of CPU time, after which it is ended
GROWTH = 8_000_000  # octets of memory that a run may gain once it is warm
WARM = 0.25  # share of a run after which caches and pools are full
MOST_KINDS = 20_000


@dataclass(frozen=True)
class Target:
    """A reader. `check` raises for what is a defect; what it gives back says what the input made it do."""

    name: str
    check: Callable[[bytes], Hashable]
    seeds: Sequence[bytes]
    tokens: Sequence[bytes]
    share: int = 1  # of all inputs
    longest: int = 16_384


@dataclass(frozen=True)
class Defect:
    """An input that must not do what it does, as small as it could be made."""

    target: str
    octets: bytes
    words: str

    def save(self, folder: Path) -> Path:
        """Where it can be played again from; its name tells for whom it is."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{self.target}-{hashlib.sha256(self.octets).hexdigest()[:12]}"
        file.write_bytes(self.octets)
        return file


@dataclass(frozen=True)
class Figures:
    """What a run over one target came to."""

    target: str
    inputs: int
    octets: int
    kinds: int
    seconds: float
    slowest: float
    growth: int
    defects: list[Defect]


class Hang(Exception):
    """An input took all the time there was for it."""


class Slow(Exception):
    """An input took too long."""


def run(target: Target, inputs: int, seed: int, *, most_defects: int = 3) -> Figures:
    """So many inputs; ends early when enough is wrong."""
    mutator = Mutator(Random(f"{seed}/{target.name}"), target.seeds, target.tokens, target.longest)
    defects: list[Defect] = []
    kinds: set[int] = set()
    octets_in_all, slowest = 0, 0.0
    warm_at, memory = int(inputs * WARM), 0
    began = time.process_time()
    for number in range(inputs):
        if number == warm_at:
            memory = _memory()
        octets = mutator.next() if number >= len(target.seeds) else target.seeds[number][: target.longest]
        octets_in_all += len(octets)
        try:
            kind, seconds = attempt(target, octets)
        except Exception as error:
            small = shrunk(target, octets, type(error))
            defects.append(Defect(target.name, small, words_of(target, small) or f"once: {error!r}"))
            if len(defects) == most_defects:
                break
            continue
        slowest = max(slowest, seconds)
        if kind not in kinds and len(kinds) < MOST_KINDS:
            kinds.add(kind)
            mutator.keep(octets)
    growth = _memory() - memory if memory else 0
    took = time.process_time() - began
    return Figures(target.name, inputs, octets_in_all, len(kinds), took, slowest, growth, defects)


def attempt(target: Target, octets: bytes) -> tuple[int, float]:
    """What kind of thing it did, and in how much time; raises what the target raises, Slow or Hang."""
    with _ended_after(HANG_SECONDS):
        began = time.thread_time()
        kind = hash(target.check(octets))
        seconds = time.thread_time() - began
        for _ in range(3):  # whatever else takes time in a process does not do so always
            if seconds <= SLOW_SECONDS:
                break
            began = time.thread_time()
            target.check(octets)
            seconds = min(seconds, time.thread_time() - began)
    if seconds > SLOW_SECONDS:
        raise Slow(f"{seconds * 1000:.0f} ms for {len(octets)} octets")
    return kind, seconds


def words_of(target: Target, octets: bytes) -> str | None:
    """What is wrong with what an input does; None if nothing is."""
    try:
        attempt(target, octets)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def shrunk(target: Target, octets: bytes, kind: type[Exception]) -> bytes:
    """A part of the input that fails in the same way, and from which no piece can be taken."""

    def fails(part: bytes) -> bool:
        try:
            attempt(target, part)
        except Exception as error:
            return type(error) is kind
        return False

    size = len(octets) // 2
    deadline = time.monotonic() + 30
    while size and time.monotonic() < deadline:
        at, smaller = 0, octets
        while at < len(smaller):
            part = smaller[:at] + smaller[at + size :]
            if fails(part):
                smaller = part
            else:
                at += size
        size = size if len(smaller) < len(octets) else size // 2
        octets = smaller
    return octets


@contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """Raises Hang in what runs longer; the clock is that of the process's CPU time."""
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


@contextmanager
def watched() -> Iterator[None]:
    """Inputs that hang are ended within this; in the main thread only."""

    def hang(*_: object) -> None:
        raise Hang(f"it took {HANG_SECONDS:g} s and did not end")

    before = signal.signal(signal.SIGVTALRM, hang)
    try:
        yield
    finally:
        signal.signal(signal.SIGVTALRM, before)


def _memory() -> int:
    """Octets of this process that are in memory, without what could be freed at once."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
