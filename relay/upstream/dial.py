"""Finding a port that works: every address of every port, raced without haste.

The idea of RFC 8305 over ports and addresses: the preferred port first, its next address a quarter of a second later
while there is no connection, the next port beside it when it has not come to anything within `fallback_after`, and at
once when all that is under way has failed. What "works" means is the caller's business: an attempt gets an address,
says when it is connected, and either returns or raises UpstreamFailure.

The port that worked is tried first next time. Now and then a preferred one is probed again, beside the mail and never
in its way. Names are looked up for each dial: SparkPost's load balancers come and go.
"""

import asyncio
import itertools
import socket
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, Protocol, TypeVar, cast

import structlog

from relay.core.login import Endpoint, Target
from relay.core.outcome import Answer, Fact, Failure, FailureKind, Phase
from relay.observe import log as events

log = structlog.get_logger()

ADDRESS_DELAY: Final = 0.25  # seconds; RFC 8305 §5 recommends it
MEMORY_SECONDS: Final = 300.0  # after which a preferred port is probed again
PROBE_SECONDS: Final = 10.0
FAIR_SECONDS: Final = 2.0  # what a dial must have had before silence is held against a target
SUSPICION: Final = 4.0  # seconds; a dial that has come to nothing by then is no reason to keep applications waiting

_SILENT: Final = Failure(Phase.BANNER, FailureKind.TIMEOUT, "silent")
_LATE: Final = Failure(Phase.BANNER, FailureKind.DEADLINE, "silent, and the application waits no longer")

T = TypeVar("T")
SocketAddress = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


class Slots(Protocol):
    """The connections there may be. A dial has one slot; to run another attempt beside the first it takes one more."""

    def take(self) -> bool:
        """True if there was one to spare."""
        ...

    def give(self) -> None: ...


class Watcher(Protocol):
    """Hears what dials tell of a target."""

    def target_down(self, target: Target, fact: Fact) -> None:
        """No port of it has worked in a dial, or none has come to anything for SUSPICION seconds."""
        ...

    def target_up(self, target: Target, port: int) -> None:
        """This port of it works."""
        ...

    def fell_back(self, target: Target, port: int) -> None:
        """Mail has moved from the preferred port to this one."""
        ...


class UpstreamFailure(Exception):
    """An attempt came to nothing; `fact` says in which phase and why."""

    def __init__(self, fact: Fact) -> None:
        super().__init__(str(fact))
        self.fact = fact


@dataclass(frozen=True, slots=True)
class Candidate:
    endpoint: Endpoint
    family: socket.AddressFamily
    address: SocketAddress


def _cut_short(fact: Fact) -> bool:
    return isinstance(fact, Failure) and fact.kind is FailureKind.DEADLINE


def not_now(fact: Fact) -> bool:
    """A greeting of 4yz: the service is there and wants to be left alone, so no other port is tried."""
    return isinstance(fact, Answer) and fact.phase is Phase.BANNER and fact.reply.transient


