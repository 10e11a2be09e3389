"""How long a client may go on without progress, and what counts as progress. Pure: time is handed in.

Between messages it is a whole line: one octet now and then holds no session. Within content every octet counts, and the
time that has been used up comes back with the octets, at the rate of a very slow line: who sends less than that for
long enough has no time left, however steadily it comes.
"""

from typing import Final

FLOOR: Final = 100.0  # octets of content a second


class Pace:
    """The time of one session. `limit`: seconds without any progress."""

    __slots__ = ("_deadline", "_in_data", "_limit", "_lines", "_octets", "trickled")

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._deadline: float | None = None
        self._in_data = False
        self._lines = self._octets = 0
        self.trickled = False

    def restart(self) -> None:
        """The client was not in charge for a time; all of its own is before it."""
        self._deadline = None

    def left(self, now: float, *, in_data: bool, lines: int, octets: int) -> float:
        """The seconds that are left; `lines` heard and `octets` received since the session began.

        `trickled` says whether something has come that was no progress, or not enough.
        """
        gained = octets - self._octets
        if self._deadline is None or in_data is not self._in_data or lines != self._lines:
            self._deadline = now + self._limit
            self.trickled = False
        elif gained:
            if in_data:
                self._deadline = min(now + self._limit, self._deadline + gained / FLOOR)
            self.trickled = self._deadline < now + self._limit
        self._in_data, self._lines, self._octets = in_data, lines, octets
        return max(0.0, self._deadline - now)
