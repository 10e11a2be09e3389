"""Content as it goes over the wire: re-encoded where it must be, dot-stuffed (RFC 5321 §4.5.2), in large pieces."""

from collections.abc import Iterable, Iterator
from typing import Final

from relay.core.message import Content
from relay.core.recode import must_recode, recode

WRITE_SIZE: Final = 64 * 1024  # octets; what fits a transport's buffer, and what a small message stays below


def stuffed(content: Content, *, eight_bit_ok: bool) -> Iterator[bytes]:
    """The octets to send before the final dot; they end with CRLF, or are none."""
    chunks: Iterable[bytes] = content.chunks()
    if must_recode(content.longest_line, eight_bit=content.eight_bit, eight_bit_ok=eight_bit_ok):
        chunks = recode(content.chunks, eight_bit_ok=eight_bit_ok)
    return _stuff(_gather(chunks))


def _gather(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same octets in fewer pieces: a small message is one."""
    gathered: list[bytes] = []
    size = 0
    for chunk in chunks:
        gathered.append(chunk)
        size += len(chunk)
        if size >= WRITE_SIZE:
            yield b"".join(gathered)
            gathered, size = [], 0
    if size:
        yield b"".join(gathered)


def _stuff(chunks: Iterable[bytes]) -> Iterator[bytes]:
    line_start = True
    held = b""
    for chunk in chunks:
        octets = held + chunk if held else chunk
        held = b"\r" if octets.endswith(b"\r") else b""  # its LF is in the next piece
        octets = octets[: len(octets) - len(held)]
        if octets:
            stuffed_octets = octets.replace(b"\r\n.", b"\r\n..")
            yield b"." + stuffed_octets if line_start and octets.startswith(b".") else stuffed_octets
            line_start = octets.endswith(b"\r\n")
