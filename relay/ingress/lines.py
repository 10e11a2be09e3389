"""Cuts what a client sends into command lines; the first of them decides what ends a line in this session.

A line that is too long is read to its end and dropped, so that its middle is never taken for a command.
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from relay.core.tolerance import Tolerance
from relay.ingress.unwrapping import LineEnd

COMMAND_LIMIT: Final = 4096  # octets; RFC 5321 §4.5.3.1.4 asks for 512, RFC 3461 adds parameters
AUTH_LIMIT: Final = 12_288  # octets; RFC 4954 §4.5
TLS_HANDSHAKE: Final = b"\x16\x03"


class Mishap(Enum):
    """What came in place of a line."""

    TOO_LONG = auto()
    MIXED_LINE_ENDS = auto()
    TLS_HANDSHAKE = auto()


class CommandLines:
    """The octets of one session that nobody has dealt with yet, a line at a time; `taken` is how many were lines."""

    def __init__(self, tolerated: Callable[[Tolerance], None]) -> None:
        self.line_end: LineEnd | None = None
        self._tolerated = tolerated
        self._octets = b""
        self._at = 0
        self._overlong = False
        self.taken = 0

    def add(self, octets: bytes) -> None:
        """Octets from the client, behind those that wait."""
        self._octets = self._octets[self._at :] + octets if self._at < len(self._octets) else octets
        self._at = 0

    @property
    def waiting(self) -> int:
        """How many octets have not been taken."""
        return len(self._octets) - self._at

    def take_all(self) -> bytes:
        """Everything that waits, lines or not."""
        octets, self._octets = self._octets[self._at :] if self._at else self._octets, b""
        self._at = 0
        return octets

    def next(self, *, in_auth: bool) -> bytes | Mishap | None:
        """The next line without its end, or what is wrong with it; None until there is one. In an AUTH exchange lines
        may be longer.
        """
        octets, start = self._octets, self._at
        if self.line_end is None and octets.startswith(TLS_HANDSHAKE, start):
            return Mishap.TLS_HANDSHAKE
        end = octets.find(b"\n", start)
        if end < 0 or end - start > COMMAND_LIMIT:
            limit = AUTH_LIMIT if in_auth or octets[start : start + 5].upper() == b"AUTH " else COMMAND_LIMIT
            if end < 0:
                if self.waiting > limit:
                    self._overlong = True
                    self._octets, self._at = octets[-1:], 0  # it may be the CR of the line end
                return None
            self._overlong |= end - start > limit
        self._at = end + 1
        self.taken += 1
        line_end = LineEnd.CRLF if octets.endswith(b"\r", start, end) else LineEnd.LF
        if line_end is not self.line_end:
            if self.line_end is not None:
                return Mishap.MIXED_LINE_ENDS
            self.line_end = line_end
            if line_end is LineEnd.LF:
                self._tolerated(Tolerance.BARE_LF)
        if self._overlong:
            self._overlong = False
            return Mishap.TOO_LONG
        return octets[start : end - (line_end is LineEnd.CRLF)]
