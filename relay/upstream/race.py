"""One race for a target: every address of every port, beside each other, without haste.

The idea of RFC 8305 over ports and addresses: the first port, its next address a quarter of a second later while there
is no connection, the next port beside it when it has not come to anything within `fallback_after`, and at once when all
that is under way has failed. Attempts run beside each other where slots allow, in each other's place where not.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

from relay.core.login import Endpoint
from relay.core.outcome import Fact, Failure, FailureKind, Phase
from relay.upstream.addresses import Candidate
from relay.upstream.failure import UpstreamFailure, not_now

ADDRESS_DELAY: Final = 0.25  # seconds; RFC 8305 §5 recommends it

SILENT: Final = Failure(Phase.BANNER, FailureKind.TIMEOUT, "silent")
_LATE: Final = Failure(Phase.BANNER, FailureKind.DEADLINE, "silent, and the application waits no longer")

T = TypeVar("T")
Attempt = Callable[[Candidate, Callable[[], None]], Coroutine[Any, Any, T]]


class Slots(Protocol):
    """The connections there may be. A dial has one slot; to run another attempt beside the first it takes one more."""

    def take(self) -> bool:
        """True if there was one to spare."""
        ...

    def give(self) -> None: ...


class Race(Generic[T]):
    """Candidates in order of preference; the first attempt that succeeds wins, and the others are cancelled.

    `failures` says what has come of the attempts that did not win.
    """

    def __init__(
        self, attempt: Attempt[T], candidates: Sequence[Candidate], *, fallback_after: float, slots: Slots
    ) -> None:
        self.failures: list[tuple[Endpoint, Fact]] = []
        self._attempt = attempt
        self._candidates = candidates
        self._fallback_after = fallback_after
        self._slots = slots
        self._loop = asyncio.get_running_loop()
        self._waiting = list(candidates)
        self._running: dict[asyncio.Task[T], Candidate] = {}
        self._connected: set[Candidate] = set()
        self._spare = 0
        self._first_dial: dict[int, float] = {}  # by port
        self._next_dial = self._loop.time()
        self._stirred: asyncio.Future[None] = self._loop.create_future()

    def hear(self, port: int) -> None:
        """Another dial has got through by this port: if it has been silent here, it is worth another try."""
        now = self._loop.time()
        if now >= self._first_dial.get(port, now) + self._fallback_after:
            again = [candidate for candidate in self._candidates if candidate.endpoint.port == port]
            self._waiting = again + self._waiting
            self._first_dial.pop(port, None)
            self._next_dial = now
            if not self._stirred.done():
                self._stirred.set_result(None)

    async def run(self, deadline: float) -> tuple[Candidate, T]:
        """The winner, and what came of its attempt.

        Raises UpstreamFailure with the causes of all that failed, and of those that had not answered by `deadline`.
        """
        try:
            while self._waiting or self._running:
                now = self._loop.time()
                if self._waiting and (not self._running or now >= self._next_dial):
                    await self._dial(now)
                    continue
                until = min(self._next_dial, deadline) if self._waiting else deadline
                events: set[asyncio.Future[Any]] = {*self._running, self._stirred}
                await asyncio.wait(events, timeout=max(0.0, until - now), return_when=asyncio.FIRST_COMPLETED)
                if self._stirred.done():
                    self._stirred = self._loop.create_future()
                    continue
                done = [task for task in self._running if task.done()]
                if not done and self._loop.time() >= deadline:
                    self._give_up(_LATE)
                    break
                for task in done:
                    if (winner := self._reap(task)) is not None:
                        self._give_up(SILENT)
                        return winner, task.result()
        finally:
            await _cancel(self._running)
            for _ in range(self._spare):
                self._slots.give()
        raise UpstreamFailure(summary(self.failures))

    async def _dial(self, now: float) -> None:
        """Begin the next attempt, unless there is reason to wait with it."""
        over = {port for port, started in self._first_dial.items() if now >= started + self._fallback_after}
        self._waiting.sort(key=lambda candidate: candidate.endpoint.port in over)
        port = self._waiting[0].endpoint.port
        talking = {one.endpoint.port for one in self._running.values() if one in self._connected}
        if port in self._first_dial and port not in over and port in talking:
            # Somebody there is talking, and far away: another address would not be faster.
            self._next_dial = self._first_dial[port] + self._fallback_after
            return
        if len(self._running) > self._spare:
            if self._slots.take():
                self._spare += 1
            else:
                oldest = next(iter(self._running))
                self.failures.append((self._running.pop(oldest).endpoint, SILENT))
                await _cancel([oldest])
        candidate = self._waiting.pop(0)
        attempt = self._attempt(candidate, partial(self._connected.add, candidate))
        self._running[self._loop.create_task(attempt)] = candidate
        self._next_dial = self._first_dial.setdefault(port, now) + self._fallback_after
        if port in over:
            self._next_dial = now + ADDRESS_DELAY
        elif self._waiting and self._waiting[0].endpoint.port == port:
            self._next_dial = min(self._next_dial, now + ADDRESS_DELAY)

    def _reap(self, task: "asyncio.Task[T]") -> Candidate | None:
        """The candidate if it has won; raises what ends the race."""
        candidate = self._running.pop(task)
        error = task.exception()
        if error is None:
            return candidate
        if not isinstance(error, UpstreamFailure) or not_now(error.fact):
            raise error
        self.failures.append((candidate.endpoint, error.fact))
        self._next_dial = self._loop.time()
        return None

    def _give_up(self, fact: Fact) -> None:
        """Those who have not come to anything yet are too late."""
        self.failures += ((candidate.endpoint, fact) for candidate in self._running.values())


async def _cancel(tasks: "Collection[asyncio.Task[T]]") -> None:
    """End them; what they came to in their last moment does not matter."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def summary(failures: Sequence[tuple[Endpoint, Fact]]) -> Fact:
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
