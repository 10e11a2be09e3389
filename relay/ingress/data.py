"""Reads the content of a message off the wire: finds its end, un-stuffs it, normalises it, and never holds too much.

One pass, any chunking. What is kept is bounded: the header section in memory (at most 1 MB), the body in memory up to
128 KB and in an unnamed temporary file beyond. Content that will be refused is read to its end and dropped: stopping
early would let the rest of it be taken for commands.

End of data, by the line end of the session (RFC 5321 §4.1.1.4, and the smuggling attacks of 2023):
* CRLF session: CRLF.CRLF and nothing else. Only a dot behind CRLF is un-stuffed.
* bare-LF session (a tolerance): LF.LF and nothing else. Only a dot behind LF is un-stuffed.

Afterwards every lone LF and lone CR becomes CRLF, so no later reader can disagree about where a line ends.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import IO, Final

from relay.core import reply
from relay.core.message import Content
from relay.core.mime import MAX_LINE
from relay.core.reply import Reply

HEADER_LIMIT: Final = 1_000_000
MEMORY_LIMIT: Final = 128 * 1024
_READ_SIZE: Final = 64 * 1024

_ANY_LINE_END = re.compile(rb"\r\n|\r|\n")
# A line of one dot that some client believes to be the end of data, at the very end of what arrived so far.
_SUPPOSED_END = re.compile(rb"(?:\n|\r)\.(?:\r\n|\n|\r)\Z")


class LineEnd(Enum):
    """What ends a line in this session; decided by its first command."""

    CRLF = b"\r\n"
    LF = b"\n"


class SpooledBody:
    """The body of one message: memory first, a temporary file when it grows; gone when closed."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._file: IO[bytes] | None = None
        self.size = 0

    def append(self, octets: bytes) -> None:
        """Add octets; raises OSError when the temporary file cannot take them."""
        self.size += len(octets)
        if self._file is None:
            self._parts.append(octets)
            if self.size <= MEMORY_LIMIT:
                return
            self._file = tempfile.TemporaryFile(prefix="sparkpost-relay-")  # noqa: SIM115 - closed by close()
            octets, self._parts = b"".join(self._parts), []
        self._file.write(octets)

    def chunks(self) -> Iterator[bytes]:
        if self._file is None:
            yield from self._parts
            return
        self._file.flush()
        descriptor, position = self._file.fileno(), 0
        while octets := os.pread(descriptor, _READ_SIZE, position):  # shares no position with other readers
            position += len(octets)
            yield octets

    def close(self) -> None:
        self._parts.clear()
        if self._file is not None:
            self._file.close()


def scratch_problem() -> str | None:
    """Why large bodies could not be kept on this host, and what would help; None if they can."""
    try:
        tempfile.TemporaryFile(prefix="sparkpost-relay-").close()
    except OSError as error:
        return (
            f"no temporary file can be made ({error}): messages over {MEMORY_LIMIT // 1024} KB will be answered 452; "
            "mount a writable folder, such as a tmpfs, at /tmp, or name one in TMPDIR"
        )
    return None


@dataclass(frozen=True, slots=True)
class DataLimits:
    """Octets: of the whole content, and of one line of it."""

    message_size: int
    line_length: int


