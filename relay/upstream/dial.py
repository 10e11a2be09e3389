"""Finding a port that works, and remembering it.

Each dial is a `Race` over the ports and addresses of a target. What "works" means is the caller's business: an attempt
gets an address, says when it is connected, and either returns or raises UpstreamFailure.

The port that worked is tried first next time, and dials that are still waiting for it hear of it. Now and then a
preferred port is probed again, beside the mail and never in its way; where there may be no connection beside the
mail's, one dial begins with it instead.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, Protocol, TypeVar

import structlog

from relay.core.login import Endpoint, Target
from relay.core.outcome import Fact, Failure, FailureKind
from relay.observe import log as events
from relay.upstream.addresses import Candidate, Names
from relay.upstream.failure import UpstreamFailure
from relay.upstream.race import SILENT, Attempt, Race, Slots, summary

log = structlog.get_logger()

MEMORY_SECONDS: Final = 300.0  # after which a preferred port is probed again
PROBE_SECONDS: Final = 10.0
FAIR_SECONDS: Final = 2.0  # what a dial must have had before silence is held against a target
SUSPICION: Final = 4.0  # seconds; a dial that has come to nothing by then is no reason to keep applications waiting

T = TypeVar("T")
Failures = Sequence[tuple[Endpoint, Fact]]


class Watcher(Protocol):
    """Hears what dials tell of a target."""

    def target_down(self, target: Target, fact: Fact) -> None:
        """No port of it has worked in a dial, or none has come to anything for SUSPICION seconds; nor in another dial
        meanwhile.
        """
        ...

    def target_up(self, target: Target, port: int) -> None:
        """This port of it works."""
        ...

    def fell_back(self, target: Target, port: int) -> None:
        """Mail has moved from the preferred port to this one."""
        ...


def _cut_short(fact: Fact) -> bool:
    return isinstance(fact, Failure) and fact.kind is FailureKind.DEADLINE


class Dialler(Generic[T]):
    """Makes connections to targets; `attempt` gets a candidate and returns what the caller wants of it.

    `watcher` hears how targets are; `discard` gets what a probe found.
    """

    def __init__(
        self,
        attempt: Attempt[T],
        *,
        fallback_after: float,
        watcher: Watcher | None = None,
        discard: Callable[[T], Awaitable[None]] | None = None,
    ) -> None:
        self._attempt = attempt
        self._fallback_after = fallback_after
        self._names = Names(fallback_after)
        self._watcher = watcher
        self._discard = discard
        self._probes: dict[Target, asyncio.Task[None]] = {}
        self._remembered: dict[Target, tuple[int, float]] = {}
        self._worked_last: dict[Target, float] = {}
        self._races: dict[Target, set[Race[T]]] = {}

    async def dial(self, target: Target, deadline: float, slots: Slots) -> T:
        """The first attempt that succeeds before `deadline` (loop time).

        Raises UpstreamFailure with the causes of all that failed, and the names of those that had not answered by then.
        """
        ports = self._ports(target, slots)
        loop = asyncio.get_running_loop()
        started = loop.time()
        overdue = loop.call_later(SUSPICION, self._tell_down, target, SILENT, started)
        try:
            candidate, result, failures = await self._race(target, ports, deadline, slots)
        except UpstreamFailure as failure:
            # A dial that was given hardly any time says nothing about the target.
            if not _cut_short(failure.fact) or loop.time() - started >= FAIR_SECONDS:
                self._tell_down(target, failure.fact, started)
            raise
        finally:
            overdue.cancel()
        self._worked(target, candidate.endpoint.port, failures)
        return result

    def _tell_down(self, target: Target, fact: Fact, started: float) -> None:
        """What a dial has waited for in vain is no news if another that was under way with it has found the target."""
        outdated = isinstance(fact, Failure) and self._worked_last.get(target, float("-inf")) >= started
        if self._watcher is not None and not outdated:
            self._watcher.target_down(target, fact)

    def _ports(self, target: Target, slots: Slots) -> list[int]:
        """The ports to try: the one that worked last, then the others in their order.

        Where a preferred port is due to be probed and there is no connection to spare for it, all in their order.
        """
        loop = asyncio.get_running_loop()
        port, until = self._remembered.get(target, (target.ports[0], float("inf")))
        if loop.time() > until and target not in self._probes:
            if not slots.take():
                self._remembered[target] = (port, loop.time() + MEMORY_SECONDS)
                return list(target.ports)
            # What it finds is only a hint for later dials: it need not be waited for, not even at the end.
            self._probes[target] = loop.create_task(self._probe(target, port, slots))
        return [port, *(other for other in target.ports if other != port)]

    async def _probe(self, target: Target, fallback: int, slots: Slots) -> None:
        """Is a port that is preferred to `fallback` usable again? The probe has a slot of its own."""
        loop = asyncio.get_running_loop()
        preferred = list(target.ports[: target.ports.index(fallback)])
        try:
            candidate, found, failures = await self._race(target, preferred, loop.time() + PROBE_SECONDS, slots)
            self._worked(target, candidate.endpoint.port, failures)
            if self._discard is not None:
                await self._discard(found)
        except UpstreamFailure:
            self._remembered[target] = (fallback, loop.time() + MEMORY_SECONDS)
        finally:
            del self._probes[target]
            slots.give()

    def _worked(self, target: Target, port: int, failures: Failures) -> None:
        self._worked_last[target] = asyncio.get_running_loop().time()
        for race in self._races.get(target, ()):
            race.hear(port)
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
            log.warning(events.UPSTREAM_FALLBACK, host=target.host, port=port, reason=str(summary(failures)))
            if self._watcher is not None:
                self._watcher.fell_back(target, port)
        self._remembered[target] = (port, asyncio.get_running_loop().time() + MEMORY_SECONDS)

    async def _race(
        self, target: Target, ports: Sequence[int], deadline: float, slots: Slots
    ) -> tuple[Candidate, T, Failures]:
        """Who won, what came of it, and what came of the others."""
        candidates = await self._names.candidates(target.host, ports, deadline)
        race = Race(self._attempt, candidates, fallback_after=self._fallback_after, slots=slots)
        self._races.setdefault(target, set()).add(race)
        try:
            candidate, found = await race.run(deadline)
        finally:
            self._races[target].discard(race)
        return candidate, found, race.failures
