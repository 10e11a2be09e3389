"""Clocks that a test moves: for what sleeps, for what only asks how late it is, and for a whole relay."""

import asyncio
import itertools
from heapq import heappop, heappush

from relay.clock import SystemClock

NOON = 1_764_000_000.0  # 2025-11-24


class HandClock:
    """A Clock whose `sleep` ends when `advance` has come that far.

    `sleeping` is how many are asleep on it; `settle` lets everybody else run until they wait for something.
    """

    def __init__(self, wall: float = NOON) -> None:
        self._wall = wall
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self._wall + self._elapsed

    def monotonic(self) -> float:
        return self._elapsed

    @property
    def sleeping(self) -> int:
        return sum(not future.done() for _, _, future in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heappush(self._sleepers, (self._elapsed + seconds, next(self._order), future))
        await future

    def skip(self, seconds: float) -> None:
        """Move the time without waking anybody, for what only asks how late it is."""
        self._elapsed += seconds

    async def advance(self, seconds: float) -> None:
        """Move the time, and let each sleeper whose time has come act before the time goes on."""
        end = self._elapsed + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            until, _, future = heappop(self._sleepers)
            self._elapsed = max(self._elapsed, until)
            if not future.done():
                future.set_result(None)
            await self.settle()
        self._elapsed = max(self._elapsed, end)

    async def settle(self) -> None:
        """Give everybody who can go on the time to do it."""
        for _ in range(20):
            await asyncio.sleep(0)


class ManualClock:
    """A Clock that goes only when it is told to; sleeping takes no time."""

    def __init__(self, wall: float = 1_800_000_000.0) -> None:
        self._wall = wall
        self._monotonic = 1000.0

    def now(self) -> float:
        return self._wall

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self._wall += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Somebody sets the clock on the wall."""
        self._wall += seconds

    def reboot(self, seconds: float) -> None:
        """The host was off for so long: its monotonic clock begins anew."""
        self._wall += seconds
        self._monotonic = 3.0


class LaterClock(SystemClock):
    """The real clock, and so much later."""

    later = 0.0

    def now(self) -> float:
        return super().now() + self.later

    def monotonic(self) -> float:
        return super().monotonic() + self.later
