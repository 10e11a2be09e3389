"""Reading a message: any line end comes in, and the octets that go onto the wire are kept for sending.

All of it is read before anybody is called: a cron job may take an hour to write what it has to say, and no server waits
that long within a transaction. What is larger than 1 MB waits in a temporary file.
"""

import io
import itertools
import os
import re
import select
from collections.abc import Iterable, Iterator

from relay.sendmail.failure import Failure
from relay.sendmail.header import Header, find_end

IN_MEMORY = 1 << 20  # octets
_READ_SIZE = 1 << 16
_LINE_ENDS = re.compile(rb"\r+\n?")


class Content:
    """What follows the header section, dot-stuffed (RFC 5321 §4.5.2); `size` and `eight_bit` are of it as it was."""

    def __init__(self) -> None:
        self.size = 0
        self.eight_bit = False
        self._blocks: list[bytes] = []
        self._held = 0
        self._file: io.BufferedIOBase | None = None

    def add(self, octets: bytes, *, line_start: bool) -> None:
        """More of it, in lines that end with LF."""
        self.eight_bit = self.eight_bit or not octets.isascii()
        self.size += len(octets) + octets.count(b"\n")
        self._keep(on_the_wire(octets, line_start=line_start))

    def blocks(self) -> Iterator[bytes]:
        """The octets for the wire, as often as they are wanted."""
        if self._file is None:
            yield from self._blocks
            return
        self._file.seek(0)
        while block := self._file.read(_READ_SIZE):
            yield block

    def __enter__(self) -> "Content":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()

    def _keep(self, octets: bytes) -> None:
        self._held += len(octets)
        if self._file is not None:
            self._file.write(octets)
            return
        self._blocks.append(octets)
        if self._held > IN_MEMORY:
            import tempfile

            self._file = tempfile.TemporaryFile()  # noqa: SIM115  it lasts as long as this
            self._file.writelines(self._blocks)
            self._blocks = []


def on_the_wire(octets: bytes, *, line_start: bool) -> bytes:
    """Lines that end with LF, dot-stuffed and with CRLF."""
    if line_start and octets.startswith(b"."):
        octets = b"." + octets
    return octets.replace(b"\n.", b"\n..").replace(b"\n", b"\r\n")


def read(descriptor: int, *, dot_ends: bool) -> tuple[Header, Content]:
    """The message that comes from a descriptor; raises Failure with EX_IOERR.

    With `dot_ends`, a line with nothing but a dot ends it, and what follows is not read.
    """
    try:
        return assemble(_pieces(descriptor), dot_ends=dot_ends)
    except OSError as error:
        raise Failure(
            os.EX_IOERR, f"the message cannot be read, or not kept: {error.strerror}. Nothing was sent"
        ) from None


def assemble(octets: Iterable[bytes], *, dot_ends: bool) -> tuple[Header, Content]:
    """The message out of the pieces in which it comes."""
    pieces = _unix_lines(octets)
    gathered = bytearray()
    line, end = 0, None
    for piece in pieces:
        gathered += piece
        if b"\n" not in piece:
            continue
        end = find_end(gathered, line)
        if end is not None:
            break
        line = gathered.rfind(b"\n") + 1
    if end is None:
        if gathered and not gathered.endswith(b"\n"):
            gathered += b"\n"
        end = find_end(gathered, line) or (len(gathered), len(gathered))
    header, rest = bytes(gathered[: end[0]]), bytes(gathered[end[1] :])
    del gathered
    content = Content()
    for block, line_start in _whole_lines(rest, pieces):
        length = _end_by_dot(block, line_start=line_start) if dot_ends else len(block)
        content.add(block[:length], line_start=line_start)
        if length < len(block):
            break
    return Header(header), content


def _end_by_dot(block: bytes, *, line_start: bool) -> int:
    """How much of a block stands before the line with nothing but a dot; all of it if there is none."""
    if line_start and block.startswith(b".\n"):
        return 0
    found = block.find(b"\n.\n")
    return len(block) if found < 0 else found + 1


def _whole_lines(first: bytes, pieces: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    """The same octets in blocks that end with a line, but for very long lines; and whether a line begins with it.

    The last line gets an end if it has none.
    """
    held, line_start = b"", True
    for piece in itertools.chain((first,), pieces):
        held += piece
        cut = held.rfind(b"\n") + 1 or (len(held) if len(held) > _READ_SIZE else 0)
        if cut:
            yield held[:cut], line_start
            line_start = held[cut - 1 : cut] == b"\n"
            held = held[cut:]
    if held and not held.endswith(b"\n"):
        held += b"\n"
    elif not held and not line_start:
        held = b"\n"
    if held:
        yield held, line_start


def _pieces(descriptor: int) -> Iterator[bytes]:
    while True:
        try:
            octets = os.read(descriptor, _READ_SIZE)
        except BlockingIOError:  # whoever shares the descriptor may have said that nobody waits for it
            select.select([descriptor], [], [])
            continue
        if not octets:
            return
        yield octets


def _unix_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """What comes, with LF for each CRLF, CR CR LF and lone CR (RFC 5321 §2.3.8 knows CRLF alone)."""
    pending = b""
    for piece in pieces:
        octets = pending + piece
        whole = octets.rstrip(b"\r")  # a CR at the end may belong to what comes next
        pending = octets[len(whole) :]
        if whole:
            yield _with_lf(whole)
    if pending:
        yield b"\n" * len(pending)


def _with_lf(octets: bytes) -> bytes:
    octets = octets.replace(b"\r\n", b"\n")
    if b"\r" not in octets:
        return octets
    return _LINE_ENDS.sub(lambda found: b"\n" if found[0].endswith(b"\n") else b"\n" * len(found[0]), octets)
