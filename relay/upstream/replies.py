"""Reads replies off the wire: sans-IO, bounded, any chunking (RFC 5321 §4.2.1).

Octets that are no reply, a reply of more than 64 KB or with lines of more than 8 KB raise Gibberish: whatever sends
them is not worth listening to, and costs no memory.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from relay.core.reply import Reply

MAX_LINE: Final = 8 * 1024
MAX_REPLY: Final = 64 * 1024


_is_line = re.compile(rb"[2-5][0-9]{2}(?:[ -].*)?", re.DOTALL).fullmatch


@lru_cache(maxsize=64)
def _alone(line: bytes) -> Reply | None:
    """The reply that is this one line; None where it is none. MAIL, RCPT and DATA are answered in the same words all
    day.
    """
    line = line.removesuffix(b"\r")
    if len(line) > MAX_LINE or line[3:4] == b"-" or not _is_line(line):
        return None
    return Reply.parse(int(line[:3]), [line[4:].decode("utf-8", "replace")])


class Gibberish(Exception):
    """Octets that are no SMTP reply."""


class ReplyReader:
    """Octets in, replies out."""

    def __init__(self) -> None:
        self._buffer = b""
        self._lines: list[str] = []
        self._code = 0
        self._size = 0

    @property
    def empty(self) -> bool:
        """True between two replies."""
        return not (self._buffer or self._lines)

    def feed(self, octets: bytes, hear: Callable[[Reply], None]) -> None:
        """Hand on the replies that these octets complete; raises Gibberish behind the last that can be read."""
        *lines, self._buffer = (self._buffer + octets).split(b"\n")
        for line in lines:
            reply = None if self._lines else _alone(line)
            if reply is None:
                reply = self._part(line)
            if reply is not None:
                hear(reply)
        if len(self._buffer) > MAX_LINE:
            raise Gibberish("a reply line without end")

    def _part(self, line: bytes) -> Reply | None:
        """A line of a reply that has several; the reply, if it is the last."""
        line = line.removesuffix(b"\r")
        self._size += len(line)
        if len(line) > MAX_LINE or self._size > MAX_REPLY:
            raise Gibberish("a reply without end")
        if not _is_line(line):
            raise Gibberish("octets that are no SMTP reply")
        code = int(line[:3])
        if self._lines and code != self._code:
            raise Gibberish("a reply whose lines have different codes")
        self._code = code
        self._lines.append(line[4:].decode("utf-8", "replace"))
        if line[3:4] == b"-":
            return None
        reply = Reply.parse(code, self._lines)
        self._lines, self._size = [], 0
        return reply
