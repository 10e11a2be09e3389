"""Reads replies off the wire: sans-IO, bounded, any chunking (RFC 5321 §4.2.1).

Octets that are no reply, a reply of more than 64 KB or with lines of more than 8 KB raise Gibberish: whatever sends
them is not worth listening to, and costs no memory.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from relay.core.reply import Reply

MAX_LINE: Final = 8 * 1024
MAX_REPLY: Final = 64 * 1024


@lru_cache(maxsize=64)
def _parsed(line: bytes) -> Reply:
    """A reply of one line. MAIL, RCPT and DATA are answered in the same words all day."""
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

    def feed(self, octets: bytes) -> Iterator[Reply]:
        """The replies that these octets complete; raises Gibberish behind the last that can be read."""
        *lines, self._buffer = (self._buffer + octets).split(b"\n")
        for line in lines:
            reply = self._line(line)
            if reply is not None:
                yield reply
        if len(self._buffer) > MAX_LINE:
            raise Gibberish("a reply line without end")

    def _line(self, line: bytes) -> Reply | None:
        line = line.removesuffix(b"\r")
        self._size += len(line)
        if len(line) > MAX_LINE or self._size > MAX_REPLY:
            raise Gibberish("a reply without end")
        code, more = line[:3], line[3:4]
        if not (len(code) == 3 and code.isdigit() and b"200" <= code <= b"599" and more in (b"", b" ", b"-")):
            raise Gibberish("octets that are no SMTP reply")
        if self._lines and int(code) != self._code:
            raise Gibberish("a reply whose lines have different codes")
        if more != b"-" and not self._lines:
            self._size = 0
            return _parsed(line)
        self._code = int(code)
        self._lines.append(line[4:].decode("utf-8", "replace"))
        if more == b"-":
            return None
        reply = Reply.parse(self._code, self._lines)
        self._lines, self._size = [], 0
        return reply
