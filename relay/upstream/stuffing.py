"""Content as it goes over the wire: re-encoded where it must be, dot-stuffed (RFC 5321 §4.5.2), in large pieces."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final

from relay.core.dots import splitter
from relay.core.message import Content, gathered
from relay.core.recode import must_recode, recode

_split_at_dots = splitter(b"\r\n")
WRITE_SIZE: Final = 64 * 1024  # octets; what fits a transport's buffer, and what a small message stays below


def stuffed(content: Content, *, eight_bit_ok: bool) -> Iterator[bytes]:
    """The octets to send before the final dot; they end with CRLF, or are none. At an empty piece others may have a
    turn: it has taken its time.
    """
    if must_recode(content.longest_line, eight_bit=content.eight_bit, eight_bit_ok=eight_bit_ok):
        return _stuff(gathered(recode(partial(_pieces, content), eight_bit_ok=eight_bit_ok), WRITE_SIZE))
    return _stuff(_pieces(content))


def _pieces(content: Content) -> Iterator[bytes]:
    return gathered(content.chunks(), WRITE_SIZE)


def _stuff(chunks: Iterable[bytes]) -> Iterator[bytes]:
    line_start = True
    held = b""
    for chunk in chunks:
        if not chunk:
            yield chunk
        octets = held + chunk if held else chunk
        held = b"\r" if octets.endswith(b"\r") else b""  # its LF is in the next piece
        if held:
            octets = octets[:-1]
        if octets:
            text = b"\r\n..".join(_split_at_dots(octets))
            yield b"." + text if line_start and octets.startswith(b".") else text
            line_start = octets.endswith(b"\r\n")
