"""Content as it goes over the wire: re-encoded where it must be, dot-stuffed (RFC 5321 §4.5.2), in writable pieces."""

from collections.abc import Iterator

from relay.core.message import Content
from relay.core.recode import must_recode, recode


def stuffed(content: Content, *, eight_bit_ok: bool) -> Iterator[bytes]:
    """The octets to send before the final dot; they end with CRLF, or are none."""
    chunks = content.chunks()
    if must_recode(content.longest_line, eight_bit=content.eight_bit, eight_bit_ok=eight_bit_ok):
        chunks = recode(content.chunks, eight_bit_ok=eight_bit_ok)
    at_line_start = True
    tail = b""
    for chunk in chunks:
        octets = tail + chunk
        if at_line_start and octets:
            at_line_start = False
            if octets.startswith(b"."):
                octets = b"." + octets
        # A CRLF at the end may be followed by a dot in the next chunk; hold it back.
        keep = 2 if octets.endswith(b"\r\n") else 1 if octets.endswith(b"\r") else 0
        octets, tail = octets[: len(octets) - keep], octets[len(octets) - keep :]
        if octets:
            yield octets.replace(b"\r\n.", b"\r\n..")
    if tail:
        yield tail
