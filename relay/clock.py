"""The clock of a real relay, and of the commands that open its spool."""

import asyncio
import time


class SystemClock:
    """A Clock (`core.ports`) over the host's."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        # Unlike the clock of that name, it goes on while the host is asleep: mail grows old then too.
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
