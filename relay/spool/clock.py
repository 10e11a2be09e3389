"""The spool's own clock, on which messages fall due and grow old. No jump of the wall clock moves it.

Within a process it runs with the monotonic clock. From one process to the next it goes on by the time the wall clock
says has passed, and never backwards. So a host that starts in 1970 and learns the date later neither bounces its mail
as decades old, nor waits for decades.
"""

from typing import Final

from relay.core.ports import Clock

CLOCK_SET: Final = 1_700_000_000.0  # November 2023: a clock on the wall that shows less has never been set


class SpoolClock:
    """Seconds since the spool was made, as far as anybody can tell."""

    def __init__(self, clock: Clock, *, time: float, wall: float) -> None:
        """`time` is what this clock said when it was last written down, and `wall` what the one on the wall said."""
        self._clock = clock
        away = max(0.0, clock.now() - wall) if wall >= CLOCK_SET else 0.0
        self._base = time + away - clock.monotonic()

    def now(self) -> float:
        return self._base + self._clock.monotonic()

    def wall(self, time: float) -> float:
        """When that will be, or was, by the clock on the wall as it goes now."""
        return self._clock.now() + (time - self.now())