class DataReader:
    """One message's way from 354 to the final dot.

    Feed octets until `feed` returns how many of them lie behind the end of data. Then `refusal` says why the content
    cannot be taken, if it cannot; otherwise `content()` is the message.
    """

    def __init__(self, limits: DataLimits, line_end: LineEnd) -> None:
        self._limits = limits
        self._end = line_end.value + b"." + line_end.value
        self._dotted = line_end.value + b"."
        # RFC 5321 §4.1.1.4: the CRLF of the DATA command counts as the one before a first dot. It is not content.
        self._held = line_end.value
        self._skip = len(line_end.value)
        self._last = b""
        self._header = bytearray()
        self._in_header = True
        self._body = SpooledBody()
        self._size = 0
        self._line = 0
        self._longest_line = 0
        self._eight_bit = False
        self.refusal: Reply | None = None
        self.tolerances: set[str] = set()
        if line_end is LineEnd.LF:
            self.tolerances.add("bare-lf")

    @property
    def stalled(self) -> bool:
        """True when the client may believe that it has ended the data, with line ends that do not."""
        return _SUPPOSED_END.search(self._last) is not None

    def feed(self, octets: bytes) -> bytes | None:
        """Take octets. None: the end has not come; else the octets that follow it."""
        held = self._held + octets
        end = held.find(self._end)
        if end >= 0:
            self._keep(held[: end + len(self._end) // 2])
            if self._longest_line > MAX_LINE:
                self.tolerances.add("long-line")
            return held[end + len(self._end) :]
        self._last = held[-5:]
        keep = self._undecided(held)
        self._held = held[len(held) - keep :]
        self._keep(held[: len(held) - keep])
        return None

    def _undecided(self, held: bytes) -> int:
        """How many of the last octets could be the beginning of the end, or of a CRLF or a stuffed dot."""
        for count in range(min(len(self._end) - 1, len(held)), 0, -1):
            if self._end.startswith(held[-count:]):
                # A CR before it may belong to the same line end (bare-LF session): a CRLF must not be torn.
                return count + held.endswith(b"\r", 0, len(held) - count)
        return int(held.endswith(b"\r"))

    def _keep(self, octets: bytes) -> None:
        """Un-stuff, normalise, measure and store octets that do not end within a line end."""
        octets = octets.replace(self._dotted, self._dotted[:-1])
        if self._skip:
            if not octets:
                return
            octets, self._skip = octets[self._skip :], 0
        octets = self._normalise(octets)
        self._size += len(octets)
        if self.refusal is not None:
            return
        self._measure(octets)
        if self._size > self._limits.message_size:
            self._refuse(reply.message_too_large(self._limits.message_size))
        elif self._longest_line > self._limits.line_length:
            self._refuse(reply.line_too_long(self._limits.line_length))
        else:
            self._store(octets)

    def _normalise(self, octets: bytes) -> bytes:
        pairs = octets.count(b"\r\n")
        lone_lf = octets.count(b"\n") - pairs
        lone_cr = octets.count(b"\r") - pairs
        if not (lone_lf or lone_cr):
            return octets
        if lone_lf:
            self.tolerances.add("bare-lf")
        if lone_cr:
            self.tolerances.add("lone-cr")
        return _ANY_LINE_END.sub(b"\r\n", octets)

    def _measure(self, octets: bytes) -> None:
        if not self._eight_bit and not octets.isascii():
            self._eight_bit = True
        first, *others = octets.split(b"\r\n")
        self._line += len(first)
        if others:
            self._longest_line = max(self._longest_line, self._line, *map(len, others))
            self._line = len(others[-1])
        else:
            self._longest_line = max(self._longest_line, self._line)

    def _store(self, octets: bytes) -> None:
        if self._in_header:
            searched = max(0, len(self._header) - 3)
            self._header += octets
            if self._header.startswith(b"\r\n"):
                end = 0  # no header section at all: the content begins with the empty line
            else:
                found = self._header.find(b"\r\n\r\n", searched)
                if found < 0:
                    if len(self._header) > HEADER_LIMIT:
                        self._refuse(reply.HEADER_TOO_LARGE)
                    return
                end = found + 2
            octets = bytes(self._header[end:])
            del self._header[end:]
            self._in_header = False
        try:
            self._body.append(octets)
        except OSError:
            self._refuse(reply.NO_ROOM)

    def _refuse(self, why: Reply) -> None:
        self.refusal = why
        self._body.close()
        self._header.clear()

    def content(self) -> Content:
        """The message; its body must be closed by whoever receives it."""
        return Content(bytes(self._header), self._body, self._longest_line, self._eight_bit)

    def discard(self) -> None:
        """Give up the content of a session that ended before its final dot."""
        self._body.close()
