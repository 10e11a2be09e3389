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
        self._deadline = 0.0
        self._in_data = False
        self._lines = -1
        self._octets = 0
        self.trickled = False

    def restart(self) -> None:
        """The client was not in charge for a time; all of its own is before it."""
        self._lines = -1

    def deadline(self, now: float, lines: int, octets: int, *, in_data: bool) -> float:
        """When its time is over; `lines` heard and `octets` received since the session began.

        `trickled` says whether something has come that was no progress, or not enough.
        """
        if lines != self._lines or in_data is not self._in_data:
            self._in_data, self._lines = in_data, lines
            self._deadline = now + self._limit
            self.trickled = False
        elif octets != self._octets:
            if in_data:
                self._deadline = min(now + self._limit, self._deadline + (octets - self._octets) / FLOOR)
            self.trickled = self._deadline < now + self._limit
        self._octets = octets
        return self._deadline
