"""The clock of a real relay, and of the commands that open its spool."""

import asyncio
import time
from functools import partial


class SystemClock:
    """A Clock (`core.ports`) over the host's."""

    now = staticmethod(time.time)
    # Unlike the clock of that name, it goes on while the host is asleep: mail grows old then too.
    monotonic = staticmethod(partial(time.clock_gettime, time.CLOCK_BOOTTIME))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
