"""Reads the content of a message off the wire: finds its end and keeps within bounds what it holds of it.

One pass, any chunking. The header section is kept in memory (at most 1 MB), the body where `body` puts it. Content that
will be refused is read to its end and dropped: stopping early would let the rest of it be taken for commands. What it
is refused for hangs on the whole of it, never on how it was cut.

End of data, by the line end of the session (RFC 5321 §4.1.1.4, and the smuggling attacks of 2023):
* CRLF session: CRLF.CRLF and nothing else. Only a dot behind CRLF is un-stuffed.
* bare-LF session (a tolerance): LF.LF and nothing else. Only a dot behind LF is un-stuffed.

Every lone LF and lone CR becomes CRLF (see `unwrapping`), so no later reader can disagree about where a line ends.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from relay.core import reply
from relay.core.message import Content
from relay.core.mime import MAX_LINE
from relay.core.ports import Drafts
from relay.core.reply import Reply
from relay.core.tolerance import Tolerance
from relay.ingress.body import StoredBody
from relay.ingress.memory import Share
from relay.ingress.unwrapping import LineEnd, Unwrapper

HEADER_LIMIT: Final = 1_000_000

# Octets that are worked on as a whole. One read may bring 256 kB: passes over so many find fewer of them in the cache,
# and each copy is a fresh mapping from the kernel. An octet of a large message was dearer by an eighth.
PIECE: Final = 128 * 1024

# A line of one dot that some client believes to be the end of data, at the very end of what arrived so far.
_SUPPOSED_END = re.compile(rb"(?:\n|\r)\.(?:\r\n|\n|\r)\Z")


@dataclass(frozen=True, slots=True)
class DataLimits:
    """Octets: of the whole content, and of one line of it."""

    message_size: int
    line_length: int


class DataReader:
    """One message's way from 354 to the final dot.

    Feed octets until `feed` returns what lies behind the end of data. Then `refusal` says why the content cannot be
    taken, if it cannot; otherwise `content()` is the message. `admits` is asked before each feed.
    """

    __slots__ = (
        "_body",
        "_header",
        "_held",
        "_in_header",
        "_keeping",
        "_lack",
        "_last",
        "_limits",
        "_line_end",
        "_lines",
    )

    def __init__(
        self, limits: DataLimits, line_end: LineEnd, share: Share | None = None, drafts: Drafts | None = None
    ) -> None:
        self._limits = limits
        self._line_end = line_end
        # RFC 5321 §4.1.1.4: the CRLF of the DATA command counts as the one before a first dot. It is not content.
        self._held = line_end.octets
        self._last = line_end.octets
        self._lines = Unwrapper(line_end)
        self._header = bytearray()
        self._in_header = True
        self._body = StoredBody(share, drafts)
        self._keeping = True
        self._lack: Reply | None = None

    @property
    def stalled(self) -> bool:
        """True when the client may believe that it has ended the data, with line ends that do not."""
        return _SUPPOSED_END.search(self._last) is not None

    # -- memory -------------------------------------------------------------------------------------------------------

    @property
    def _used(self) -> int:
        """Octets of the content that are in memory."""
        return len(self._header) + self._body.size * (self._keeping and self._body.in_memory)

    def admits(self, octets: int) -> bool:
        """Is there memory for so many octets more? Where it is short, the body goes to a file.

        Octets that are not admitted have been read all the same, and count.
        """
        if not (self._keeping and self._body.in_memory) or self._body.share.reach(self._used + octets):
            return True
        if not self._in_header:
            try:
                self._body.move_to_file()
            except OSError:
                pass  # then they must wait
            else:
                self._body.share.settle(self._used)
                return True
        self._body.share.settle(self._used + octets)
        return False

    def wait_for_memory(self, octets: int, served: Callable[[], None]) -> None:
        """`served` is called when there is memory for so many octets more."""
        self._body.share.wait(self._used + octets, served)

    def give_up(self) -> None:
        """There was no memory for too long."""
        self._lack = reply.NO_MEMORY
        self._drop()

    # -- content ------------------------------------------------------------------------------------------------------

    def feed(self, octets: bytes) -> bytes | None:
        """Take octets. None: the end has not come; else the octets that follow it."""
        for start in range(0, len(octets), PIECE):
            rest = self._take(octets[start : start + PIECE])
            if rest is not None:
                return rest + octets[start + PIECE :]
        return None

    def _take(self, octets: bytes) -> bytes | None:
        """The same for a piece that is small enough to be worked on as a whole."""
        # Compiled, `+` and a slice copy their octets even where they change nothing.
        held = self._held + octets if self._held else octets
        line_end = self._line_end
        pieces = line_end.split_at_dots(held)
        end = self._end(pieces)
        if end is not None:
            self._keep(line_end.octets.join([*pieces[:end], b""]))
            rest = line_end.stuffed.join(pieces[end:])[len(line_end.octets) :]
        else:
            rest = None
            undecided = self._undecided(held)
            self._held = held[len(held) - undecided :]
            self._last = (self._last + octets[-5:])[-5:]
            unstuffed = line_end.octets.join(pieces)
            decided = len(unstuffed) - undecided + self._held.count(b".")
            self._keep(unstuffed[:decided] if undecided else unstuffed)
        self._body.share.settle(self._used)
        return rest

    def _end(self, pieces: list[bytes]) -> int | None:
        """Which piece stands behind the final dot; each but the first is what followed a dot at the start of a line."""
        line_end, last = self._line_end.octets, len(pieces) - 1
        for number, piece in enumerate(pieces):
            # Nothing between two dots: the line end that begins the second is the one that ends the first.
            if (piece.startswith(line_end) if piece else number < last) and number:
                return number
        return None

    def _undecided(self, held: bytes) -> int:
        """How many of the last octets could be the beginning of the end, or of a CRLF or a stuffed dot."""
        end = self._line_end.end_of_data
        for count in range(min(len(end) - 1, len(held)), 0, -1):
            if end.startswith(held[-count:]):
                # A CR before it may belong to the same line end (bare-LF session): a CRLF must not be torn.
                return count + held.endswith(b"\r", 0, len(held) - count)
        return int(held.endswith(b"\r"))

    def _keep(self, octets: bytes) -> None:
        lines = self._lines
        octets = lines.unwrap(octets)
        if not self._keeping:
            return
        if lines.size > self._limits.message_size or lines.longest_line > self._limits.line_length:
            self._drop()
            return
        if self._in_header:
            octets = self._divide(octets)
        if octets:
            self._store(octets)

    def _store(self, octets: bytes) -> None:
        if not self._keeping:
            return
        try:
            self._body.append(octets)
        except OSError:
            self._lack = reply.NO_ROOM
            self._drop()

    def _divide(self, octets: bytes) -> bytes:
        """Add to the header section; what lies behind its end belongs to the body."""
        header, before = self._header, len(self._header)
        header += octets
        if header.startswith(b"\r\n"):
            end = 0  # no header section at all: the content begins with the empty line
        else:
            end = header.find(b"\r\n\r\n", max(0, before - 3))
            end = end + 2 if end >= 0 else len(header)
        self._in_header = end == len(header)
        del header[end:]
        if len(header) > HEADER_LIMIT:
            self._lack = reply.HEADER_TOO_LARGE
            self._drop()
        return octets[end - before :]

    def _drop(self) -> None:
        """Nothing is kept any more."""
        self._keeping = False
        self._body.close()
        self._header.clear()

    # -- its end ------------------------------------------------------------------------------------------------------

    @property
    def refusal(self) -> Reply | None:
        """Why the content cannot be taken; None if it can."""
        if self._lines.size > self._limits.message_size:
            return reply.message_too_large(self._limits.message_size)
        if self._lines.longest_line > self._limits.line_length:
            return reply.line_too_long(self._limits.line_length)
        return self._lack

    @property
    def tolerances(self) -> set[Tolerance]:
        """What the client was forgiven; 8-bit octets too, if it has not announced them."""
        kinds = set()
        if self._lines.bare_lf:
            kinds.add(Tolerance.BARE_LF)
        if self._lines.lone_cr:
            kinds.add(Tolerance.LONE_CR)
        if self._lines.longest_line > MAX_LINE:
            kinds.add(Tolerance.LONG_LINE)
        if self._lines.nul:
            kinds.add(Tolerance.NUL)
        if self._lines.eight_bit:
            kinds.add(Tolerance.EIGHT_BIT)
        return kinds

    def content(self) -> Content:
        """The message; its body must be closed by whoever receives it."""
        return Content(bytes(self._header), self._body, self._lines.longest_line, self._lines.eight_bit)

    def discard(self) -> None:
        """Give up the content of a session that ended before its final dot."""
        self._body.close()
