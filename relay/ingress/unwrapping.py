"""Turns the lines of DATA into lines of content: dots un-stuffed, every line end CRLF, no NUL, measured on the way.

Works on whole reads with what `bytes` does at C speed, so that the price of an octet does not depend on what it is: the
worst that a client can send costs a few times the ordinary. Nothing here finds the end of data; see `data`.
"""

import re
from enum import Enum


class LineEnd(Enum):
    """What ends a line in this session; decided by its first command."""

    CRLF = b"\r\n"
    LF = b"\n"

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.stuffed = octets + b"."  # before a line's own dot, or the end of data
        self.end_of_data = octets + b"." + octets
        self.first_dot = re.compile(re.escape(self.stuffed)).search  # twice as fast as `find`


class Unwrapper:
    """The content of one message, piece by piece. Of its size, longest line and 8-bit octets it keeps account."""

    __slots__ = ("_before", "_line", "_line_end", "bare_lf", "eight_bit", "lone_cr", "longest_line", "nul", "size")

    def __init__(self, line_end: LineEnd) -> None:
        self._line_end = line_end
        self._before = len(line_end.octets)  # octets that are there for the first dot's sake and are no content
        self._line = 0  # octets of the line that has not ended
        self.size = 0
        self.longest_line = 0
        self.eight_bit = False
        self.bare_lf = line_end is LineEnd.LF
        self.lone_cr = False
        self.nul = False

    def unwrap(self, octets: bytes, *, dotted: bool) -> bytes:
        """Content for octets that neither begin nor end within a line end. `dotted`: some line begins with a dot.

        The first octets begin with the line end of the DATA command, which is no content.
        """
        if dotted:
            # Three times as fast as `replace`, as long as few lines are stuffed.
            octets = self._line_end.octets.join(octets.split(self._line_end.stuffed))
        if self._before and octets:
            octets, self._before = octets[self._before :], 0
        lines = octets.splitlines()  # of every kind: CRLF, LF, CR
        if not lines:
            return octets
        lengths = list(map(len, lines))
        open_line = not octets.endswith((b"\n", b"\r"))
        ends = len(lines) - open_line
        if len(octets) != sum(lengths) + 2 * ends:  # some end is one octet; nothing faster tells
            self.lone_cr |= ends > octets.count(b"\n")
            self.bare_lf |= ends > octets.count(b"\r")
            octets = b"\r\n".join(lines if open_line else [*lines, b""])
        self.size += len(octets)
        if b"\0" in octets:
            # RFC 5322 has none, and some readers drop it: a dot behind it would then end the data for them.
            self.nul = True
            octets = octets.replace(b"\0", b"")
            if not octets:
                return octets
            lengths = list(map(len, octets.splitlines()))
            open_line = not octets.endswith(b"\n")
        self._measure(octets, lengths, open_line=open_line)
        return octets

    def _measure(self, octets: bytes, lengths: list[int], *, open_line: bool) -> None:
        if not self.eight_bit:
            self.eight_bit = not octets.isascii()
        lengths[0] += self._line
        self.longest_line = max(self.longest_line, max(lengths))
        self._line = lengths[-1] if open_line else 0
