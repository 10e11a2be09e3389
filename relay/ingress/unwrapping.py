"""Turns the lines of DATA into lines of content: every line end CRLF, no NUL, measured on the way.

Works on whole reads with what C does in one go, so that the price of an octet does not depend on what it is: the worst
that a client can send costs a few times the ordinary. Nothing here finds dots or the end of data; see `data`.
"""

import re
from enum import Enum
from io import IncrementalNewlineDecoder
from typing import Final

from relay.core.dots import splitter
from relay.core.mime import MAX_LINE

_REACH: Final = MAX_LINE + 2  # octets of a line of the greatest length that may travel, with its end
_LINES_WITHIN_REACH: Final = re.compile(rb"(?:.{0,%d}\n)*+" % (_REACH - 1), re.DOTALL)


class LineEnd(Enum):
    """What ends a line in this session; decided by its first command."""

    CRLF = b"\r\n"
    LF = b"\n"

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.stuffed = octets + b"."  # before a line's own dot, or the end of data
        self.end_of_data = self.stuffed + octets
        self.split_at_dots = splitter(octets)


class Unwrapper:
    """The content of one message, piece by piece. Of its size, 8-bit octets and lines over MAX_LINE it keeps account:
    `longest_line` is 0 as long as there is none.
    """

    __slots__ = ("_before", "_line", "_newlines", "bare_lf", "eight_bit", "lone_cr", "longest_line", "nul", "size")

    def __init__(self, line_end: LineEnd) -> None:
        self._before = len(line_end.octets)  # octets that are there for the first dot's sake and are no content
        self._line = 0  # octets of the line that has not ended
        self._newlines = IncrementalNewlineDecoder(None, translate=False)
        self.size = 0
        self.longest_line = 0
        self.eight_bit = False
        self.bare_lf = line_end is LineEnd.LF
        self.lone_cr = False
        self.nul = False

    def unwrap(self, octets: bytes) -> bytes:
        """Content for octets that neither begin nor end within a line end, their dots un-stuffed.

        The first octets begin with the line end of the DATA command, which is no content.
        """
        if self._before and octets:
            octets, self._before = octets[self._before :], 0
        octets = self._with_crlf(octets)
        self.size += len(octets)
        if octets.find(0) >= 0:  # `in` asks first whether what it looks for is a number, at some expense
            # RFC 5322 has none, and some readers drop it: a dot behind it would then end the data for them.
            self.nul = True
            octets = octets.replace(b"\0", b"")
        if not self.eight_bit:
            self.eight_bit = not octets.isascii()
        self._measure(octets)
        return octets

    def _with_crlf(self, octets: bytes) -> bytes:
        """The same lines, each ended by CRLF."""
        newlines = self._newlines
        newlines.reset()
        newlines.decode(octets.decode("latin-1"), final=True)  # only to see which there are
        if newlines.newlines is None or newlines.newlines == "\r\n":
            return octets
        self.lone_cr |= "\r" in newlines.newlines
        self.bare_lf |= "\n" in newlines.newlines
        lines = octets.splitlines()  # of every kind
        return b"\r\n".join(lines if not octets.endswith((b"\n", b"\r")) else [*lines, b""])

    def _measure(self, octets: bytes) -> None:
        """Look for lines over MAX_LINE, between those that are none."""
        size, start = len(octets), 0
        if self._line:
            start = octets.find(b"\n") + 1
            if not start:
                self._line += size
                self._note(self._line)
                return
            self._note(self._line + start - 2)
        while size - (start := _behind_lines_within_reach(octets, start)) >= _REACH:
            end = octets.find(b"\n", start + _REACH)
            if end < 0:
                break
            self._note(end - 1 - start)
            start = end + 1
        self._line = size - start
        self._note(self._line)

    def _note(self, length: int) -> None:
        if length > MAX_LINE:
            self.longest_line = max(self.longest_line, length)


def _behind_lines_within_reach(octets: bytes, start: int) -> int:
    """From the start of a line to the last end within reach, and on from there; where no end is within reach."""
    found = _LINES_WITHIN_REACH.match(octets, start)
    assert found is not None  # no lines at all are a match too
    return found.end()