class Dialler(Generic[T]):
    """Makes connections to targets; `attempt` gets a candidate and returns what the caller wants of it.

    `watcher` hears how targets are; `discard` gets what a probe found.
    """

    def __init__(
        self,
        attempt: Callable[[Candidate, Callable[[], None]], Awaitable[T]],
        *,
        fallback_after: float,
        watcher: Watcher | None = None,
        discard: Callable[[T], Awaitable[None]] | None = None,
    ) -> None:
        self._attempt = attempt
        self._fallback_after = fallback_after
        self._watcher = watcher
        self._discard = discard
        self._probes: dict[Target, asyncio.Task[None]] = {}
        self._remembered: dict[Target, tuple[int, float]] = {}

    async def dial(self, target: Target, deadline: float, slots: Slots) -> T:
        """The first attempt that succeeds before `deadline` (loop time).

        Raises UpstreamFailure with the causes of all that failed, and the names of those that had not answered by then.
        """
        ports = self._ports(target, slots)
        failures: list[tuple[Endpoint, Fact]] = []
        loop = asyncio.get_running_loop()
        started = loop.time()
        overdue = loop.call_later(SUSPICION, self._tell_down, target, _SILENT)
        try:
            candidate, result = await self._race(target, ports, deadline, slots, failures)
        except UpstreamFailure as failure:
            # A dial that was given hardly any time says nothing about the target.
            if not _cut_short(failure.fact) or loop.time() - started >= FAIR_SECONDS:
                self._tell_down(target, failure.fact)
            raise
        finally:
            overdue.cancel()
        self._worked(target, candidate.endpoint.port, failures)
        return result

    def _tell_down(self, target: Target, fact: Fact) -> None:
        if self._watcher is not None:
            self._watcher.target_down(target, fact)

    def _ports(self, target: Target, slots: Slots) -> list[int]:
        """The ports to try: the one that worked last, then the others in their order."""
        loop = asyncio.get_running_loop()
        port, until = self._remembered.get(target, (target.ports[0], float("inf")))
        if loop.time() > until and target not in self._probes and slots.take():
            # What it finds is only a hint for later dials: it need not be waited for, not even at the end.
            self._probes[target] = loop.create_task(self._probe(target, port, slots))
        return [port, *(other for other in target.ports if other != port)]

    async def _probe(self, target: Target, fallback: int, slots: Slots) -> None:
        """Is a port that is preferred to `fallback` usable again? The probe has a slot of its own."""
        loop = asyncio.get_running_loop()
        preferred = list(target.ports[: target.ports.index(fallback)])
        try:
            failures: list[tuple[Endpoint, Fact]] = []
            candidate, found = await self._race(target, preferred, loop.time() + PROBE_SECONDS, slots, failures)
            self._worked(target, candidate.endpoint.port, failures)
            if self._discard is not None:
                await self._discard(found)
        except UpstreamFailure:
            self._remembered[target] = (fallback, loop.time() + MEMORY_SECONDS)
        finally:
            del self._probes[target]
            slots.give()

    def _worked(self, target: Target, port: int, failures: list[tuple[Endpoint, Fact]]) -> None:
        if self._watcher is not None:
            self._watcher.target_up(target, port)
        if port == target.ports[0]:
            if self._remembered.pop(target, None) is not None:
                log.warning(events.UPSTREAM_UP, host=target.host, port=port)
            return
        remembered, _ = self._remembered.get(target, (None, 0.0))
        if remembered == port or not failures:  # no failure: a probe has found a better port meanwhile
            return
        if remembered is None:
            log.warning(events.UPSTREAM_FALLBACK, host=target.host, port=port, reason=str(_summary(failures)))
            if self._watcher is not None:
                self._watcher.fell_back(target, port)
        self._remembered[target] = (port, asyncio.get_running_loop().time() + MEMORY_SECONDS)

    async def _race(
        self,
        target: Target,
        ports: list[int],
        deadline: float,
        slots: Slots,
        failures: list[tuple[Endpoint, Fact]],
    ) -> tuple[Candidate, T]:
        """Attempts beside each other where slots allow, in each other's place where not."""
        loop = asyncio.get_running_loop()
        spare = 0
        waiting = await _resolved(target.host, ports, deadline)
        running: dict[asyncio.Task[T], Candidate] = {}
        connected: set[Candidate] = set()
        first_dial: dict[int, float] = {}
        next_dial = loop.time()
        try:
            while waiting or running:
                now = loop.time()
                if waiting and (not running or now >= next_dial):
                    over = {port for port, started in first_dial.items() if now >= started + self._fallback_after}
                    waiting.sort(key=lambda candidate: candidate.endpoint.port in over)
                    port = waiting[0].endpoint.port
                    if port in first_dial and port not in over and connected.intersection(running.values()):
                        # Somebody there is talking, and far away: another address would not be faster.
                        next_dial = first_dial[port] + self._fallback_after
                        continue
                    if len(running) > spare and slots.take():
                        spare += 1
                    elif len(running) > spare:
                        oldest = next(iter(running))
                        failures.append((running.pop(oldest).endpoint, _SILENT))
                        await _cancel([oldest])
                    candidate = waiting.pop(0)
                    attempt = self._attempt(candidate, partial(connected.add, candidate))
                    running[loop.create_task(_run(attempt))] = candidate
                    next_dial = first_dial.setdefault(port, now) + self._fallback_after
                    if port in over:
                        next_dial = now + ADDRESS_DELAY
                    elif waiting and waiting[0].endpoint.port == port:
                        next_dial = min(next_dial, now + ADDRESS_DELAY)
                    continue
                until = min(next_dial, deadline) if waiting else deadline
                done, _ = await asyncio.wait(
                    running, timeout=max(0.0, until - now), return_when=asyncio.FIRST_COMPLETED
                )
                if not done and loop.time() >= deadline:
                    failures += ((candidate.endpoint, _LATE) for candidate in running.values())
                    break
                for task in done:
                    candidate = running.pop(task)
                    error = task.exception()
                    if error is None:
                        failures += ((slower.endpoint, _SILENT) for slower in running.values())
                        return candidate, task.result()
                    if not isinstance(error, UpstreamFailure):
                        raise error
                    if not_now(error.fact):
                        raise error
                    failures.append((candidate.endpoint, error.fact))
                    next_dial = loop.time()
        finally:
            await _cancel(running)
            for _ in range(spare):
                slots.give()
        raise UpstreamFailure(_summary(failures))


