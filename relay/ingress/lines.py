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

_CR: Final = 0x0D
_CRLF, _LF = LineEnd.CRLF, LineEnd.LF


class Mishap(Enum):
    """What came in place of a line."""

    TOO_LONG = auto()
    MIXED_LINE_ENDS = auto()
    TLS_HANDSHAKE = auto()


class CommandLines:
    """The octets of one session that nobody has dealt with yet, a line at a time; `taken` is how many were lines."""

    __slots__ = ("_at", "_octets", "_overlong", "_tolerated", "line_end", "taken")

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
        end = octets.find(b"\n", start)
        if end < 0:
            return self._unfinished(in_auth=in_auth) if start < len(octets) else None
        line_end = _CRLF if end > start and octets[end - 1] == _CR else _LF
        if self._overlong or end - start > COMMAND_LIMIT or line_end is not self.line_end:
            mishap = self._unusual(start, end, line_end, in_auth=in_auth)
            if mishap is not None:
                return mishap
        self._at = end + 1
        self.taken += 1
        return octets[start : end - 1 if line_end is _CRLF else end]

    def _unfinished(self, *, in_auth: bool) -> Mishap | None:
        """What has come of a line: as much as one may have waits; of one that is too long nothing but its end does."""
        if self._begins_with_tls():
            return Mishap.TLS_HANDSHAKE
        if self.waiting > self._limit(in_auth=in_auth):
            self._overlong = True
            self._octets, self._at = self._octets[-1:], 0  # it may be the CR of the line end
        return None

    def _unusual(self, start: int, end: int, line_end: LineEnd, *, in_auth: bool) -> Mishap | None:
        """The first line, or one that is perhaps none; what it is taken for in that case."""
        if self._begins_with_tls():
            return Mishap.TLS_HANDSHAKE
        too_long = self._overlong or end - start > self._limit(in_auth=in_auth)
        changed = self.line_end is not None and line_end is not self.line_end
        if self.line_end is None:
            self.line_end = line_end
            if line_end is _LF:
                self._tolerated(Tolerance.BARE_LF)
        if not (too_long or changed):
            return None
        self._at = end + 1
        self.taken += 1
        self._overlong = False
        return Mishap.MIXED_LINE_ENDS if changed else Mishap.TOO_LONG

    def _begins_with_tls(self) -> bool:
        """Is this a session's first octets, and a ClientHello?"""
        return self.line_end is None and self._octets.startswith(TLS_HANDSHAKE, self._at)

    def _limit(self, *, in_auth: bool) -> int:
        """Octets that the next line may have."""
        auth = in_auth or self._octets[self._at : self._at + 5].upper() == b"AUTH "
        return AUTH_LIMIT if auth else COMMAND_LIMIT
