"""The PROXY header: both versions, however they are cut, and nothing that follows is touched."""

import contextlib
import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.ingress.proxy import SIGNATURE, HeaderReader, Proxied, ProxyError

V4 = ipaddress.ip_address("192.0.2.7")
V6 = ipaddress.ip_address("2001:db8::7")


def version_2(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack("!H", len(body)) + body


TCP4 = V4.packed + ipaddress.ip_address("198.51.100.1").packed + struct.pack("!HH", 4711, 25)
TCP6 = V6.packed + ipaddress.ip_address("2001:db8::1").packed + struct.pack("!HH", 4711, 25)
TLV = b"\x03\x00\x04\x01\x02\x03\x04" + b"\x04\x00\x03abc"

HEADERS = [
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\r\n", (V4, 4711)),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 25\r\n", (V6, 4711)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None),
    (version_2(1, 0x11, TCP4), (V4, 4711)),
    (version_2(1, 0x21, TCP6), (V6, 4711)),
    (version_2(1, 0x11, TCP4 + TLV), (V4, 4711)),
    (version_2(1, 0x11, TCP4 + b"\x04\xff\xf0" + b"\0" * 65_000), (V4, 4711)),
    (version_2(0, 0x00, b""), None),
    (version_2(0, 0x11, TCP4), None),
    (version_2(1, 0x00, b""), None),
    (version_2(1, 0x31, b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")), None),
    (version_2(1, 0x12, TCP4), None),
]

BROKEN = [
    (b"EHLO client\r\n", "begins with something else"),
    (b"\r\n\r\n\0\r\nQUOT\n", "begins with something else"),
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n", "cannot be understood"),
    (b"PROXY TCP5 192.0.2.7 198.51.100.1 4711 25\r\n", "cannot be understood"),
    (b"PROXY TCP4 192.0.2.7  198.51.100.1 4711 25\r\n", "cannot be understood"),
    (b"PROXY TCP4 192.0.2.300 198.51.100.1 4711 25\r\n", "addresses cannot be understood"),
    (b"PROXY TCP4 2001:db8::7 2001:db8::1 4711 25\r\n", "another family"),
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 25\r\n", "ports"),
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 +25\r\n", "ports"),
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\n", "does not end"),
    (b"PROXY UNKNOWN " + b"x" * 200, "does not end"),
    (version_2(2, 0x11, TCP4), "version or command"),
    (SIGNATURE + b"\x11\x11\x00\x0c" + TCP4, "version or command"),
    (version_2(1, 0x11, TCP4[:11]), "cut short"),
    (version_2(1, 0x21, TCP4), "cut short"),
]


def read(octets: bytes, most: int) -> tuple[Proxied | None, bytes]:
    """What the header says, and the octets behind it; pieces are of at most this size."""
    reader = HeaderReader()
    position = 0
    while position < len(octets):
        size = min(most, reader.wants)
        proxied = reader.feed(octets[position : position + size])
        position += size
        if proxied is not None:
            return proxied, octets[position:]
    return None, b""


@pytest.mark.parametrize("most", [1, 5, 70_000])
@pytest.mark.parametrize(("header", "client"), HEADERS)
def test_a_header_is_read_and_nothing_behind_it(header, client, most):
    """The client's own octets stay where they are: a ClientHello is for TLS to read."""
    assert read(header + b"\x16\x03\x01EHLO", most) == (Proxied(client), b"\x16\x03\x01EHLO")


@pytest.mark.parametrize("most", [1, 70_000])
@pytest.mark.parametrize(("octets", "words"), BROKEN)
def test_what_is_no_header_is_refused(octets, words, most):
    """And the error says why."""
    with pytest.raises(ProxyError, match=words):
        read(octets, most)


@given(octets=st.one_of(st.binary(max_size=300), st.binary(max_size=60).map(lambda tail: SIGNATURE + tail)))
def test_any_octets_are_a_header_or_none_or_incomplete(octets):
    """Nothing else comes of them."""
    with contextlib.suppress(ProxyError):
        read(octets, 7)