async def _cancel(tasks: Collection[asyncio.Task[T]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


async def _run(attempt: Awaitable[T]) -> T:
    return await attempt


async def _resolved(host: str, ports: list[int], deadline: float) -> list[Candidate]:
    try:
        async with asyncio.timeout_at(deadline):
            return await candidates(host, ports)
    except TimeoutError as error:
        text = f"{host} cannot be resolved: the name servers are silent"
        raise UpstreamFailure(Failure(Phase.RESOLVE, FailureKind.UNRESOLVED, text)) from error


async def candidates(host: str, ports: list[int]) -> list[Candidate]:
    """Every address of every port, in order, address families in turn; raises UpstreamFailure if there is none."""
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        text = f"{host} cannot be resolved: {error.strerror or error}"
        raise UpstreamFailure(Failure(Phase.RESOLVE, FailureKind.UNRESOLVED, text)) from error
    families: dict[socket.AddressFamily, list[SocketAddress]] = {}
    for family, _, _, _, address in infos:
        families.setdefault(family, []).append(address)
    turns = itertools.zip_longest(*([(family, address) for address in found] for family, found in families.items()))
    in_turn = [pair for turn in turns for pair in turn if pair is not None]
    return [
        Candidate(Endpoint(host, port, str(address[0])), family, _with_port(address, port))
        for port in ports
        for family, address in in_turn
    ]


def _with_port(address: SocketAddress, port: int) -> SocketAddress:
    return cast("SocketAddress", (address[0], port, *address[2:]))  # IPv6 addresses have flow and scope behind the port


def _summary(failures: list[tuple[Endpoint, Fact]]) -> Fact:
    """All ports have failed: one fact with the cause of each port, the most telling address of it."""
    causes: dict[int, Fact] = {}
    for endpoint, fact in failures:
        known = causes.get(endpoint.port)
        # An address that refuses says less than one that got further.
        if known is None or (known.phase is Phase.CONNECT and fact.phase is not Phase.CONNECT):
            causes[endpoint.port] = fact
    text = "; ".join(f"port {port}: {fact}" for port, fact in causes.items())
    last = failures[-1][1]
    kind = last.kind if isinstance(last, Failure) else FailureKind.PROTOCOL
    return Failure(last.phase, kind, text)
